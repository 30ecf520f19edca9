"""The recipe `memories`: files, pairs, modes, dates, limits; each reject for its own reason."""

import json
import os

import pytest
from memories import options, run

from stages.core.errors import TunesmithError
from stages.core.example import Example
from stages.recipes import memories


def memory(kind="conversation", **keys):
    """A memory of the recorder; a key given as ... is left out."""
    record = {"id": "evt-1", "timestamp": "2025-05-01T00:00:00.000Z", "type": kind, "metadata": {}}
    record |= {"content": "Who came?", "response": "Ana came, and she stayed."} | keys
    return {key: value for key, value in record.items() if value is not ...}


def turns(*said):
    """Messages `user: text` and so on, as a memory without content."""
    parts = [text.split(": ", 1) for text in said]
    return memory(messages=[{"role": role, "content": text} for role, text in parts])


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def only(folder, record, **chosen):
    """Examples and (source, code) of the rejects of one memory."""
    write(folder, "m.json", record)
    found, rejects = run(folder, **chosen)
    return found, [(one.source, one.code) for one in rejects]


def said(example):
    return [message["content"] for message in example.messages]


def test_a_memory_becomes_a_chat_with_the_tags_of_its_mode_and_facts_about_itself(tmp_path):
    found, rejects = only(tmp_path, memory("reflection", id="evt-7"), system="Be Ana.")
    assert rejects == []
    assert found == [
        Example(
            [
                {"role": "system", "content": "Be Ana."},
                {"role": "user", "content": "<thought>: Who came?"},
                {"role": "assistant", "content": "<world>: Ana came, and she stayed."},
            ],
            "m.json#1",
            "m.json",
            {
                "mode": "dual",
                "mode_source": "type",
                "source_type": "reflection",
                "original_id": "evt-7",
                "timestamp": "2025-05-01T00:00:00.000Z",
                "multi_turn": False,
                "long_output": False,
                "cut": False,
                "max_words": 40,
            },
        )
    ]


@pytest.mark.parametrize(
    ("kind", "metadata", "mode", "mode_source"),
    [
        ("task", {}, "agent", "type"),
        ("task", {"cognitiveMode": "dual"}, "dual", "metadata"),
        ("task", {"cognitiveMode": "DUAL"}, "agent", "type"),
        ("task", {"cognitiveMode": "environment"}, "agent", "type"),
        ("task", {"cognitiveMode": ["dual"]}, "agent", "type"),
        ("Inner_Dialogue_Summary", {}, "dual", "type"),
        ("anything else", {}, "emulation", "type"),
    ],
)
def test_metadata_come_before_the_type_and_the_type_before_a_part_of_it(
    tmp_path, kind, metadata, mode, mode_source
):
    (found,), _ = only(tmp_path, memory(kind, metadata=metadata))
    assert (found.meta["mode"], found.meta["mode_source"]) == (mode, mode_source)


def test_the_mapping_of_types_is_the_users(tmp_path):
    (found,), _ = only(tmp_path, memory("dream"), modes={"dream": "agent"})
    assert said(found)[0] == "<instruction>: Who came?"


@pytest.mark.parametrize(
    ("keys", "pair"),
    [
        ({"prompt": "P?", "question": "Q?", "answer": "A."}, ("P?", "Ana came, and she stayed.")),
        ({"question": "Q?", "answer": "A."}, ("Who came?", "Ana came, and she stayed.")),
        ({"response": ..., "question": "Q?", "answer": "A."}, ("Q?", "A.")),
        ({"response": "", "question": "Q?", "answer": "A."}, ("Q?", "A.")),
        ({"response": ..., "observation": "Rain."}, ("What did you observe?", "Rain.")),
    ],
)
def test_the_first_pair_in_the_recorders_order_counts(tmp_path, keys, pair):
    (found,), rejects = only(tmp_path, memory(**keys))
    assert rejects == []
    assert said(found) == [f"<user>: {pair[0]}", f"<assistant>: {pair[1]}"]


def test_a_conversation_gives_a_sample_for_each_answer_with_the_user_message_before_it(tmp_path):
    record = turns(
        *("system: Be brief.", "user: One?", "user: Two?", "tool: 2", "assistant: Two."),
        *("assistant: Yes, two.", "user: Three?"),
    )
    found, rejects = only(tmp_path, record)
    assert [(one.source, *said(one)) for one in found] == [
        ("m.json#5", "<user>: Two?", "<assistant>: Two."),
        ("m.json#6", "<user>: Two?", "<assistant>: Yes, two."),
    ]
    assert all(one.meta["multi_turn"] for one in found)
    assert {one.group for one in found} == {"m.json"}
    assert rejects == [("m.json#2", "unanswered"), ("m.json#7", "unanswered")]


def test_metadata_flags_are_honoured(tmp_path):
    flagged = memory(metadata={"multi_turn": True, "long_output": "allowed"}, response="word " * 60)
    (found,), _ = only(tmp_path, flagged)
    assert found.meta["multi_turn"]
    assert found.meta["long_output"]
    assert not found.meta["cut"]
    assert only(tmp_path, memory(metadata={"discard": True})) == ([], [("m.json", "discarded")])
    (found,), _ = only(tmp_path, memory(metadata={"discard": False, "long_output": "no"}))
    assert not found.meta["long_output"]


def test_memories_of_one_conversation_are_one_group(tmp_path):
    write(tmp_path, "a.json", memory(metadata={"conversationId": "c-1"}))
    write(tmp_path, "b.json", memory(metadata={"conversationId": "c-1"}))
    found, _ = run(tmp_path)
    assert {one.group for one in found} == {"conversation:c-1"}


REJECTS = {
    "not_an_object": b"[]",
    "broken_json": b'{"id": "cut o',
    "nul": memory(response="a\0b"),
    "no_type": memory(type=...),
    "content_only": memory(response=...),
    "no_pair": memory(content=..., response=...),
    "wrong_type": memory(content=42),
    "empty_prompt": memory(content=" \n"),
    "empty_answer": memory(response="\t"),
    "filler_only": memory(response="Certainly!"),
    "contaminated": memory(response="It says <world>: hello."),
    "no_question": turns("assistant: I speak first."),
    "unanswered": turns("user: Who came?"),
    "unknown_role": turns("narrator: It rained."),
}


@pytest.mark.parametrize("code", REJECTS)
def test_a_memory_that_gives_nothing_is_one_reject_with_its_reason(tmp_path, code):
    write(tmp_path, "a.json", REJECTS[code])
    write(tmp_path, "b.json", memory())
    found, rejects = run(tmp_path)
    assert [one.source for one in found] == ["b.json#1"]
    assert [(one.source.partition("#")[0], one.code) for one in rejects] == [("a.json", code)]
    assert rejects[0].reason.endswith(".")


@pytest.mark.parametrize(
    "record",
    [
        memory(response={"text": "hi"}),
        memory(messages={"role": "user"}),
        memory(messages=[None]),
        memory(messages=[{"role": "user", "content": "Hi?"}, {"role": "assistant"}]),
        memory(metadata=["discard"]),
        memory(type="observation", response=..., observation=7),
        b"null",
        b"\xff\xfe{\x00}\x00",
        b'{"content": "\\ud800", "response": "x", "type": "chat"}',
        b"[" * 100_000,
    ],
)
def test_hostile_content_is_a_reject_and_stops_nothing(tmp_path, record):
    write(tmp_path, "a.json", record)
    write(tmp_path, "b.json", memory())
    found, rejects = run(tmp_path)
    assert ([one.source for one in found], len(rejects)) == (["b.json#1"], 1)


def test_files_that_are_no_memories_are_rejects(tmp_path):
    write(tmp_path, "a.json.enc", b'{"iv": "00"}')
    write(tmp_path, "b.txt", memory())
    (tmp_path / "c.json").symlink_to("nowhere.json")
    (tmp_path / "d.json").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "e.json")
    with (tmp_path / "f.json").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    _, rejects = run(tmp_path)
    assert [(one.source, one.code) for one in rejects] == [
        ("a.json.enc", "encrypted"),
        ("b.txt", "not_json"),
        *((f"{name}.json", "unreadable") for name in "cdef"),
    ]


def test_folders_are_walked_by_name_at_any_depth(tmp_path):
    deep = "/".join(["d"] * 900)
    for name in ("2025/01/b.json", "2025/01/a.json", "2024/12/c.json", "dreams/x.json"):
        write(tmp_path, name, memory())
    write(tmp_path, f"{deep}/z.json", memory())
    found, _ = run(tmp_path)
    names = ["2024/12/c", "2025/01/a", "2025/01/b", f"{deep}/z", "dreams/x"]
    assert [one.source for one in found] == [f"{name}.json#1" for name in names]


def test_a_missing_profile_names_those_that_are_there(tmp_path):
    write(tmp_path, "profiles/ana/memory/episodic/2025/a.json", memory())
    found, _ = run(tmp_path, user="ana")
    assert [one.source for one in found] == ["profiles/ana/memory/episodic/2025/a.json#1"]
    with pytest.raises(TunesmithError, match=r"(?s)no folder of memories of 'anna'.*there: ana\."):
        run(tmp_path, user="anna")


def test_only_the_wanted_mode_is_kept_and_the_rest_is_named(tmp_path):
    assert only(tmp_path, memory("task"), mode="dual") == ([], [("m.json#1", "other_mode")])
    with pytest.raises(ValueError, match="mode"):
        options(mode="banana")


def dated(folder, *days, **chosen):
    """The days of May 2025 that are kept of memories of these days."""
    for day in days:
        stamp = f"2025-05-{day:02d}T00:00:00Z"
        write(folder, f"{day:02d}.json", memory(timestamp=stamp))
    found, rejects = run(folder, **chosen)
    return [int(one.source[:2]) for one in found], {one.code for one in rejects}


def test_recent_counts_back_from_the_newest_memory_not_from_today(tmp_path):
    kept, codes = dated(tmp_path, 1, 9, 10, 11, 20, days_recent=10)
    assert (kept, codes) == ([10, 11, 20], {"too_old"})


def test_a_memory_without_a_date_is_a_reject_only_where_dates_matter(tmp_path):
    write(tmp_path, "00.json", memory(timestamp="yesterday"))
    assert dated(tmp_path, 1) == ([0, 1], set())
    assert dated(tmp_path, days_recent=5) == ([1], {"bad_timestamp"})


def test_old_memories_are_drawn_by_the_seed_and_never_from_what_gives_nothing(tmp_path):
    april = {"timestamp": "2025-04-01T00:00:00Z"}
    for number in range(20):
        write(tmp_path, f"0-{number}.json", memory(response=..., **april))
        write(tmp_path, f"1-{number}.json", memory(metadata={"discard": True}, **april))
    chosen = {"days_recent": 3, "old_samples": 5}
    first, _ = dated(tmp_path, *range(1, 31), **chosen)
    assert len(first) == 4 + 5
    assert first[5:] == [27, 28, 29, 30]
    assert dated(tmp_path, **chosen)[0] == first
    assert dated(tmp_path, **chosen, seed=43)[0] != first
    every, _ = dated(tmp_path, days_recent=3, old_samples=100)
    assert every == list(range(1, 31))


def test_max_is_taken_last_the_first_ones_or_drawn_by_the_seed(tmp_path):
    write(tmp_path, "00.json", memory(response="It says <world>: hello."))
    kept, codes = dated(tmp_path, *range(1, 21), max=5)
    assert (kept, codes) == ([1, 2, 3, 4, 5], {"contaminated", "over_max"})
    drawn, _ = dated(tmp_path, max=5, max_choice="random")
    assert len(drawn) == 5
    assert drawn not in ([1, 2, 3, 4, 5], dated(tmp_path, max=5, max_choice="random", seed=1)[0])
    assert dated(tmp_path, max=50, max_choice="random")[0] == list(range(1, 21))


def test_another_memory_changes_no_draw_of_the_others(tmp_path):
    for number in range(200):
        write(tmp_path, f"{number:03}.json", memory(response="word " * 60))
    before = {one.source: one.meta["long_output"] for one in run(tmp_path, long_share=0.3)[0]}
    write(tmp_path, "0.json", memory())
    after = {one.source: one.meta["long_output"] for one in run(tmp_path, long_share=0.3)[0]}
    del after["0.json#1"]
    assert after == before
    assert 35 < sum(before.values()) < 85


def test_contamination_stops_the_stage_only_when_all_files_are_read_and_names_them(tmp_path):
    for number in range(60):
        write(tmp_path, f"{number:02}.json", memory(response="It says <action>: x."))
    found = memories.examples(tmp_path, options(contaminated="error"))
    with pytest.raises(TunesmithError, match=r"(?s)60 sample\(s\).*00\.json#1: .*and 20 more"):
        list(found)
    assert len(run(tmp_path, contaminated="drop")[1]) == 60


def test_a_tag_of_another_mode_counts_on_both_sides_and_to_the_letter(tmp_path):
    for text in ("<thought>", "x <world>: y", "<instruction>", "<action>"):
        for key in ("content", "response"):
            assert only(tmp_path, memory(**{key: text}))[1] == [("m.json#1", "contaminated")]
    for text in ("<user> and <assistant>", "< thought >", "<Thought>", "thought>"):
        assert only(tmp_path, memory(content=text, response=text))[1] == []


def test_an_example_whose_tags_are_not_its_modes_fails_the_check():
    def problem(asked, answered):
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        return memories.check(Example(messages, "m#1", "m", {"mode": "agent"}))

    assert problem("<instruction>: Go.", "<action>: Went.") is None
    assert problem("Go.", "<action>: Went.") == (
        "It does not begin with the tags of agent, <instruction> and <action>."
    )
    assert problem("<instruction>: Go.", "<world>: Rain.") is not None
    assert problem("<instruction>: Go.", "<action>: <user> Hm.") == "It is agent, but holds <user>."
