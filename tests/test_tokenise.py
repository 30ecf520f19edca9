"""Tokenise: labels cover the assistant's turns and nothing else, and no bad row gets through."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import token_bases as bases
from tokenizers import Tokenizer

from stages import tokenise
from stages.core import encoding, files, template, tokenising, tokens
from stages.core.encoding import Encoder
from stages.core.errors import TunesmithError
from stages.core.example import Example
from stages.core.masking import Fault, Marked, mark
from stages.core.tokenising import Rules

LONG = Rules(max_length=4096, drop=False, by=())
REPOSITORY = Path(__file__).parents[1]
WILD = [
    "Line\r\nline\r\n\r\n  indented\n\n\nend  ",
    "  two  spaces \t tabs\t",
    "naïve grüße é 你好 world 😀👩‍👩‍👧 ok",
    "it's we'll I'd 12 345 6789 3.14 a_b --x == y",
    "word " * 50,
    "\u00a0nbsp\u2003em\u3000wide \x1c fs\x85 nel \0 nul",
    "x",
]


def marked(base, *examples, max_length=4096):
    return list(mark(list(examples), template.load(base), Encoder(base), max_length))


def one(base, example, **options):
    (found,) = marked(base, example, **options)
    return found


def trained_texts(base, row):
    raw = Tokenizer.from_file(str(base / "tokenizer.json"))
    ids = row.numbers()
    return [raw.decode(ids[a:b], skip_special_tokens=False) for a, b in row.spans]


def write(tmp_path, base, train, test=(), rules=LONG):
    out = tmp_path / "tokens"
    with files.directory(out) as folder:
        stats = tokenising.write(
            bases.write_chat(tmp_path / "chat", train, test), base, folder, rules
        )
    return out, stats


def test_labels_cover_every_assistant_turn_with_its_end_and_nothing_else(tmp_path):
    base = bases.chatml(tmp_path / "base")
    example = bases.chat("Hi", "Good day", "And?", "Bye", system="Be brief.")

    out, _ = write(tmp_path, base, [example])
    (row,) = tokens.read_split(out, "train")

    raw = Tokenizer.from_file(str(base / "tokenizer.json"))
    kept = [n for n, label in zip(row.ids, row.labels, strict=True) if label != -100]
    assert raw.decode(kept, skip_special_tokens=False) == "Good day<|im_end|>Bye<|im_end|>"
    assert all(label in (-100, n) for n, label in zip(row.ids, row.labels, strict=True))
    assert raw.decode(row.ids[: row.prompt_length], skip_special_tokens=False).endswith(
        "And?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert row.source == "a.jsonl#1"
    assert row.example is None


def test_the_ids_are_those_of_apply_chat_template(tmp_path):
    transformers = pytest.importorskip("transformers")
    base = bases.chatml(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    examples = [bases.chat(text, f"Yes {text.strip()}.") for text in WILD if text.isprintable()]

    for example, row in zip(examples, marked(base, *examples), strict=True):
        expected = tokenizer.apply_chat_template(example.messages, return_dict=False)
        assert row.numbers() == expected


@pytest.mark.parametrize("split", encoding.SPLITS)
def test_pieces_encoded_apart_are_the_whole_text_s_ids(tmp_path, split):
    base = bases.base(tmp_path, bases.byte_level(bases.CHATML, split), bases.TINY, "<|im_end|>")
    encoder, raw = Encoder(base), Tokenizer.from_file(str(base / "tokenizer.json"))
    pick = random.Random(1)
    parts = [
        *WILD,
        *"aZ9_.,'!é好😀  \n\r\t\u00a0\x1c\x85\u3000",
        *bases.CHATML,
        "'s",
        " 's",
        "\n\n",
    ]
    texts = WILD + ["".join(pick.choices(parts, k=pick.randint(1, 30))) for _ in range(3000)]

    assert encoder.separable
    for text, ids in encoder.encode(texts).items():
        assert "".join(encoding.words(text)) == text
        assert np.frombuffer(ids, "<i4").tolist() == raw.encode(text, add_special_tokens=False).ids


def test_kept_pieces_are_forgotten_before_they_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "SEGMENTS", 5)
    monkeypatch.setattr(encoding, "WORDS", 5)
    encoder = Encoder(bases.chatml(tmp_path))
    for number in range(20):
        encoder.encode([f"a{number} b{number}<|im_end|>{number}"])

    assert len(encoder._segments) <= 5 + 2
    assert len(encoder._words) <= 5 + 3


def test_a_tokenizer_whose_splits_are_unknown_is_encoded_whole(tmp_path):
    base = bases.base(
        tmp_path, bases.byte_level(bases.CHATML, r"\s+|\S+"), bases.TINY, "<|im_end|>"
    )
    example = bases.chat("a  b", "c d")

    row = one(base, example)

    assert not Encoder(base).separable
    assert trained_texts(base, row) == ["c d<|im_end|>"]


def test_control_tokens_that_take_in_white_space_are_not_cut_from_it(tmp_path):
    base = phi_like(tmp_path)

    row = one(base, bases.chat("Hi", "Yes there", "And?", "Bye"))

    assert not Encoder(base).separable
    assert trained_texts(base, row) == ["Yes there<|im_end|>", "Bye<|im_end|>"]


def phi_like(folder):
    """A base whose control tokens take in the white space after them."""
    base = bases.chatml(folder)
    path = base / "tokenizer.json"
    spec = json.loads(path.read_text("utf-8"))
    for token in spec["added_tokens"]:
        token["rstrip"] = True
    path.write_text(json.dumps(spec))
    return base


def test_llama_3_s_form_with_a_bos(tmp_path):
    base = llama_like(tmp_path)

    row = one(base, bases.chat("Hi ", " Yes ", "And?", "No", system="Be brief."))

    assert trained_texts(base, row) == ["Yes<|eot_id|>", "No<|eot_id|>"]
    assert row.numbers().count(Encoder(base).bos) == 1


def llama_like(folder, form=bases.LLAMA_FORM):
    tokenizer = bases.byte_level(bases.LLAMA, encoding.SPLITS[1])
    return bases.base(folder, tokenizer, form, "<|eot_id|>", bos_token="<|begin_of_text|>")


def mistral_like(folder):
    tokenizer = bases.sentencepiece(bases.MISTRAL)
    return bases.base(folder, tokenizer, bases.MISTRAL_FORM, "</s>", bos_token="<s>")


def test_mistral_s_form_with_no_generation_prompt_and_unknown_letters(tmp_path):
    base = mistral_like(tmp_path)

    row = one(base, bases.chat("Hello 😀", "Good day", "And?", "grüße 漢"))

    assert [text.strip() for text in trained_texts(base, row)] == ["Good day</s>", "grüße 漢</s>"]


def test_a_template_with_generation_tags_gives_the_same_rows(tmp_path):
    example = bases.chat("Hi", "Yes", "And?", "No")
    tagged = one(bases.chatml(tmp_path / "a", bases.GENERATION_FORM), example)
    plain = one(bases.chatml(tmp_path / "b"), example)

    assert (tagged.ids, tagged.spans) == (plain.ids, plain.spans)


@pytest.mark.parametrize("text", WILD)
def test_wild_text_is_spelt_byte_for_byte(tmp_path, text):
    base = bases.chatml(tmp_path)

    row = one(base, bases.chat(text, f"<{text}>"))

    raw = Tokenizer.from_file(str(base / "tokenizer.json"))
    assert raw.decode(row.numbers(), skip_special_tokens=False) == row.text
    assert trained_texts(base, row) == [f"<{text}><|im_end|>"]


def test_end_tokens_of_the_generation_configuration_close_a_turn_too(tmp_path):
    tokenizer = bases.byte_level(bases.CHATML)
    base = bases.base(tmp_path, tokenizer, bases.TINY, "<|endoftext|>")
    example = bases.chat("Hi", "Yes")

    assert one(base, example).code == "end_of_turn"
    (base / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    assert trained_texts(base, one(base, example)) == ["Yes<|im_end|>"]


def endless(folder):
    return bases.chatml(folder, bases.ENDLESS_FORM)


def shouting(folder):
    """Writes everything before the last message in capitals, so no prompt is a prefix."""
    last = "{{ messages[-1].content if messages[-1].role == 'assistant' }}"
    form = bases.TINY.replace("message.content", "(message.content ~ messages|length)")
    return bases.chatml(folder, form + last)


def twice_begun(folder):
    return llama_like(folder, "{{ bos_token }}" + bases.LLAMA_FORM)


@pytest.mark.parametrize(
    ("make", "example", "code", "reason"),
    [
        (
            bases.chatml,
            Example([{"role": "user", "content": "Hi"}], "a#1", ""),
            "untrained",
            "No token",
        ),
        (bases.chatml, bases.chat("Hi", ""), "untrained", "No token"),
        (endless, bases.chat("Hi", "Yes"), "end_of_turn", "turn 1 ends without"),
        (endless, bases.chat("Hi", "Yes", "And?", "No"), "end_of_turn", "turn 1 ends without"),
        (shouting, bases.chat("Hi", "Yes"), "prefix", "not prefix-stable.*turn 1"),
        (twice_begun, bases.chat("Hi", "Yes"), "doubled_bos", "twice in a row"),
        (mistral_like, bases.chat("Hi", "Yes", system="Be brief."), "template", "must alternate"),
        (bases.chatml, bases.chat("Hi", "\n\nYes"), "boundary", "turn 1 begins inside a token"),
        (bases.chatml, bases.chat("Cafe\u0301", "Yes"), "spelling", "do not decode back"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_a_row_that_would_teach_something_else_is_a_fault(tmp_path, make, example, code, reason):
    fault = one(make(tmp_path), example)

    assert isinstance(fault, Fault)
    assert (fault.source, fault.code) == (example.source, code)
    assert re.search(reason, fault.reason)


def injected(place):
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": [{"b": "c"}]}}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Calling", "tool_calls": [call]},
        {"role": "tool", "content": "done"},
        {"role": "assistant", "content": "Yes"},
    ]
    text = json.dumps([messages, [tool]])
    assert place in text
    messages, tools = json.loads(text.replace(place, place[:-1] + r"\u003c|im_end|>" + place[-1]))
    return Example(messages, "a.jsonl#7", "", tools=tools)


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ('"Hi"', "Message 1"),
        ('"c"', "Message 2"),
        ('"b"', "Message 2"),
        ('"done"', "Message 3"),
        ('"Yes"', "Message 4"),
        ('"d"', "tools"),
    ],
)
def test_control_tokens_in_any_text_of_a_chat_are_found(tmp_path, place, where):
    fault = one(bases.chatml(tmp_path), injected(place))

    assert fault.code == "control_text"
    assert where in fault.reason
    assert "<|im_end|>" in fault.reason


def test_a_control_token_that_only_appears_once_normalised_is_found(tmp_path):
    base = bases.chatml(tmp_path)
    path = base / "tokenizer.json"
    spec = json.loads(path.read_text("utf-8"))
    spec["normalizer"] = {"type": "NFKC"}
    for token in spec["added_tokens"]:
        token["normalized"] = True
    path.write_text(json.dumps(spec))

    assert one(base, bases.chat("a ＜|im_end|＞", "Yes")).code == "spelling"


def test_ids_that_differ_from_the_whole_text_s_are_a_fault(tmp_path, monkeypatch):
    base = bases.chatml(tmp_path)
    monkeypatch.setattr(encoding, "words", list)

    assert one(base, bases.chat("Hello there", "Good day")).code == "ids"


def test_a_row_over_max_length_stops_the_stage_or_is_dropped_and_counted(tmp_path):
    base = bases.chatml(tmp_path / "base")
    long = bases.chat("Hi", "word " * 99, source="a.jsonl#2")
    rows = [bases.chat("Hi", "Yes"), long]

    with pytest.raises(TunesmithError, match=r"a\.jsonl#2: It has \d+ tokens; max_length is 60"):
        write(tmp_path, base, rows, rules=Rules(60, drop=False, by=()))
    assert not (tmp_path / "tokens").exists()

    out, stats = write(tmp_path, base, rows, rules=Rules(60, drop=True, by=()))
    (dropped,) = map(json.loads, (out / "train.dropped.jsonl").read_text().splitlines())
    assert (stats["train"]["rows"], stats["train"]["dropped"]) == (1, 1)
    assert dropped["source"] == "a.jsonl#2"
    assert tokens.require_checked(out)["rows_checked"] == 2


def test_a_row_of_just_max_length_is_kept(tmp_path):
    base = bases.chatml(tmp_path)
    length = one(base, bases.chat("Hi", "Yes")).length

    assert isinstance(one(base, bases.chat("Hi", "Yes"), max_length=length), Marked)
    fault = one(base, bases.chat("Hi", "Yes"), max_length=length - 1)
    assert (fault.code, fault.length) == ("over_length", length)


def test_when_every_row_is_dropped_there_is_nothing_to_train_on(tmp_path):
    base = bases.chatml(tmp_path / "base")

    with pytest.raises(TunesmithError, match=r"No row is left to train on \(1 were longer"):
        write(tmp_path, base, [bases.chat("Hi", "Yes")], rules=Rules(5, drop=True, by=()))


def test_all_faults_are_counted_and_the_first_ten_shown(tmp_path):
    base = bases.chatml(tmp_path / "base")
    bad = [bases.chat("Hi", "", source=f"a.jsonl#{n}") for n in range(1, 31)]
    bad += [bases.chat("<|im_start|>", "Yes", source="b.jsonl#1")]

    with pytest.raises(TunesmithError) as caught:
        write(tmp_path, base, [bases.chat("Hi", "Yes"), *bad[:15]], bad[15:])

    shown = str(caught.value)
    assert "a.jsonl#10:" in shown
    assert "a.jsonl#11:" not in shown
    # The rows of test stand in valid as well.
    assert "47 row(s)" in shown
    assert "… and 37 more (2 x control_text, 45 x untrained)" in shown


def test_the_last_row_of_a_long_file_is_checked_too(tmp_path):
    base = bases.chatml(tmp_path / "base")
    rows = [bases.chat(f"Hi {n}", "Yes", source=f"a.jsonl#{n}") for n in range(1, 1100)]

    with pytest.raises(TunesmithError, match=r"a\.jsonl#1100: Message 2 holds the control token"):
        write(tmp_path, base, [*rows, bases.chat("Hi", "<|endoftext|>", source="a.jsonl#1100")])


def test_a_folder_holds_everything_to_train_to_prompt_and_to_judge(tmp_path):
    base = bases.chatml(tmp_path / "base")
    train = [bases.chat("Hi", "Yes"), bases.chat("Hi there", "Yes there", source="a.jsonl#2")]
    test = Example(bases.chat("Ho", "No").messages, "a.jsonl#3", "g", {"level": 2}, tools=None)

    out, stats = write(tmp_path, base, train, [test], Rules(99, drop=False, by=("level", "x")))
    arrays = tokens.arrays(out, "train")
    rows, (tested,) = list(tokens.read_split(out, "train")), tokens.read_split(out, "test")

    assert isinstance(arrays.ids, np.memmap)
    assert (len(arrays), arrays.ids.dtype, arrays.trained.dtype) == (2, np.int32, np.uint8)
    assert arrays.labels(1).tolist() == rows[1].labels
    assert tested.example == test
    assert tested.prompt_length < len(tested.ids)
    assert stats["test"]["by"] == {
        "level": {
            "2": {
                "rows": 1,
                "tokens": len(tested.ids),
                "trained_tokens": sum(label != -100 for label in tested.labels),
            }
        }
    }
    assert stats["train"]["tokens"] == sum(len(row.ids) for row in rows)
    assert stats["train"]["lengths"]["max"] == max(len(row.ids) for row in rows)
    assert files.read_json(out / "stats.json") == stats


def test_empty_splits_are_read_as_empty(tmp_path):
    out, _ = write(tmp_path, bases.chatml(tmp_path / "base"), [bases.chat("Hi", "Yes")])

    assert list(tokens.read_split(out, "test")) == []
    assert len(tokens.arrays(out, "valid")) == 0


def test_the_view_marks_trained_tokens_in_plain_text(tmp_path):
    example = bases.chat("Hi", "Yes", "And?", "No")
    out, _ = write(tmp_path, bases.chatml(tmp_path / "base"), [example])
    shown = (out / "view.txt").read_text("utf-8")

    assert "assistant\n⟦Yes<|im_end|>⟧\n<|im_start|>user\nAnd?" in shown
    assert "⟦No<|im_end|>⟧\n" in shown
    assert shown.count("* '<|im_end|>'") == 2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda out: (out / "checks.json").unlink(), "has lost its file checks.json"),
        (lambda out: (out / "train.ids.npy").write_bytes(b"12"), "of 2 bytes where"),
        (lambda out: (out / files.MARKER).unlink(), "no completion marker"),
    ],
)
def test_tokens_that_were_not_all_checked_are_refused(tmp_path, spoil, reason):
    out, _ = write(tmp_path, bases.chatml(tmp_path / "base"), [bases.chat("Hi", "Yes")])
    tokens.require_checked(out)

    spoil(out)

    with pytest.raises(TunesmithError, match=reason):
        tokens.require_checked(out)


def test_tokens_written_without_their_checks_are_refused(tmp_path):
    with files.directory(tmp_path / "m") as out:
        files.write_json(out / "checks.json", {"checked": False, "rows": {}})

    with pytest.raises(TunesmithError, match=r"written without its checks[\s\S]*tokenise@m"):
        tokens.require_checked(tmp_path / "m")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer_config.json", None, "tokenizer_config.json cannot be read"),
        ("tokenizer_config.json", "{}", "names no eos_token"),
        (
            "tokenizer_config.json",
            '{"eos_token": "<end>"}',
            "'<end>', which tokenizer.json does not",
        ),
        (
            "tokenizer_config.json",
            '{"eos_token": "<|im_end|>", "added_tokens_decoder": {"9999": {"content": "<new>"}}}',
            "Token 9999 is '<new>' in tokenizer_config.json",
        ),
    ],
)
def test_a_base_whose_tokenizer_cannot_be_trusted_is_refused(tmp_path, file, content, reason):
    base = bases.chatml(tmp_path)
    (base / file).unlink()
    if content is not None:
        (base / file).write_text(content)

    with pytest.raises(TunesmithError, match=reason):
        Encoder(base)


def test_rows_can_be_read_without_torch_or_tokenizers(tmp_path):
    out, _ = write(tmp_path, bases.chatml(tmp_path / "base"), [bases.chat("Hi", "Yes")])
    code = (
        "import pathlib, sys; from stages.core import tokens\n"
        "print(len(list(tokens.read_split(pathlib.Path(sys.argv[1]), 'train'))))\n"
        "print(sorted({'torch', 'transformers', 'tokenizers', 'jinja2'} & set(sys.modules)))"
    )

    assert child(code, out) == "1\n[]\n"


def child(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | environment, cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    return done.stdout.decode()


def test_the_bytes_do_not_depend_on_hash_seed_locale_or_time_zone(tmp_path):
    base = bases.chatml(tmp_path / "base")
    rows = [bases.chat(text, f"Yes {text}", source=f"a#{n}") for n, text in enumerate(WILD)]
    for n, row in enumerate(rows):
        row.meta["kind"] = "even" if n % 2 == 0 else "odd"
    chat = bases.write_chat(tmp_path / "chat", rows, rows[:2])
    code = (
        "import pathlib, sys; from stages.core import files, tokenising\n"
        "chat, base, out = map(pathlib.Path, sys.argv[1:])\n"
        "out.mkdir()\n"
        "tokenising.write(chat, base, out, tokenising.Rules(4096, False, ('kind',)))\n"
        "print(files.tree_hash(out))"
    )
    first = child(code, chat, base, tmp_path / "1", PYTHONHASHSEED="1", LC_ALL="C", TZ="UTC")
    second = child(
        code, chat, base, tmp_path / "2", PYTHONHASHSEED="2", LC_ALL="C.UTF-8", TZ="Asia/Tokyo"
    )

    assert first == second


def test_the_stage_tokenises_the_chat_of_the_model_s_dataset(tmp_path, monkeypatch, capsys):
    bases.chatml(tmp_path / "models/base/b")
    with files.directory(tmp_path / "data/chat/d") as chat:
        bases.write_chat(chat, [bases.chat("Hi", "Yes"), bases.chat("Hi", "word " * 99)])
        files.write_json(chat / "report.json", {"by": []})
    limits = SimpleNamespace(max_length=60, over_length="drop")
    model = SimpleNamespace(base="models/base/b", dataset="d", tokens=limits, method="lora")
    params = SimpleNamespace(models={"m": model})
    monkeypatch.setattr(tokenise.settings, "load", lambda: params)
    monkeypatch.chdir(tmp_path)

    tokenise.run("m")

    assert len(tokens.arrays(Path("data/tokens/m"), "train")) == 1
    assert tokens.require_checked(Path("data/tokens/m"))["dropped"]["train"] == 1
    assert capsys.readouterr().out.startswith("m: train 1, valid 0, test 0; ")


def test_the_last_line_says_what_was_made():
    found = {"rows": 2, "tokens": 1000, "trained_tokens": 250, "dropped": 1}

    said = tokenise.summary({"train": found, "test": found | {"dropped": 0}})

    assert said == (
        "train 2, test 2; 2,000 tokens, 500 of them trained (25%); 1 over-length rows dropped"
    )
