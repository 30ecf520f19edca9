"""Verify: a good file passes every check, and each kind of damage fails the check that names it."""

import itertools
import math
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson
import project
import pytest
from safetensors.numpy import load_file, save_file
from tiny import STOP, tiny_model

from stages import verify
from stages.core import (
    convert_gguf,
    example,
    files,
    gguf_file,
    llama_abi,
    llamacpp,
    llamaruntime,
    llamaserver,
    parity,
    probes,
    releasing,
    settings,
    tokenising,
    tokens,
    verifying,
)
from stages.core.errors import MissingPackage, TunesmithError
from stages.core.example import Example

pytest.importorskip("torch")
pytest.importorskip("transformers")
xllamacpp = pytest.importorskip("xllamacpp")
needs_source = pytest.mark.skipif(
    not llamacpp.source().is_dir(), reason="the llama.cpp source is not fetched: run make first"
)
PARAMS = (
    "gguf:\n  first-f16: {model: first, judge: chats, quant: f16}",
    "gguf:\n  first-f16: {model: first, judge: chats, quant: f16}\n"
    "  first-q8_0: {model: first, judge: chats, quant: q8_0}",
)
ANSWER = "front open spin"


def chatter(folder: Path) -> Path:
    """A model that answers ANSWER to everything: each token of it asks for the next one alone.

    Attention and MLP add nothing; the output layer maps a token's embedding to what follows it.
    """
    tiny_model(folder)
    config = orjson.loads((folder / "config.json").read_bytes())
    config["tie_word_embeddings"] = False
    (folder / "config.json").write_bytes(orjson.dumps(config))
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name][:] = 0
    embedding = weights["model.embed_tokens.weight"]
    tokenizer = tokenising.Encoder(folder).raw
    chain = [tokenizer.encode("\n").ids[-1], *tokenizer.encode(ANSWER + STOP).ids]
    assert len(set(chain)) == len(chain)
    output = np.zeros_like(embedding)
    for token, following in itertools.pairwise(chain):
        output[following] = 5 * embedding[token]
    weights["lm_head.weight"] = output
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def chats(answer: str) -> list[Example]:
    """Four chats with an answer; one has a system message, one offers a tool."""
    system = {"role": "system", "content": "You are a card."}
    asked = ["spin?", "Größe 🙂 12", "box <b>&'x'", "open the tools"]
    rows = []
    for number, text in enumerate(asked):
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        rows.append(
            Example(
                [system, *messages] if number == 1 else messages, f"rows.jsonl#{number + 1}",
                str(number), {}, probes.TOOLS if number == 3 else None,
            )
        )  # fmt: skip
    return rows


def token_rows(base: Path, answer: str, out: Path) -> list[tokens.Row]:
    """The same chats in all three splits, as tokenise writes them."""
    chat = out.with_name("chat")
    chat.mkdir(parents=True)
    for split in tokens.SPLITS:
        example.write_lines(chat / f"{split}.jsonl", [row.row() for row in chats(answer)])
    with files.directory(out) as made:
        tokenising.write(chat, base, made, tokenising.Rules(512, False, ()))
    return list(tokens.read_split(out, "test"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fused`, `rows` and `f16.gguf` of a random model, in one folder."""
    if not llamacpp.source().is_dir():
        pytest.skip("the llama.cpp source is not fetched: run make first")
    folder = tmp_path_factory.mktemp("made")
    tiny_model(folder / "fused")
    token_rows(folder / "fused", "turn around and go forward to the card", folder / "rows")
    convert_gguf.write(folder / "fused", {"f16": folder / "f16.gguf"}, "here")
    return folder


def checks(made: Path, path: Path) -> dict[str, dict]:
    """Every check of a file against the model in `made`, by name."""
    (made / "params.yaml").write_text(project.PARAMS, encoding="utf-8")
    model = settings.load(made / "params.yaml").models["first"]
    rows = list(tokens.read_split(made / "rows", "test"))
    case = verifying.Case(path, made / "fused", rows, "f16", model)
    report = verifying.report(case, lambda _row, _answer: {"exact": 0.0})
    assert [check["name"] for check in report["checks"]] == list(parity.NAMES)
    return {check["name"]: check for check in report["checks"]}


def failing(found: dict[str, dict]) -> set[str]:
    return {name for name, check in found.items() if check["outcome"] == "failed"}


def test_a_good_file_is_the_model_in_every_way(made):
    found = checks(made, made / "f16.gguf")

    # random weights never end an answer; all else must hold
    assert failing(found) == {"stops", "chat"}
    assert not [name for name, check in found.items() if check["outcome"] == "skipped"]
    assert found["kl"]["value"] < 1e-5
    assert found["kl"]["tokens"] == sum(
        label != -100 for row in tokens.read_split(made / "rows", "test") for label in row.labels
    )
    assert found["tokens"]["compared"] == 2 * (len(probes.TEXTS) + 4)
    assert found["rendering"]["compared"] == len(probes.CHATS)
    assert found["prompts"]["compared"] == 4
    assert found["vocabulary"]["value"] == 0
    assert found["vocabulary"]["compared"] >= 8
    assert found["greedy"]["compared"] == 2


def converted(made: Path, folder: Path, file: str, change) -> Path:
    """A GGUF of the same model with one file of its folder changed."""
    fused = Path(shutil.copytree(made / "fused", folder / "fused"))
    change(fused / file)
    convert_gguf.write(fused, {"f16": folder / "a.gguf"}, "here")
    return folder / "a.gguf"


def test_another_template_fails_template_rendering_and_prompts(made, tmp_path):
    def change(path: Path) -> None:
        path.write_text(path.read_text().replace("<|im_start|>assistant", "<|im_start|>card"))

    found = checks(made, converted(made, tmp_path, "chat_template.jinja", change))

    assert failing(found) - {"stops", "chat"} == {"template", "rendering", "prompts"}
    assert "plain: at " in found["rendering"]["reason"]


def test_swapped_merges_fail_the_token_ids(made, tmp_path):
    def change(path: Path) -> None:
        spec = orjson.loads(path.read_bytes())
        spec["model"]["merges"].reverse()
        path.write_bytes(orjson.dumps(spec))

    found = checks(made, converted(made, tmp_path, "tokenizer.json", change))

    assert {"tokens", "prompts"} <= failing(found)
    assert found["template"]["outcome"] == "passed"


def patched(made: Path, tmp_path: Path, key: str, kind: int, old: bytes, new: bytes) -> Path:
    """The good file with one value of its header overwritten in place."""
    raw = (made / "f16.gguf").read_bytes()
    head = key.encode() + struct.pack("<I", kind)
    assert raw.count(head + old) == 1
    assert len(old) == len(new)
    (tmp_path / "a.gguf").write_bytes(raw.replace(head + old, head + new))
    return tmp_path / "a.gguf"


def test_another_pre_tokenizer_fails_the_token_ids(made, tmp_path):
    # a token of two digits: Qwen2's rules cut between them, GPT-2's do not
    fused = Path(shutil.copytree(made / "fused", tmp_path / "fused"))
    spec = orjson.loads((fused / "tokenizer.json").read_bytes())
    last = "".join(spec["model"]["merges"].pop())
    spec["model"]["vocab"]["12"] = spec["model"]["vocab"].pop(last)
    spec["model"]["merges"].append(["1", "2"])
    (fused / "tokenizer.json").write_bytes(orjson.dumps(spec))
    token_rows(fused, "turn around", tmp_path / "rows")
    convert_gguf.write(fused, {"f16": tmp_path / "f16.gguf"}, "here")
    size = struct.pack("<Q", 5)
    path = patched(tmp_path, tmp_path, "tokenizer.ggml.pre", 8, size + b"qwen2", size + b"gpt-2")

    assert "tokens" not in failing(checks(tmp_path, tmp_path / "f16.gguf"))
    found = checks(tmp_path, path)

    assert "tokens" in failing(found)
    assert found["end_of_turn"]["outcome"] == "passed"


def test_a_wrong_end_of_turn_token_is_named(made, tmp_path):
    two, five = struct.pack("<I", 2), struct.pack("<I", 5)
    found = checks(made, patched(made, tmp_path, "tokenizer.ggml.eos_token_id", 4, two, five))

    assert found["end_of_turn"]["outcome"] == "failed"
    assert found["end_of_turn"]["reason"] == (
        "the file's end-of-turn token is 5, the tokenizer's 2"
    )


def test_a_damaged_weight_fails_kl_and_greedy(made, tmp_path):
    path = Path(shutil.copyfile(made / "f16.gguf", tmp_path / "a.gguf"))
    header = gguf_file.read(path)
    entry = next(e for e in header.tensors if e.name == "blk.1.ffn_down.weight")
    with path.open("r+b") as file:
        file.seek(header.data + entry.offset)
        file.write(np.full(entry.size // 2, 0.25, np.float16).tobytes())

    found = checks(made, path)

    assert failing(found) - {"stops", "chat"} == {"kl", "greedy"}
    assert found["kl"]["value"] > 1e-3


def test_a_file_cut_short_fails_and_leaves_the_rest_skipped_not_passed(made, tmp_path):
    (tmp_path / "a.gguf").write_bytes((made / "f16.gguf").read_bytes()[:-5000])

    found = checks(made, tmp_path / "a.gguf")

    assert found["opens"]["outcome"] == "failed"
    assert "where its table needs" in found["opens"]["reason"]
    assert {check["outcome"] for name, check in found.items() if name != "opens"} == {"skipped"}


def test_a_file_of_another_vocabulary_does_not_open(made, tmp_path):
    other = tiny_model(tmp_path / "other", vocab=600)
    convert_gguf.write(other, {"f16": tmp_path / "a.gguf"}, "here")

    found = checks(made, tmp_path / "a.gguf")

    assert "it knows 600 tokens, the fused model 512" in found["opens"]["reason"]


@pytest.fixture
def built(made, tmp_path, monkeypatch) -> Path:
    """A project up to its GGUF files, with a model that answers ANSWER."""
    project.make(tmp_path, [], project.params(PARAMS))
    monkeypatch.chdir(tmp_path)
    with files.directory(files.fused_dir("first")) as fused:
        shutil.copytree(chatter(tmp_path / "chatter"), fused, dirs_exist_ok=True)
    token_rows(files.fused_dir("first"), ANSWER, files.tokens_dir("first"))
    outputs = {q: files.gguf_path("first", f"first-{q}") for q in ("f16", "q8_0")}
    convert_gguf.write(files.fused_dir("first"), outputs, "first")
    return tmp_path


def test_a_project_gets_a_report_whose_every_check_passes(built, capsys):
    verify.run("first-f16")

    path = files.report_dir("first") / "gguf" / "first-f16.json"
    report = files.read_json(path)
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    assert outcomes == dict.fromkeys(parity.NAMES, "passed") | {"vocabulary": "reported"}
    assert report["gates"][0]["gate"] == "exact >= 0.5"
    assert report["gates"][0]["outcome"] == "passed"
    assert report["scores"]["exact"] == {"mean": 1.0, "low": pytest.approx(0.51, abs=0.01),
                                         "high": 1.0, "n": 4}  # fmt: skip
    assert report["samples"][0]["answer"] == ANSWER
    assert report["sha256"] == files.sha256(files.gguf_path("first", "first-f16"))
    assert report["fallbacks"] == 0
    assert "passed   kl" in capsys.readouterr().out

    first = path.read_bytes()
    verify.run("first-f16")
    assert path.read_bytes() == first


def test_what_has_no_limit_is_reported_not_passed(built):
    verify.run("first-q8_0")

    report = files.read_json(files.report_dir("first") / "gguf" / "first-q8_0.json")
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    assert outcomes["kl"] == "reported"
    assert outcomes["greedy"] == "reported"
    assert outcomes["tokens"] == "passed"


def test_a_failed_check_is_written_down_and_stops_only_the_release(built):
    path = files.gguf_path("first", "first-f16")
    path.write_bytes(path.read_bytes()[:-5000])

    verify.run("first-f16")

    report = files.read_json(files.report_dir("first") / "gguf" / "first-f16.json")
    assert report["checks"][0]["outcome"] == "failed"
    assert path.is_file()
    found = [check | {"gate": check["name"], "file": "a"} for check in report["checks"]]
    with pytest.raises(TunesmithError, match="11 of 11 gates of 'first' did not pass"):
        releasing.require_passed(found, "first")


def test_a_missing_file_is_refused(built):
    files.gguf_path("first", "first-f16").unlink()
    with pytest.raises(TunesmithError, match=r"first-f16\.gguf does not exist"):
        verify.run("first-f16")


def test_scores_of_chosen_places_are_those_of_all_places(made):
    ids = [3 + (7 * number) % 500 for number in range(llamaruntime.STEP + 40)]
    with llamaruntime.open_file(made / "f16.gguf") as runtime:
        every = runtime.logits(ids)
        some = runtime.logits(ids, [0, 5, llamaruntime.STEP + 20])
        assert every.shape == (len(ids), 512)
        np.testing.assert_allclose(some, every[[0, 5, llamaruntime.STEP + 20]], atol=1e-5)
        assert runtime.logits(ids[:4], []).shape == (0, 512)


def test_answers_end_at_the_limit_and_at_the_end_of_the_context(made):
    with llamaruntime.open_file(made / "f16.gguf") as runtime:
        prompts = [[9, 8, 7], [5] * 2040, [4]]
        found = dict(runtime.answers(prompts, 12))
        assert [len(found[row].ids) for row in range(3)] == [12, 8, 12]
        assert not any(answer.stopped for answer in found.values())
        with pytest.raises(TunesmithError, match="a prompt has 0 tokens"):
            list(runtime.answers([[1], []], 4))
        with pytest.raises(TunesmithError, match="a prompt has 2048 tokens"):
            list(runtime.answers([[1] * 2048], 4))


def test_a_place_used_again_remembers_nothing(made, monkeypatch):
    monkeypatch.setattr(llamaruntime, "SLOTS", 2)
    with llamaruntime.open_file(made / "f16.gguf") as runtime:
        prompts = [[20 + row, 9, 300] for row in range(3)] * 12
        found = dict(runtime.answers(prompts, 6))
        for row, prompt in enumerate(prompts):
            likeliest = runtime.logits([*prompt, *found[row].ids[:-1]]).argmax(axis=1)
            assert found[row].ids == likeliest[2:].tolist()


def test_divergence_is_measured_where_trained_tokens_are_foretold(made, monkeypatch):
    rows = list(tokens.read_split(made / "rows", "test"))
    expected = [[n - 1 for n, label in enumerate(row.labels) if label != -100] for row in rows]
    asked = []
    logits = llamaruntime.Runtime.logits

    def watched(self, ids, places):
        asked.append((ids, places))
        return logits(self, ids, places)

    monkeypatch.setattr(llamaruntime.Runtime, "logits", watched)
    checks(made, made / "f16.gguf")

    assert sorted(asked) == sorted(zip([row.ids for row in rows], expected, strict=True))


def test_only_the_models_own_end_of_turn_counts_as_stopping(made):
    (made / "params.yaml").write_text(project.PARAMS, encoding="utf-8")
    model = settings.load(made / "params.yaml").models["first"]
    case = verifying.Case(made, made, [], "f16", model)
    answers = [llamaruntime.Answer([5], end) for end in (2, 2, 0, -1)]

    stops, chat = verifying._ending_checks(
        case, SimpleNamespace(end=2), answers, ["stop", "tool_calls", "length", "error"]
    )

    assert (stops["value"], stops["at_another_token"]) == (0.5, 1)
    assert (chat["value"], chat["errors"]) == (0.5, 1)


def test_a_file_that_llama_cpp_refuses_says_why(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(60))
    with (
        pytest.raises(TunesmithError, match=r"llama\.cpp cannot open a\.gguf: .*failed to load"),
        llamaruntime.open_file(tmp_path / "a.gguf"),
    ):
        pass


def test_a_file_that_cannot_be_served_says_so(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(60))
    with (
        pytest.raises(TunesmithError, match=r"server cannot serve a\.gguf"),
        llamaserver.serve(tmp_path / "a.gguf", 256, 1),
    ):
        pass


def test_a_served_file_refuses_what_its_template_cannot_render(made):
    with llamaserver.serve(made / "f16.gguf", 256, 1) as served:
        assert served.render([{"role": "user", "content": "é"}], None).endswith("assistant\n")
        assert served.render([{"no_role": "x"}], None) is None
        assert served.finish([{"role": "user", "content": "é"}], None, 3) == "length"


def test_another_version_of_the_runtime_is_refused(monkeypatch):
    monkeypatch.setattr(xllamacpp, "__version__", "2026.11.1")
    with pytest.raises(TunesmithError, match=r"2026\.11\.1 is installed, 2026\.10\.11549 is"):
        llama_abi.module()


def test_a_missing_runtime_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xllamacpp", None)
    with pytest.raises(MissingPackage, match="'xllamacpp' is not installed"):
        llama_abi.module()


def test_structs_that_lie_otherwise_are_refused(monkeypatch):
    library = llama_abi.library()
    shifted = library.context_default_params()
    shifted.type_k = 30
    monkeypatch.setattr(library, "context_default_params", lambda: shifted)
    with pytest.raises(TunesmithError, match="Its default settings read"):
        llama_abi._check_layout(library)


def test_probe_texts_are_normalised():
    assert list(probes.TEXTS) == example.nfc(list(probes.TEXTS))


def test_kl_is_that_of_the_model_from_the_file():
    model = np.log(np.array([[0.5, 0.5], [0.2, 0.8]])).astype(np.float32) + 3
    file = np.log(np.array([[0.9, 0.1], [0.2, 0.8]])).astype(np.float32) - 7

    values, agree = parity.divergence(model, file)

    assert values[0] == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), 1e-5)
    assert values[1] == pytest.approx(0, abs=1e-7)
    assert agree.tolist() == [True, True]


@pytest.mark.parametrize(
    ("values", "limit", "outcome"),
    [
        ([1e-6, 3e-6], 1e-5, "passed"),
        ([1e-6, 3e-5], 1e-5, "failed"),
        ([1e-6, math.nan], 1e-5, "failed"),
        ([0.3], None, "reported"),
        ([], 1e-5, "skipped"),
    ],
)
def test_kl_is_gated_by_its_mean(values, limit, outcome):
    rows = [(np.array(values), np.ones(len(values), bool))]
    assert parity.kl(rows, limit)["outcome"] == outcome


@pytest.mark.parametrize(
    ("scores", "quant", "outcome", "said"),
    [
        ([[0.0, 1.0, 0.99]], "f16", "passed", "1 part at a tie"),
        ([[0.0, 1.0, 0.9]], "f16", "failed", "row parts at token 0 (top-2 gap 0.1000)"),
        ([[0.99, 1.0, 0.98]], "f16", "failed", "row parts at token 0"),
        ([[0.0, 1.0, 0.9]], "q8_0", "reported", "row parts at token 0"),
        ([[0.0, 0.0, 1.0]], "f16", "passed", ""),
    ],
)
def test_greedy_answers_may_part_only_at_a_tie(scores, quant, outcome, said):
    found = parity.parting("row", [2], np.array(scores, np.float32))
    check = parity.greedy(1, [found], quant)

    assert check["outcome"] == outcome
    assert said in check["reason"]
    assert check["equal"] == (found is None)


def test_nothing_to_compare_is_skipped():
    nothing = parity.same("vocabulary", [])
    assert parity.reported(nothing, "")["outcome"] == "skipped"
    assert parity.same("rendering", [], "the template cannot hold: tools")["outcome"] == "skipped"
    assert parity.greedy(0, [], "f16")["outcome"] == "skipped"
    assert parity.share("stops", 0, 0, 0.9)["outcome"] == "skipped"


def test_too_few_endings_fail():
    assert parity.share("stops", 19, 20, 0.95)["outcome"] == "passed"
    assert parity.share("stops", 18, 20, 0.95)["reason"] == "2 of 20 did not"


def test_a_stop_that_the_file_does_not_know_is_named():
    check = parity.end_of_turn(2, [0, 2], 2, lambda token: token == 2, 10)
    assert check["outcome"] == "failed"
    assert check["reason"] == "the file does not end an answer at [0]"


def test_a_metric_that_applies_to_no_prompt_measured_nothing():
    found = parity.gates({"exact": 0.5, "names": 0.1}, {"exact": {"mean": 0.4}})
    assert [gate["outcome"] for gate in found] == ["failed", "failed"]
    assert found[1]["reason"] == "measured nothing: it applies to no test prompt"
