"""Test rows and a generator in; answers, score tables and sample files out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from stages.core import example, files, statistics, tokens
from stages.core.errors import TunesmithError
from stages.core.progress import Progress
from stages.core.settings import Evaluate

Generate = Callable[..., Iterator[tuple[int, list[int], bool]]]


def test_rows(folder: Path, most: int) -> list[tokens.Row]:
    """The turns of the test rows with distinct prompts, in order; at most `most` unless it is 0.

    Raises:
        TunesmithError: the test split is empty.
    """
    files.require_complete(folder, f"tokenise@{folder.name}")
    prompts: dict[tuple[int, ...], tokens.Row] = {}
    for row in tokens.read_split(folder, "test"):
        for turn in turns(row):
            prompts.setdefault(tuple(turn.ids[: turn.prompt_length]), turn)
    rows = list(prompts.values())
    if not rows:
        raise TunesmithError(
            "The test split is empty, so nothing can be scored.",
            where=str(folder),
            why="A model without held-out rows cannot show what it learned.",
            do="Give datasets.<name>.split.test a larger fraction.",
        )
    return rows[:most] if most else rows


def turns(row: tokens.Row) -> Iterator[tokens.Row]:
    """One row for each assistant turn of a chat, cut after it; only that turn's labels are kept.

    A run of trained tokens is one turn, its end-of-turn token included.
    """
    assert row.example is not None  # rows of the test split carry theirs
    spans, place = [], 0
    for trained, run in groupby(label != tokens.IGNORED for label in row.labels):
        start, place = place, place + len(list(run))
        if trained:
            spans.append((start, place))
    said = [n for n, m in enumerate(row.example.messages, 1) if m["role"] == "assistant"]
    for (start, end), count in zip(spans, said, strict=True):
        chat = replace(row.example, messages=row.example.messages[:count])
        labels = [tokens.IGNORED] * start + row.labels[start:end]
        yield replace(row, ids=row.ids[:end], labels=labels, prompt_length=start, example=chat)


def answers(
    generate: Generate,
    model: Path,
    rows: Sequence[tokens.Row],
    settings: Evaluate,
    temperature: float,
    label: str,
) -> tuple[list[str], float]:
    """The model's answers in the order of `rows`, and the share that ended by itself."""
    progress = Progress(f"{label} answers", len(rows))
    found, stopped = [""] * len(rows), 0
    made = generate(
        model,
        [row.ids[: row.prompt_length] for row in rows],
        max_new_tokens=settings.max_new_tokens,
        temperature=temperature,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )
    decode = decoder(model)
    for index, ids, stop in made:
        found[index] = decode(ids)
        stopped += stop
        progress.step()
    progress.close()
    return found, stopped / len(rows)


def decoder(model: Path) -> Callable[[list[int]], str]:
    """Token ids -> text by the model's own tokenizer.json, control tokens left out."""
    from tokenizers import Tokenizer

    decode: Callable[[list[int]], str] = Tokenizer.from_file(str(model / "tokenizer.json")).decode
    return decode


def write_series(path: Path, found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """One line a metric and model, with its interval where it has one, for `dvc plots`."""
    lines = ["metric\tmodel\tmean\tlow\thigh\tn"]
    for label, metrics in found.items():
        for name, value in metrics.items():
            low, high = value.get("low", value["mean"]), value.get("high", value["mean"])
            row = (name, label, f"{value['mean']:.4f}", f"{low:.4f}", f"{high:.4f}", value["n"])
            lines.append("\t".join(map(str, row)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_samples(
    path: Path,
    rows: Sequence[tokens.Row],
    texts: Mapping[str, Sequence[str]],
    scores: Mapping[str, Sequence[Mapping[str, float]]],
) -> None:
    """One line a test row: prompt, reference and, per model, answer and judgement."""
    lines = []
    for index, row in enumerate(rows):
        chat = row.example
        assert chat is not None  # rows of the test split carry theirs
        line: dict[str, Any] = {"source": chat.source, "meta": chat.meta}
        line |= {"prompt": chat.messages[:-1], "reference": chat.messages[-1]}
        for label in texts:
            line[label] = {"answer": texts[label][index], "scores": scores[label][index]}
        lines.append(line)
    example.write_lines(path, lines)


def show(
    key: str, scores: Mapping[str, Sequence[Mapping[str, float]]], gates: Sequence[dict[str, Any]]
) -> None:
    """Print the means per model, one metric a line, and the gates."""
    table = {label: statistics.summaries(values) for label, values in scores.items()}
    print(f"{key:<16}" + "".join(f"{label:>16}" for label in table))
    for name in sorted({name for values in table.values() for name in values}):
        cells = (table[label].get(name, {}).get("mean") for label in table)
        texts = ("-" if cell is None else f"{100 * cell:.1f} %" for cell in cells)
        print(f"  {name:<14}" + "".join(f"{text:>16}" for text in texts))
    for gate in gates:
        print(f"  gate {gate['gate']}: {gate['outcome']} {gate['reason']}".rstrip())
