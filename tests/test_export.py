"""Export: a dataset's chats in the published form of each family, whole, counted, one BOS."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import orjson
import pytest
from project import door, params
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from stages.commands import export
from stages.commands.export import Request
from stages.core import example, families, files, template
from stages.core.errors import MissingPackage, TunesmithError
from stages.core.example import Example
from stages.core.families import Refused, schema

SAID = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "I lied."},
    {"role": "assistant", "content": " Why?\n"},
    {"role": "user", "content": "Fear."},
    {"role": "assistant", "content": "Tell him."},
]
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"in": "é"}}}
TOOLED = [
    {"role": "user", "content": "Time?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
    {"role": "assistant", "content": "Noon."},
]
# What the published templates of these models render, BOS included.
FORMS = {
    "mistral": "<s>[INST] Be kind.\n\nI lied. [/INST]  Why?\n</s>"
    "[INST] Fear. [/INST] Tell him.</s>",
    "tinyllama": "<|system|>\nBe kind.</s>\n<|user|>\nI lied.</s>\n<|assistant|>\n Why?\n</s>\n"
    "<|user|>\nFear.</s>\n<|assistant|>\nTell him.</s>\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nI lied.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nFear.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nTell him.<|eot_id|>",
    "chatml": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nI lied.<|im_end|>\n"
    "<|im_start|>assistant\n Why?\n<|im_end|>\n<|im_start|>user\nFear.<|im_end|>\n"
    "<|im_start|>assistant\nTell him.<|im_end|>\n",
    "gemma3": "<bos><start_of_turn>user\nBe kind.\n\nI lied.<end_of_turn>\n"
    "<start_of_turn>model\nWhy?<end_of_turn>\n<start_of_turn>user\nFear.<end_of_turn>\n"
    "<start_of_turn>model\nTell him.<end_of_turn>\n",
    "phi3": "<|system|>\nBe kind.<|end|>\n<|user|>\nI lied.<|end|>\n<|assistant|>\n Why?\n<|end|>\n"
    "<|user|>\nFear.<|end|>\n<|assistant|>\nTell him.<|end|>\n<|endoftext|>",
    "qwen": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nI lied.<|im_end|>\n"
    "<|im_start|>assistant\n Why?\n<|im_end|>\n<|im_start|>user\nFear.<|im_end|>\n"
    "<|im_start|>assistant\nTell him.<|im_end|>\n",
    "qwen3": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nI lied.<|im_end|>\n"
    "<|im_start|>assistant\n Why?\n<|im_end|>\n<|im_start|>user\nFear.<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\nTell him.<|im_end|>\n",
}
FORMS["zephyr"] = FORMS["tinyllama"]
PUBLISHED = {
    "llama3": "llama3", "llama3.1": "llama3_1", "phi3": "phi3", "gemma": "gemma",
    "gemma3": "gemma3", "qwen": "qwen2_5", "qwen3": "qwen3",
}  # fmt: skip
RATED = (
    ("recipe: chats", "recipe: rated_sqlite"),
    ('options: {pattern: "*.jsonl", system: "", group_by: ""}',
     'options: {max_harm: 0.3, min_score: 6.0, min_alignment: good, limit: 0, self_dialogue: keep,'
     ' person_state: "", system: ""}'),
    ("judge: chats\n    backend", "judge: rated_sqlite\n    backend"),
    ("at_least: {exact: 0.5}\n      above_base: [overlap]",
     "at_least: {}\n      above_base: []"),
    ("first-f16: {model: first, judge: chats", "first-f16: {model: first, judge: rated_sqlite"),
)  # fmt: skip


def row(number: int, messages=SAID, tools=None, **meta) -> Example:
    return Example(messages, f"rows#{number}", f"g{number}", meta, tools)


def question(number: int, text: str = "Hi?", answer: str = "Ho.", **meta) -> Example:
    said = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return row(number, said, **meta)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with params.yaml; `chats(...)` is what validate would have written there."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params(), encoding="utf-8")

    def chats(*train: Example, valid=(), test=(), rated: bool = False) -> None:
        if rated:
            Path("params.yaml").write_text(params(*RATED), encoding="utf-8")
        with files.directory(files.chat_dir("mine")) as out:
            for name, part in (("train", train), ("valid", valid), ("test", test)):
                example.write_lines(out / f"{name}.jsonl", (one.row() for one in part))
        with files.directory(files.examples_dir("mine")) as out:
            every = sorted((*train, *valid, *test), key=lambda one: int(one.source[5:]))
            example.write_lines(out / "examples.jsonl", (one.row() for one in every))

    return chats


def lines(path) -> list[dict]:
    return [orjson.loads(line) for line in Path(path).read_bytes().splitlines()]


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_family_writes_what_its_published_template_renders(name):
    family = families.load(name)
    whole = FORMS[name] if FORMS[name].startswith(family.bos) else family.bos + FORMS[name]
    assert family.text(row(1), keep_bos=True) == whole
    assert family.text(row(1), keep_bos=False) == whole.removeprefix(family.bos)


CHATS = {
    "plain": (SAID, None),
    "without system": (SAID[1:], None),
    "offered tools": (SAID, [TOOL, TOOL]),
    "called tools": (TOOLED, [TOOL]),
    "two results": (
        [
            {"role": "system", "content": "Be brief.\n"},
            TOOLED[0],
            {"role": "assistant", "content": "So:", "tool_calls": [CALL, CALL]},
            *(TOOLED[2], TOOLED[2], TOOLED[3], TOOLED[0], TOOLED[3]),
        ],
        [TOOL],
    ),
    "thoughts": (
        [
            *SAID[:2],
            {"role": "assistant", "content": "<think>\nHm\n</think>\n\nWhy?"},
            SAID[3],
            {"role": "assistant", "content": "Tell him.", "reasoning_content": "\nHe asks.\n"},
        ],
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHATS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_ours_is_letter_for_letter_the_template_that_trl_packages(tmp_path, name, case):
    found = importlib.util.find_spec("trl")
    if found is None:
        pytest.skip("TRL is not installed")
    published = Path(found.submodule_search_locations[0]) / "chat_templates"
    text = (published / f"{PUBLISHED[name]}.jinja").read_text("utf-8")
    (tmp_path / "chat_template.jinja").write_text(text, encoding="utf-8")
    config = (families.HERE / name / "tokenizer_config.json").read_bytes()
    (tmp_path / "tokenizer_config.json").write_bytes(config)
    messages, tools = CHATS[case]
    messages = [{k: v for k, v in one.items() if v is not None} for one in messages]

    def rendered(folder: Path) -> str | None:
        try:
            return template.load(folder).render(messages, tools, generation_prompt=False)
        except template.RenderError:
            return None

    assert rendered(families.HERE / name) == rendered(tmp_path)


def test_a_csv_has_the_columns_and_the_bytes_of_the_reference(project):
    project(
        question(1, "Is it, \"so\"?", "Yes.\nVery.", harm_score=0.0, buddhist_alignment="good",
                 weighted_score=6.449999999999999, difficulty=2, scenario_id=7, experience_id=41,
                 mood="calm"),
        rated=True,
    )  # fmt: skip
    export.run(Request("mine", "mistral", output="out.csv"))
    assert Path("out.csv").read_bytes() == (
        b"text,harm_score,buddhist_alignment,weighted_score,difficulty,scenario_id,experience_id\r\n"
        b'"[INST] Is it, ""so""? [/INST] Yes.\nVery.</s>",0.0,good,6.449999999999999,2,7,41\r\n'
    )


def test_a_rated_row_without_a_column_is_named(project):
    project(question(3, harm_score=0.1), rated=True)
    with pytest.raises(TunesmithError, match=r"no 'buddhist_alignment'[^\n]*\n +where rows#3"):
        export.run(Request("mine", "mistral"))


@pytest.mark.parametrize(
    ("split", "expected"), [("all", [1, 2, 3, 4]), ("train", [2, 4]), ("valid", [1]), ("test", [3])]
)
def test_a_split_holds_its_own_rows_and_all_holds_each_once(project, split, expected):
    project(question(2, n=2), question(4, n=4), valid=[question(1, n=1)], test=[question(3, n=3)])
    export.run(Request("mine", "chatml", "jsonl", split, "o.jsonl"))
    assert [one["n"] for one in lines("o.jsonl")] == expected


def test_without_the_examples_no_row_is_lost(project):
    project(question(2, n=2), valid=[question(1, n=1)])
    (files.examples_dir("mine") / "examples.jsonl").unlink()
    export.run(Request("mine", "chatml", "jsonl", output="o.jsonl"))
    assert [one["n"] for one in lines("o.jsonl")] == [2, 1]


def test_the_three_formats_hold_the_same_values(project):
    parquet = pytest.importorskip("pyarrow.parquet")
    metas = [
        {"n": 1, "share": 1, "ok": True, "text": "own", "mixed": 1, "tags": ["a", "é"]},
        {"n": None, "share": 0.5, "ok": False, "mixed": "x", "big": (1 << 64) - 1},
    ]
    project(*(row(n, question(n).messages, **meta) for n, meta in enumerate(metas, 1)))
    for form in ("csv", "jsonl", "parquet"):
        export.run(Request("mine", "chatml", form, output=f"o.{form}"))
    text = families.load("chatml").text(question(1), keep_bos=False)
    big = str((1 << 64) - 1)
    assert lines("o.jsonl") == [
        {"text": text, "n": 1, "share": 1.0, "ok": True, "meta_text": "own", "mixed": "1",
         "tags": '["a","é"]', "big": None},
        {"text": text, "n": None, "share": 0.5, "ok": False, "meta_text": None, "mixed": "x",
         "tags": None, "big": big},
    ]  # fmt: skip
    table = parquet.read_table("o.parquet")
    assert table.to_pylist() == lines("o.jsonl")
    kinds = [str(field.type) for field in table.schema]
    assert kinds == ["string", "int64", "double", "bool", *["string"] * 4]
    with Path("o.csv").open(encoding="utf-8", newline="") as file:
        second = list(csv.DictReader(file))[1]
    assert second == {"text": text, "n": "", "share": "0.5", "ok": "false", "meta_text": "",
                      "mixed": "x", "tags": "", "big": big}  # fmt: skip


def test_parquet_without_its_package_says_what_to_install(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    project(question(1))
    with pytest.raises(MissingPackage, match="'pyarrow' is not installed"):
        export.run(Request("mine", "chatml", "parquet", output="o.parquet"))
    assert not Path("o.parquet").exists()


def tokenizer(folder: Path, adds_bos: bool) -> Tokenizer:
    """A word-level tokenizer of the Mistral family that puts BOS in front, or does not."""
    words = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "Hi?", "Ho."]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<s>", "</s>"])
    if adds_bos:
        made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return made


@pytest.mark.parametrize(
    ("bos", "adds", "special", "times"),
    [("strip", True, True, 1), ("keep", True, False, 1), ("keep", False, True, 1),
     ("keep", True, True, 2), ("strip", False, True, 0)],
)  # fmt: skip
def test_a_tokenizer_sees_bos_once_when_used_as_the_command_says(
    project, bos, adds, special, times
):
    project(question(1), question(2))
    made = tokenizer(Path("tok"), adds)
    export.run(Request("mine", "mistral", "jsonl", output="o.jsonl", bos=bos))
    for one in lines("o.jsonl"):
        ids = made.encode(one["text"], add_special_tokens=special).ids
        assert ids.count(1) == times
        assert ids[times:] == [3, 5, 4, 6, 2]


@pytest.mark.parametrize("family", ["tinyllama", "mistral", "llama3", "gemma"])
def test_keep_begins_every_text_with_bos_also_where_only_the_tokenizer_writes_it(family):
    made = families.load(family)
    text = made.text(question(1), keep_bos=True)
    assert text.startswith(made.bos)
    assert text.count(made.bos) == 1
    assert made.bos not in made.text(question(1), keep_bos=False)


@pytest.mark.parametrize(
    ("bos", "adds", "times"), [("strip", False, "0 times"), ("keep", False, None),
                               ("strip", True, None), ("keep", True, None)],
)  # fmt: skip
def test_the_check_with_a_tokenizer_refuses_a_text_without_bos(project, capsys, bos, adds, times):
    project(question(1))
    tokenizer(Path("tok"), adds)
    request = Request("mine", "mistral", output="o.csv", bos=bos, tokenizer="tok")
    if times is None:
        export.run(request)
        said = {"strip": "the tokenizer adds <s>", "keep": "begins with <s>"}[bos]
        assert said in capsys.readouterr().out
    else:
        with pytest.raises(TunesmithError, match=rf"sees <s> {times}[^$]*--bos keep"):
            export.run(request)
        assert not Path("o.csv").exists()


def test_the_check_finds_a_bos_that_a_tokenizer_doubles(project):
    project(question(1))
    made = tokenizer(Path("tok"), adds_bos=False)
    made.post_processor = processors.TemplateProcessing("<s> <s> $A", None, [("<s>", 1)])
    made.save("tok/tokenizer.json")
    with pytest.raises(TunesmithError, match=r"sees <s> 2 times in a text, at \[0, 1\]"):
        export.run(Request("mine", "mistral", output="o.csv", tokenizer="tok"))


def test_the_check_refuses_the_tokenizer_of_another_family(project):
    project(question(1))
    tokenizer(Path("tok"), adds_bos=True)
    with pytest.raises(TunesmithError, match=r"has no token <\|begin_of_text\|>"):
        export.run(Request("mine", "llama3", output="o.csv", tokenizer="tok"))
    with pytest.raises(TunesmithError, match=r"no tokenizer\.json here"):
        export.run(Request("mine", "llama3", output="o.csv", tokenizer="nowhere"))


def test_a_text_that_holds_bos_inside_is_refused():
    with pytest.raises(Refused, match="with which a text may only begin"):
        families.load("mistral").text(question(1, "What is <s>?"), keep_bos=False)


def test_no_row_is_an_error_and_the_old_file_has_another_name(project):
    project()
    Path("o.csv").write_text("old", encoding="utf-8")
    with pytest.raises(TunesmithError, match="No row of 'mine' can be written as mistral"):
        export.run(Request("mine", "mistral", output="o.csv"))
    assert not Path("o.csv").exists()
    assert Path("o.csv.old").read_text(encoding="utf-8") == "old"
    assert not list(Path().glob(".o.csv*"))


def test_an_export_that_works_leaves_only_the_new_file(project):
    project(question(1))
    for name in ("o.csv", "o.csv.old", "o.csv.rejects.jsonl"):
        Path(name).write_text("old", encoding="utf-8")
    export.run(Request("mine", "mistral", output="o.csv"))
    assert sorted(path.name for path in Path().glob("o.csv*")) == ["o.csv"]
    assert "Hi?" in Path("o.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("mistake", [{"template": "mistrall"}, {"template": "schema:nope"}])
def test_a_mistaken_command_leaves_no_old_file_that_looks_new(project, mistake):
    project(question(1))
    Path("o.csv").write_text("old", encoding="utf-8")
    with pytest.raises(TunesmithError, match="There is no"):
        export.run(Request("mine", output="o.csv", **mistake))
    assert not Path("o.csv").exists()


@pytest.mark.parametrize("output", ["data/chat/mine/train.jsonl", "exports/../models/x.csv", "."])
def test_nothing_is_written_where_stages_write(project, output):
    project(question(1))
    before = files.tree_hashes(files.chat_dir("mine"))
    with pytest.raises(TunesmithError, match=r"is a folder|would lie among what stages write"):
        export.run(Request("mine", "mistral", output=output))
    assert files.tree_hashes(files.chat_dir("mine")) == before


def test_a_file_that_cannot_be_written_is_named(project):
    project(question(1))
    Path("taken").write_text("a file", encoding="utf-8")
    with pytest.raises(TunesmithError, match=r"(?s)This file cannot be used: .*where taken"):
        export.run(Request("mine", "mistral", output="taken/o.csv"))
    assert Path("taken").read_text(encoding="utf-8") == "a file"


def test_an_unfinished_dataset_says_which_stage_to_run(project):
    with pytest.raises(TunesmithError, match="dvc repro validate@mine"):
        export.run(Request("mine", "mistral"))
    with pytest.raises(TunesmithError, match="Did you mean 'mine'"):
        export.run(Request("mime", "mistral"))


def test_rows_that_a_form_cannot_hold_are_counted_named_and_kept(project, capsys):
    offered = question(3)
    project(row(1, TOOLED, [TOOL]), question(2), row(3, offered.messages, [TOOL]))
    export.run(Request("mine", "llama3", output="o.csv"))
    said = capsys.readouterr()
    assert "2 rows refused (2 x tools), all in o.csv.rejects.jsonl:" in said.err
    assert "rows#1: It offers or uses tools, which llama3 has no form for." in said.err
    assert "mine: 1 rows as llama3 in o.csv" in said.out
    assert [(one["source"], one["code"]) for one in lines("o.csv.rejects.jsonl")] == [
        ("rows#1", "tools"), ("rows#3", "tools"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["qwen", "qwen3", "llama3.1"])
def test_tools_calls_and_results_reach_the_text_where_the_family_has_a_form(name):
    text = families.load(name).text(row(1, TOOLED, [TOOL]), keep_bos=False)
    assert '"clock"' in text
    assert '{"in": "é"}' in text
    assert text.index("clock") < text.index("Time?") < text.index("12:00") < text.index("Noon.")


def test_a_call_that_a_family_cannot_write_is_refused():
    said = [TOOLED[0], {**TOOLED[1], "tool_calls": [CALL, CALL]}, *TOOLED[2:]]
    with pytest.raises(Refused, match="one call a message"):
        families.load("llama3.1").text(row(1, said, [TOOL]), keep_bos=False)


def test_a_system_message_that_a_form_refuses_can_lead_the_question_or_be_left_out(project):
    project(row(1))
    with pytest.raises(TunesmithError, match=r"1 x template.*(?s:.*)--system user"):
        export.run(Request("mine", "gemma", output="o.jsonl", format="jsonl"))
    texts = {}
    for system in ("user", "drop"):
        export.run(Request("mine", "gemma", "jsonl", output="o.jsonl", system=system))
        texts[system] = lines("o.jsonl")[0]["text"]
    assert texts["user"].startswith("<start_of_turn>user\nBe kind.\n\nI lied.<end_of_turn>\n")
    assert texts["drop"] == texts["user"].replace("Be kind.\n\n", "")


def test_a_base_folder_is_a_template_and_what_it_leaves_out_is_refused(project):
    project(row(1), question(2))
    Path("base").mkdir()
    form = "{% for m in messages if m.role != 'system' %}{{ m.role + m.content + eos_token }}"
    Path("base/chat_template.jinja").write_text(form + "{% endfor %}", encoding="utf-8")
    Path("base/tokenizer_config.json").write_text('{"eos_token": "|"}', encoding="utf-8")
    export.run(Request("mine", "base", "jsonl", output="o.jsonl"))
    assert [one["text"] for one in lines("o.jsonl")] == ["userHi?|assistantHo.|"]
    assert lines("o.jsonl.rejects.jsonl")[0]["reason"] == (
        "The template leaves out what message 1 says."
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen", {"input": "<|user|>Hi?", "output": "<|assistant|>Ho.<|endoftext|>"}),
        ("llama", {"input": "[INST] Hi? [/INST]\n", "output": " Ho.</s>"}),
        ("phi", {"input": "<|prompt|>Hi?\n", "output": "<|answer|>Ho.<|endoftext|>"}),
        ("gptj", {"input": "Human: Hi?\n\n", "output": "\nAssistant: Ho.<|endoftext|>"}),
    ],
)
def test_a_schema_writes_its_marks_separator_and_end(project, capsys, name, expected):
    project(question(1), question(2, "Ä?", "Ö."))
    export.run(Request("mine", f"schema:{name}"))
    path = Path(f"exports/mine-{name}.jsonl")
    assert lines(path)[0] == expected
    assert path.read_bytes().splitlines()[1].startswith(b'{"input":"')
    assert "Ä?".encode() in path.read_bytes()
    assert "warning: 2 lines; a full fine-tune wants 1,000" in capsys.readouterr().err


def test_a_thousand_lines_are_enough(project, capsys):
    project(*(question(n) for n in range(1, 1001)))
    export.run(Request("mine", "schema:qwen", output="o.jsonl"))
    assert "warning" not in capsys.readouterr().err


def test_a_schema_of_ones_own_writes_each_turn(project):
    marks = {
        "family": "own", "user_prefix": "U", "user_suffix": "u", "assistant_prefix": "A",
        "assistant_suffix": "a", "separator": "|", "eos_token": "$", "notes": "for us",
    }  # fmt: skip
    Path("own.json").write_text(json.dumps(marks), encoding="utf-8")
    project(row(1, SAID[1:]), row(2))
    export.run(Request("mine", "schema:own.json", output="o.jsonl"))
    assert lines("o.jsonl") == [{"input": "UI lied.u|A Why?\na$UFear.u|", "output": "ATell him.a$"}]
    assert lines("o.jsonl.rejects.jsonl")[0]["code"] == "role"


GOOD = dict.fromkeys(schema.Schema.model_fields, "x")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (json.dumps({k: v for k, v in GOOD.items() if k != "eos_token"}), "eos_token: is missing"),
        (json.dumps(GOOD | {"separator": 3}), "separator: Input should be a valid string"),
        (json.dumps(GOOD | {"user_prefix": None}), "user_prefix: Input should be"),
        ("[]", "a JSON list, not an object"),
        ("{", "It is not JSON"),
        (json.dumps(dict.fromkeys(GOOD, "")), "nothing would part question and answer"),
    ],
)
def test_a_bad_schema_file_names_the_key(project, text, named):
    project(question(1))
    Path("bad.json").write_text(text, encoding="utf-8")
    with pytest.raises(TunesmithError) as caught:
        export.run(Request("mine", "schema:bad.json"))
    assert named in str(caught.value)
    assert "where bad.json" in str(caught.value)


def test_a_schema_has_one_format_and_no_tools(project):
    project(question(1), row(2, TOOLED, [TOOL]))
    with pytest.raises(TunesmithError, match="as JSON lines"):
        export.run(Request("mine", "schema:qwen", format="csv"))
    export.run(Request("mine", "schema:qwen", output="o.jsonl"))
    assert lines("o.jsonl.rejects.jsonl")[0]["code"] == "tools"


def test_a_row_is_a_row_whatever_newlines_it_holds(project, capsys):
    project(*(question(n, "a\nb\r\nc", "\n".join("line")) for n in range(1, 4)))
    export.run(Request("mine", "mistral", output="o.csv"))
    assert "mine: 3 rows as mistral" in capsys.readouterr().out
    with Path("o.csv").open(encoding="utf-8", newline="") as file:
        texts = [one["text"] for one in csv.DictReader(file)]
    assert texts == ["[INST] a\nb\r\nc [/INST] l\ni\nn\ne</s>"] * 3


def test_the_door_exports_with_every_option(project):
    project(row(1, share=0.5))
    tokenizer(Path("tok"), adds_bos=True)
    done = door(
        *(Path.cwd(), "export", "mine", "--template", "mistral", "--format", "jsonl"),
        *("--split", "train", "--output", "o.jsonl", "--bos", "keep", "--system", "drop"),
        *("--tokenizer", "tok"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert lines("o.jsonl") == [
        {"text": "<s>[INST] I lied. [/INST]  Why?\n</s>[INST] Fear. [/INST] Tell him.</s>",
         "share": 0.5}
    ]  # fmt: skip
    assert done.stdout.splitlines()[-1] == "mine: 1 rows as mistral in o.jsonl"


def test_the_help_names_every_family_and_schema(project):
    text = " ".join(door(Path.cwd(), "export", "--help", COLUMNS="300").stdout.split())
    for name in families.names():
        assert f"{name}," in text or f"{name};" in text
    for name in schema.names():
        assert name in text
