"""The maker `tool_chats`: three phases and probes in OpenAI's form, all taken by the recipe."""

import json
from collections import Counter

import orjson
import pytest

from stages.core import checking, splits
from stages.core.errors import TunesmithError
from stages.core.example import Example
from stages.makers import tool_chats as maker
from stages.makers.tool_chats import chat
from stages.recipes import tool_chats

PHASES = ("1-tools.jsonl", "2-agentic.jsonl", "3-integration.jsonl")
COUNTS = {"tools": 60, "agentic": 60, "integration": 60, "probes": 40}


def options(pattern="[123]-*.jsonl", probes="probes.jsonl"):
    reading = {"pattern": pattern, "probes": probes, "tools": "tools.json"}
    return tool_chats.Options(**reading, system="", final_calls="reject")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    maker.make(maker.Options(seed=21, requests=1, **COUNTS), folder)
    return folder


def lines(raw, name):
    return [json.loads(line) for line in (raw / name).read_text(encoding="utf-8").splitlines()]


def test_the_recipe_takes_every_line_and_the_checks_keep_it(raw):
    found = list(tool_chats.examples(raw, options()))
    assert [item for item in found if not isinstance(item, Example)] == []
    assert len(found) == sum(COUNTS.values())
    kept, rejects = checking.checked(found, lambda row: None)
    kept, copies = checking.without_copies(kept, 1.0)
    assert (len(kept), rejects, copies) == (len(found), [], [])


def test_the_lines_have_the_form_of_the_reference(raw):
    seen = Counter()
    for name in (*PHASES, "probes.jsonl"):
        for line in lines(raw, name):
            assert set(line) <= {"messages", "tools", "category"}
            seen["tools"] += "tools" in line
            seen["system"] += line["messages"][0]["role"] == "system"
            for message in line["messages"]:
                assert "content" in message
                seen["named"] += message["role"] == "tool" and "name" in message
                seen["unnamed"] += message["role"] == "tool" and "name" not in message
                for call in message.get("tool_calls", []):
                    assert list(call) == ["id", "type", "function"]
                    assert isinstance(json.loads(call["function"]["arguments"]), dict)
                    seen[f"content {message['content'] and 'text'!r}"] += 1
    total = sum(COUNTS.values())
    assert 0.5 * total < seen["tools"] < 0.9 * total
    assert 0.6 * total < seen["system"] < total
    assert seen["named"] > seen["unnamed"] > 20
    assert min(seen[f"content {kind!r}"] for kind in ("text", "", None)) > 20


def test_each_phase_brings_what_the_one_before_it_lacks(raw):
    turns = []
    for name in PHASES:
        rows = list(tool_chats.examples(raw, options(name, "")))
        turns.append(tool_chats.report(rows, options(name, ""))["turns"])
    first, second, third = turns
    assert first["one_call"] == COUNTS["tools"]
    assert first["parallel_calls"] == first["after_errors"] == first["before_tools"] == 0
    assert second["parallel_calls"] >= 15
    assert second["after_errors"] >= 15
    assert second["before_tools"] == 0
    assert third["before_tools"] >= 5
    assert third["no_call"] > COUNTS["integration"]


def test_all_tools_are_called_and_all_categories_are_probed(raw):
    report = tool_chats.report(list(tool_chats.examples(raw, options())), options())
    assert report["never_called"] == []
    assert set(report["probes"].values()) == {COUNTS["probes"] // 4}
    assert not any("warning" in verdict for verdict in report["verdicts"])


@pytest.mark.parametrize("pattern", [*PHASES, "[12]-*.jsonl", "[123]-*.jsonl"])
def test_every_phase_is_tested_by_the_same_probes_and_shares_no_prompt_with_them(raw, pattern):
    rows = list(tool_chats.examples(raw, options(pattern)))
    sides = splits.assign(rows, 42, 0.05, 0.0)
    tested = [row.source for row, side in zip(rows, sides, strict=True) if side == "test"]
    assert tested == [f"probes.jsonl#{n}" for n in range(1, COUNTS["probes"] + 1)]
    assert set(splits.leaks(rows, sides).values()) == {0}


def test_no_request_stands_twice(raw):
    asked = Counter()
    for name in (*PHASES, "probes.jsonl"):
        for line in lines(raw, name):
            asked[next(m["content"] for m in line["messages"] if m["role"] == "user")] += 1
    assert max(asked.values()) == 1


def test_a_conversation_of_several_requests_is_one_chat_that_the_checks_keep(tmp_path):
    maker.make(maker.Options(seed=21, requests=3, **COUNTS), tmp_path)
    found = list(tool_chats.examples(tmp_path, options(probes="")))
    asked = [[m["content"] for m in row.messages if m["role"] == "user"] for row in found]
    assert checking.checked(found, lambda row: None) == (found, [])
    assert {1, 2, 3} <= {len(requests) for requests in asked}
    probed = [line["messages"] for line in lines(tmp_path, "probes.jsonl")]
    first = {next(m["content"] for m in chat if m["role"] == "user") for chat in probed}
    assert first.isdisjoint(request for requests in asked for request in requests)


def test_files_and_symbols_stand_in_quotes_spelt_as_in_the_calls(raw):
    for line in lines(raw, PHASES[1]):
        said = " ".join(m["content"] or "" for m in line["messages"] if m["role"] == "user")
        for name in chat.NAME.findall(said):
            assert f'"{name}"' in said


def test_arguments_can_be_found_in_what_stands_before_them(raw):
    """What the model has to write is copied, or nearly so: every word of it was seen."""
    parts = Counter()
    for row in tool_chats.examples(raw, options()):
        for place, message in enumerate(row.messages):
            before = orjson.dumps([row.messages[:place]]).decode()
            for call in message.get("tool_calls", ()):
                for value in call["function"]["arguments"].values():
                    words = value.replace("(", " ").replace(")", " ").split()
                    parts["seen"] += sum(word.removeprefix("test_") in before for word in words)
                    parts["all"] += len(words)
    assert parts["seen"] > 0.75 * parts["all"]


def test_a_conversation_stays_short(raw):
    for name in PHASES:
        for line in lines(raw, name):
            said = orjson.dumps(line["messages"]).decode()
            assert len(said) < 2600


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path):
    made = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        maker.make(maker.Options(seed=seed, requests=1, **COUNTS), tmp_path / name)
        made[name] = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    assert set(made["a"]) == {*PHASES, "probes.jsonl", "tools.json"}
    assert made["a"] == made["b"]
    assert [name for name in made["a"] if made["a"][name] == made["c"][name]] == ["tools.json"]


def test_more_conversations_of_a_phase_leave_the_first_ones_as_they_were(tmp_path):
    for name, count in (("few", 10), ("many", 40)):
        (tmp_path / name).mkdir()
        maker.make(maker.Options(seed=1, requests=1, **COUNTS | {"tools": count}), tmp_path / name)
    few, many = ((tmp_path / name / PHASES[0]).read_bytes() for name in ("few", "many"))
    assert many.startswith(few)


def test_wanting_more_than_there_is_ends_with_a_sentence(tmp_path):
    with pytest.raises(TunesmithError, match="no more different requests for refactoring"):
        maker.make(maker.Options(seed=1, requests=1, **COUNTS | {"probes": 1_000_000}), tmp_path)
