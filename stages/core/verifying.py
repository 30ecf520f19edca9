"""A GGUF file, its fused model and test rows in; every check, the answers and their scores out."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.core import (
    files,
    gguf_file,
    llamaruntime,
    llamaserver,
    parity,
    probes,
    statistics,
    threads,
)
from stages.core.errors import MissingPackage, TunesmithError
from stages.core.example import Message, nfc
from stages.core.llamaruntime import Answer, Runtime
from stages.core.parity import Check, Pair
from stages.core.progress import Progress
from stages.core.reference import Reference
from stages.core.settings import Model
from stages.core.tokens import IGNORED, Row

Judge = Callable[[Any, str], dict[str, float]]
SAMPLES = 5
PIECES = 64  # tokens whose texts make one text


class Case(NamedTuple):
    """What the file is compared with, and how much of it."""

    path: Path
    fused: Path
    rows: Sequence[Row]
    quant: str
    model: Model


class Rendered(NamedTuple):
    """What llama.cpp's server made: prompts of the probe chats and of test rows, and endings."""

    chats: dict[str, str | None]
    rows: list[str | None]
    finishes: list[str]


def report(case: Case, judge: Judge) -> dict[str, Any]:
    """The file's description, `checks`, `scores`, `gates` and a few `samples`.

    A file that llama.cpp does not open fails one check; the others are skipped then.
    """
    found = {"bytes": case.path.stat().st_size, "sha256": files.sha256(case.path)}
    empty: dict[str, Any] = {"scores": {}, "gates": [], "samples": []}
    reference = Reference(case.fused)
    with ExitStack() as stack:
        try:
            found |= gguf_file.describe(case.path)
            rendered = _served(case)
            runtime = stack.enter_context(llamaruntime.open_file(case.path))
            _require_vocabulary(case, runtime)
        except MissingPackage:  # the machine's fault, not the file's
            raise
        except TunesmithError as refusal:
            opens = parity.check("opens", False, True, False, refusal.what)
            others = [parity.skipped(name, "the file does not open") for name in parity.NAMES[1:]]
            return found | empty | {"checks": [opens, *others]}
        opens = parity.check("opens", True, True, True)
        checks = [opens, *_text_checks(case, reference, runtime, rendered)]
        answers = _answers(case, runtime)
        checks += _number_checks(case, reference, runtime, answers)
        checks += _ending_checks(case, reference, answers, rendered.finishes)
        return found | {"checks": checks} | _scored(case, runtime, answers, judge)


def _require_vocabulary(case: Case, runtime: Runtime) -> None:
    expected = files.read_json(case.fused / "config.json").get("vocab_size", runtime.vocabulary)
    if runtime.vocabulary != expected:
        raise gguf_file.broken(
            case.path, f"it knows {runtime.vocabulary} tokens, the fused model {expected}"
        )


def _served(case: Case) -> Rendered:
    """Everything that needs the server, which is then closed: it holds the model once more."""
    rows, most = case.rows[: case.model.verify.rows], case.model.evaluate.max_new_tokens
    chats = rows[: case.model.verify.greedy_prompts]
    room = max(row.prompt_length for row in rows) + most + 64
    _, count = llamaruntime.sharing(case.path)
    progress = Progress("serving chats", len(chats))
    with llamaserver.serve(case.path, room, count) as served:
        probed = {name: served.render(chat[0], chat[1]) for name, chat in probes.CHATS.items()}
        prompts = [served.render(*_asked(row)) for row in rows]
        finishes = []
        for row in chats:
            finishes.append(served.finish(*_asked(row), most))
            progress.step()
    progress.close()
    return Rendered(probed, prompts, finishes)


def _asked(row: Row) -> tuple[list[Message], list[dict[str, Any]] | None]:
    """The messages before the last answer, and the tools."""
    assert row.example is not None  # test rows carry theirs
    return row.example.messages[:-1], row.example.tools


def _text_checks(
    case: Case, reference: Reference, runtime: Runtime, rendered: Rendered
) -> list[Check]:
    """Template, rendering, token ids and the end of a turn."""
    template = gguf_file.chat_template(case.fused)
    chats = [row.ids for row in case.rows[: case.model.verify.rows]]
    texts = [*probes.TEXTS, *(runtime.text(ids, control=True) for ids in chats)]
    tokens = [
        Pair(f"{text[:40]!r}{'' if special else ' as plain text'}",
             reference.token_ids(text, special), runtime.token_ids(text, special))
        for text in texts
        for special in (True, False)
    ]  # fmt: skip
    return [
        parity.same("template", [Pair("template", template, runtime.template())]),
        _rendering(reference, runtime, rendered.chats),
        parity.same("tokens", tokens),
        _vocabulary(reference, runtime),
        _prompts(case, runtime, rendered.rows, template or ""),
        parity.end_of_turn(
            reference.end, reference.ends, runtime.eos, runtime.ends, runtime.vocabulary
        ),
    ]


def _vocabulary(reference: Reference, runtime: Runtime) -> Check:
    """Ids of texts made of all the tokens' own texts, with and without spaces between them.

    Reported: Unicode tables of different years may part on a rare letter that no chat holds.
    """
    pieces = [runtime.text([number], control=True) for number in range(runtime.vocabulary)]
    whole = [piece for piece in pieces if piece and "\ufffd" not in piece]
    texts = [
        nfc(between.join(whole[start : start + PIECES]))
        for start in range(0, len(whole), PIECES)
        for between in ("", " ")
    ]
    pairs = [Pair(f"{t[:20]!r}", reference.token_ids(t), runtime.token_ids(t)) for t in texts]
    return parity.reported(parity.same("vocabulary", pairs), "")


def _rendering(reference: Reference, runtime: Runtime, made: dict[str, str | None]) -> Check:
    """The probe chats that this template can hold; llama.cpp leaves out a BOS that it adds."""
    pairs, left_out = [], []
    for name, (messages, tools, mark) in probes.CHATS.items():
        expected, found = reference.render(messages, tools), made[name]
        if expected is None or mark not in expected:
            left_out.append(name)
            continue
        if runtime.adds_bos and not (found or "").startswith(reference.bos):
            expected = expected.removeprefix(reference.bos)
        pairs.append(Pair(name, expected, found))
    reason = f"the template cannot hold: {', '.join(left_out)}" if left_out else ""
    return parity.same("rendering", pairs, reason)


def _prompts(case: Case, runtime: Runtime, made: Sequence[str | None], template: str) -> Check:
    """The test prompts as llama.cpp renders and tokenises them: the ids that were trained."""
    pairs = []
    for row, text in zip(case.rows, made, strict=False):
        ids = None if text is None else runtime.token_ids(text, whole=True)
        pairs.append(Pair(row.source, row.ids[: row.prompt_length], ids))
    found = parity.same("prompts", pairs)
    if "strftime_now" in template and found["outcome"] == "failed":
        return parity.reported(found, "the template writes today's date, rows have a fixed one")
    return found


def _answers(case: Case, runtime: Runtime) -> list[Answer]:
    """The file's greedy answers to all test prompts, from the ids that were trained."""
    prompts = [row.ids[: row.prompt_length] for row in case.rows]
    progress = Progress(f"answers of {case.path.stem}", len(prompts))
    made: dict[int, Answer] = {}
    for index, answer in runtime.answers(prompts, case.model.evaluate.max_new_tokens):
        made[index] = answer
        progress.step()
    progress.close()
    return [made[index] for index in range(len(prompts))]


def _number_checks(
    case: Case, reference: Reference, runtime: Runtime, answers: Sequence[Answer]
) -> list[Check]:
    """Divergence on trained tokens, and the first token at which greedy answers part."""
    verify = case.model.verify
    rows = case.rows[: verify.rows]
    asked = list(zip(case.rows, answers, strict=True))[: verify.greedy_prompts]
    reference.load()
    progress = Progress("comparing with the fused model", len(rows) + len(asked))

    def compared(row: Row) -> tuple[np.ndarray, np.ndarray]:
        places = [n - 1 for n, label in enumerate(row.labels) if label != IGNORED and n]
        model = reference.logits(row.ids, places)
        return parity.divergence(model, runtime.logits(row.ids, places))

    def parted(pair: tuple[Row, Answer]) -> parity.Parting | None:
        row, answer = pair
        prompt, said = row.ids[: row.prompt_length], answer.whole
        places = range(len(prompt) - 1, len(prompt) - 1 + len(said))
        return parity.parting(row.source, said, reference.logits([*prompt, *said], list(places)))

    with threads.workers() if runtime.workers > 1 else nullcontext() as pool:
        spread: Any = pool.map if pool else map
        rows_found = [_stepped(progress, found) for found in spread(compared, rows)]
        partings = [_stepped(progress, found) for found in spread(parted, asked)]
    progress.close()
    return [
        parity.kl(rows_found, verify.kl.get(case.quant)),
        parity.greedy(len(asked), partings, case.quant),
    ]


def _stepped(progress: Progress, found: Any) -> Any:
    progress.step()
    return found


def _ending_checks(
    case: Case, reference: Reference, answers: Sequence[Answer], finishes: Sequence[str]
) -> list[Check]:
    """It stops by itself: from ids at the model's own end of turn, and as a served chat."""
    limit = case.model.verify.stops
    right = sum(answer.end == reference.end for answer in answers)
    other = sum(answer.stopped and answer.end != reference.end for answer in answers)
    by_itself = sum(finish in ("stop", "tool_calls") for finish in finishes)
    return [
        parity.share("stops", right, len(answers), limit, at_another_token=other),
        parity.share("chat", by_itself, len(finishes), limit, errors=finishes.count("error")),
    ]


def _scored(
    case: Case, runtime: Runtime, answers: Sequence[Answer], judge: Judge
) -> dict[str, Any]:
    """The judge's scores of the file's answers, with 95 % intervals, and their gates."""
    texts = [runtime.text(answer.ids) for answer in answers]
    scores = [judge(row.example, text) for row, text in zip(case.rows, texts, strict=True)]
    summaries = statistics.summaries(scores)
    samples = [
        {"source": row.source, "answer": text, "scores": score}
        for row, text, score in zip(case.rows, texts, scores, strict=True)
    ]
    return {
        "scores": summaries,
        "gates": parity.gates(case.model.gates.at_least, summaries),
        "samples": samples[:SAMPLES],
        "distinct": statistics.distinctness(texts),
    }
