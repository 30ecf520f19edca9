"""Templates: our rendering is the base's own, letter for letter."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import token_bases as bases

from stages.core import template
from stages.core.errors import TunesmithError
from stages.core.example import Example

SHARED = Path(__file__).parents[2] / "shared" / "samples"
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": 'Find <b>a</b> place & say "it\'s" there.',
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


TOOLED = Example(
    [
        {"role": "system", "content": "You are a clerk."},
        {"role": "user", "content": "Where is Köln <now>?"},
        {
            "role": "assistant",
            "content": "Looking.",
            "tool_calls": [call("look_up", place="Köln"), call("look_up", place="Bonn", far=None)],
        },
        {"role": "tool", "content": '{"km": 3}'},
        {"role": "tool", "content": "none"},
        {"role": "assistant", "content": "", "tool_calls": [call("look_up", deep={"a": [1.5]})]},
        {"role": "tool", "content": "here"},
        {"role": "assistant", "content": "It is here."},
        {"role": "user", "content": "Thanks 😀"},
        {"role": "assistant", "content": "You're welcome."},
    ],
    "t.jsonl#1",
    "t",
    tools=[TOOL],
)
PLAIN = bases.chat("Hello\r\nthere", "Good day", "And?", "Bye\n", system="Be brief.")


def transformers_text(base, example, **options):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(base)
    return tokenizer.apply_chat_template(
        example.messages, tools=example.tools, tokenize=False, **options
    )


def trl_template(name):
    found = importlib.util.find_spec("trl")
    if found is None:
        pytest.skip("TRL is not installed")
    return (Path(found.submodule_search_locations[0]) / "chat_templates" / name).read_text()


def rendered(base, example):
    return template.load(base).turns(example.messages, example.tools)


@pytest.mark.parametrize("example", [TOOLED, PLAIN], ids=["tools", "plain"])
def test_the_tiny_template_writes_what_transformers_renders_from_it(tmp_path, example):
    base = bases.chatml(tmp_path)

    text, turns = rendered(base, example)

    assert text == transformers_text(base, example)
    for turn, end in zip(turns, assistants(example), strict=True):
        upto = Example(example.messages[:end], "", "", tools=example.tools)
        assert turn.prompt == transformers_text(base, upto, add_generation_prompt=True)


def assistants(example):
    return [n for n, message in enumerate(example.messages) if message["role"] == "assistant"]


@pytest.mark.parametrize("example", [TOOLED, PLAIN], ids=["tools", "plain"])
def test_the_tiny_template_is_the_form_of_qwen2_5(tmp_path, example):
    qwen = bases.chatml(tmp_path / "qwen", trl_template("qwen2_5.jinja"))
    tiny = bases.chatml(tmp_path / "tiny")

    assert rendered(tiny, example) == rendered(qwen, example)


def test_the_tiny_template_invents_no_system_message(tmp_path):
    text, _ = rendered(bases.chatml(tmp_path), bases.chat("Hi", "Yes"))

    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"


@pytest.mark.parametrize(
    "name",
    ["qwen3.jinja", "llama3.jinja", "llama3_2.jinja", "phi3.jinja", "gemma3.jinja", "gemma.jinja"],
)
def test_the_templates_of_known_bases_render_as_in_transformers(tmp_path, name):
    form = trl_template(name)
    base = bases.base(
        tmp_path, bases.byte_level(bases.LLAMA), form, "<|eot_id|>", bos_token="<|begin_of_text|>"
    )
    example = bases.chat("Hello", " Good <day>\n", "And?", "Bye")
    expected = transformers_text(base, example, date_string="26 Jul 2024")

    text, turns = rendered(base, example)

    assert text == expected
    assert all(text.startswith(turn.prompt) for turn in turns)


def test_the_tool_calls_of_synthia_render_as_in_transformers(tmp_path):
    path = SHARED / "synthia" / "dataset.jsonl"
    if not path.is_file():
        pytest.skip("no shared samples here")
    base, seen = bases.chatml(tmp_path), 0
    loaded = template.load(base)
    for line in path.read_text("utf-8").splitlines()[:40]:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        messages = row.get("messages", [])
        if messages and all(isinstance(message.get("content"), str) for message in messages):
            example = Example(messages, "", "", tools=row.get("tools"))
            text, _ = loaded.turns(example.messages, example.tools)
            assert text == transformers_text(base, example)
            seen += 1
    assert seen > 10


def test_reasoning_and_null_fields_reach_the_template_as_in_transformers(tmp_path):
    base = bases.chatml(tmp_path, "{% for m in messages %}{{ m | tojson }};{% endfor %}")
    example = bases.chat("Hi", "Yes")
    example.messages[1] |= {"thinking": "hm", "name": None}

    assert rendered(base, example)[0] == transformers_text(base, example)


def test_a_template_with_generation_tags_renders_as_without(tmp_path):
    tagged = bases.chatml(tmp_path / "tagged", bases.GENERATION_FORM)
    plain = bases.chatml(tmp_path / "plain")
    example = bases.chat("Hi", "Yes", "And?", "No")

    assert rendered(tagged, example) == rendered(plain, example)
    assert rendered(tagged, example)[0] == transformers_text(tagged, example)


def test_the_template_file_goes_before_the_one_in_the_configuration(tmp_path):
    base = bases.base(
        tmp_path, bases.byte_level(bases.CHATML), "file", "<|im_end|>", chat_template="config"
    )

    assert template.load(base).text == "file"
    (base / "chat_template.jinja").unlink()
    assert template.load(base).text == "config"


def test_a_base_may_have_a_template_of_its_own_for_tools(tmp_path):
    forms = [{"name": "default", "template": "no"}, {"name": "tool_use", "template": "tools"}]
    base = bases.base(
        tmp_path, bases.byte_level(bases.CHATML), None, "<|im_end|>", chat_template=forms
    )

    assert rendered(base, PLAIN)[0] == "no"
    assert rendered(base, TOOLED)[0] == "tools"


@pytest.mark.parametrize(
    ("form", "found"), [(None, "is missing"), ("", "is blank"), (" \n\t", "is blank")]
)
def test_a_missing_or_blank_template_is_refused(tmp_path, form, found):
    base = bases.chatml(tmp_path, form)

    with pytest.raises(TunesmithError, match=rf"chat template of this base {found}"):
        template.load(base)


def test_a_null_template_in_the_configuration_is_missing(tmp_path):
    base = bases.base(
        tmp_path, bases.byte_level(bases.CHATML), None, "<|im_end|>", chat_template=None
    )

    with pytest.raises(TunesmithError, match="is missing"):
        template.load(base)


def test_a_template_that_is_not_jinja_is_refused_with_its_line(tmp_path):
    base = bases.chatml(tmp_path, "ok\n{% for %}")

    with pytest.raises(TunesmithError, match=r"not Jinja[\s\S]*chat_template\.jinja:2"):
        template.load(base)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("{{ raise_exception('no thanks') }}", "no thanks"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ 'a' + messages[0].age }}", "UndefinedError"),
        ("{{ 'a' + 1 }}", "TypeError"),
    ],
)
def test_what_a_template_refuses_or_fails_on_is_said(tmp_path, form, reason):
    base = bases.chatml(tmp_path, form)

    with pytest.raises(template.RenderError, match=reason):
        rendered(base, PLAIN)


def test_the_clock_of_a_template_stands_still(tmp_path):
    loaded = template.load(bases.chatml(tmp_path, "{{ strftime_now('%d %b %Y') }}"))

    assert loaded.turns([], None)[0] == "26 Jul 2024"
    assert loaded.uses_clock


def test_a_turn_ends_before_the_content_of_the_next_message(tmp_path):
    text, turns = rendered(bases.chatml(tmp_path), bases.chat("a", "b", "same", "same"))

    assert text[: turns[0].limit].endswith("b<|im_end|>\n<|im_start|>user\n")
    assert turns[1].limit == len(text)


def test_the_text_does_not_depend_on_hash_seed_or_locale(tmp_path):
    base = bases.chatml(tmp_path / "base")
    row = tmp_path / "row.json"
    row.write_text(json.dumps([TOOLED.messages, TOOLED.tools]))
    code = (
        "import json, pathlib, sys; from stages.core import template\n"
        "messages, tools = json.loads(pathlib.Path(sys.argv[2]).read_text('utf-8'))\n"
        "text, _ = template.load(pathlib.Path(sys.argv[1])).turns(messages, tools)\n"
        "sys.stdout.buffer.write(text.encode())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, str(base), str(row)],
            env=os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale, "TZ": zone},
            cwd=Path(__file__).parents[1], check=True, capture_output=True,
        ).stdout
        for seed, locale, zone in (("0", "C", "UTC"), ("7", "C.UTF-8", "Pacific/Auckland"))
    }  # fmt: skip

    assert texts == {rendered(base, TOOLED)[0].encode()}
