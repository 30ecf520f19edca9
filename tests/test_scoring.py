"""Every assistant turn of a test row is a prompt of its own, judged by the turn that was due."""

from stages.core import scoring
from stages.core.example import Example
from stages.core.tokens import IGNORED, Row


def chat(*roles: str) -> Example:
    messages = [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(roles)]
    return Example(messages, "a.jsonl#1", "a", {"k": 1})


def row(example: Example, trained: str) -> Row:
    """A row whose n-th token is n, trained where `trained` has an x."""
    ids = list(range(len(trained)))
    labels = [n if mark == "x" else IGNORED for n, mark in zip(ids, trained, strict=True)]
    return Row(ids, labels, trained.rindex(".x") + 1, example.source, example)


def test_each_turn_is_prompted_by_all_that_stands_before_it():
    whole = row(chat("user", "assistant", "tool", "assistant"), "...xx....xxx.")

    first, last = scoring.turns(whole)

    assert (first.ids, first.prompt_length) == ([0, 1, 2, 3, 4], 3)
    assert (last.ids, last.prompt_length) == (list(range(12)), 9)
    assert [len(turn.example.messages) for turn in (first, last)] == [2, 4]
    assert first.example.meta == whole.example.meta


def test_only_the_labels_of_the_turn_itself_are_kept():
    _, last = scoring.turns(row(chat("user", "assistant", "user", "assistant"), "..xx..xx"))

    assert last.labels == [IGNORED] * 6 + [6, 7]


def test_a_turn_that_two_rows_share_is_asked_once(monkeypatch, tmp_path):
    rows = [
        row(chat("user", "assistant", "user", "assistant"), "..xx..xx"),
        row(chat("user", "assistant", "user", "assistant"), "..xx.xxx"),
    ]
    monkeypatch.setattr(scoring.files, "require_complete", lambda folder, _: folder)
    monkeypatch.setattr(scoring.tokens, "read_split", lambda folder, split: iter(rows))

    assert [turn.prompt_length for turn in scoring.test_rows(tmp_path, 0)] == [2, 6, 5]
    assert [turn.prompt_length for turn in scoring.test_rows(tmp_path, 2)] == [2, 6]
