"""What a job says arrives once, whole and in order, whatever the remote does meanwhile."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.commands.remote.store import Store
from stages.commands.run import following, mailbox
from stages.commands.run.mailbox import Mailbox
from stages.commands.run.there import post
from stages.commands.run.there.post import Post
from stages.core import jobs, live
from stages.core.errors import TunesmithError
from stages.core.jobs import Job

SOON = 20.0  # seconds until what never comes has failed
OK, REFUSED, LOST, AWAY = "ok", "refused", "its answer is lost", "cannot be listed"
RESULT = {"code": 0, "lock": {"train@a": {"cmd": "x"}}, "runs": [], "reason": ""}


class Flaky(Store):
    """A folder in which each letter meets what comes next of `weather`; then all is well."""

    weather: Iterator[str] = iter(())
    puts = 0

    def __init__(self, name: str, config: Any) -> None:
        super().__init__(name, config)
        put = self.fs.put_file

        def put_file(*words: Any, **more: Any) -> None:
            Flaky.puts += 1
            now = next(Flaky.weather, OK)
            if now == REFUSED:
                raise ConnectionResetError("the connection broke before")
            put(*words, **more)
            if now == LOST:
                raise ConnectionResetError("the connection broke behind")

        self.fs.put_file = put_file


def job(**changes: Any) -> Job:
    facts: dict[str, Any] = {
        "id": "train-a-12345678", "attempt": 1, "place": "box", "targets": ["train@a"],
        "needed": ["train@a"], "baseline": "0" * 40, "snapshot": "0" * 40, "prefix": "",
        "project": "p", "git": "", "remote": {"name": "r", "url": "u"}, "secrets": [],
        "env_file": "", "settings": {}, "setup": [], "python": "python3", "folder": "~/jobs",
        "hours": 0.0, "processes": 1, "nodes": 1, "shard": "none", "checkpoints": True,
    }  # fmt: skip
    return Job(**facts | changes)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    """The other end of the mailbox; posts write into it without waiting."""
    (tmp_path / "remote").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    config = {"remote": {"r": {"url": str(tmp_path / "remote")}}}
    monkeypatch.setattr(post.settings, "load", lambda: config)
    monkeypatch.setattr(post, "Store", Flaky)
    monkeypatch.setattr(Flaky, "weather", iter(()))
    monkeypatch.setattr(Flaky, "puts", 0)
    for name in ("QUICK", "SLOW", "AGAIN"):
        monkeypatch.setattr(post, name, 0.002)
    return Mailbox(Store("r", config), "train-a-12345678", 1)


def letters(box: Mailbox, node: int = 0) -> list[dict[str, Any]]:
    found = list(box.read(node, 0))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return [letter for _, letter in found]


def log(box: Mailbox) -> list[str]:
    return [line for letter in letters(box) for line in letter.get("log", ())]


def until(state: Callable[[], object]) -> None:
    """Wait for a state of the post's thread."""
    tick = threading.Event()
    for _ in range(int(SOON / 0.002)):
        if state():
            return
        tick.wait(0.002)
    raise AssertionError("it never came to that")


@pytest.mark.parametrize(
    "weather",
    [
        [OK],
        [REFUSED, OK],
        [LOST, OK],
        [LOST, LOST, REFUSED, LOST, OK, REFUSED, REFUSED, OK, LOST],
    ],
    ids=["well", "refused", "lost", "all of it"],
)
def test_every_line_arrives_once_and_in_order(weather: list[str], box: Mailbox) -> None:
    Flaky.weather = iter(weather * 6)
    own = Post(job(), 0)
    own.begin()
    said = [f"line {number}" for number in range(60)]
    for number, line in enumerate(said):
        own.say(line)
        if number % 10 == 0:
            until(lambda now=Flaky.puts: Flaky.puts > now)
    assert own.close(RESULT)
    assert log(box) == said
    assert [letter["result"] for letter in letters(box) if "result" in letter] == [RESULT]
    assert letters(box)[-1]["result"] == RESULT
    assert "begun" in letters(box)[0]


def test_a_result_whose_answer_was_lost_is_there_once(box: Mailbox) -> None:
    Flaky.weather = iter([LOST, LOST, LOST])
    own = Post(job(), 0)
    own.say("error: a secret is missing")  # refused before it began
    assert own.close(RESULT)
    (only,) = letters(box)
    assert only["result"] == RESULT
    assert log(box) == ["error: a secret is missing"]
    assert Flaky.puts == 4


def test_a_letter_that_was_written_is_never_another_one_later(box: Mailbox) -> None:
    """Else who has read it in between would miss what is in the second one, or have it twice."""
    Flaky.weather = iter([LOST, REFUSED, REFUSED, OK])
    own = Post(job(), 0)
    own.begin()
    own.say("first")
    until(lambda: Flaky.puts)
    until(lambda: letters(box))
    read = letters(box)[0]
    own.say("second")
    assert own.close(RESULT)
    assert letters(box)[0] == read


def test_another_try_of_an_attempt_goes_on_behind_the_letters_of_the_first(box: Mailbox) -> None:
    first = Post(job(), 0)
    first.say("of the first try")
    assert first.close({"code": 2, "reason": "its machine was taken away"})
    known = len(letters(box))

    second = Post(job(), 0)
    second.say("of the second try")
    assert second.close(RESULT)

    assert log(box) == ["of the first try", "of the second try"]
    assert len(letters(box)) > known
    assert letters(box)[-1]["result"] == RESULT
    other = Post(job(), 10)  # whose number begins like that of machine 1, and is not it
    assert other.close(RESULT)
    assert box.last(1) == 0
    assert box.last(10) == 1


def test_a_note_that_asks_for_the_end_is_heard_though_nothing_can_be_written(box: Mailbox) -> None:
    box.stop()
    Flaky.weather = iter([REFUSED] * 3)
    own = Post(job(), 0)
    own.begin()
    assert own.ended.wait(SOON)
    assert own.reason == "somebody asked for its end"
    assert own.close(RESULT)


def test_a_quiet_job_hears_the_note_too(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "BEAT", 0.01)
    own = Post(job(), 0)
    own.begin()
    until(lambda: len(letters(box)) > 2)  # it says that it is there
    assert not own.ended.is_set()
    box.stop()
    assert own.ended.wait(SOON)
    assert own.close(RESULT)


def test_the_limit_of_hours_ends_a_job_while_the_remote_is_away(box: Mailbox) -> None:
    Flaky.weather = iter([REFUSED] * 5)
    own = Post(job(hours=0.02 / 3600), 0)
    own.begin()
    assert own.ended.wait(SOON)
    assert own.reason.startswith("the limit of ")
    own.end("something later")
    assert own.reason.startswith("the limit of ")
    assert own.close(RESULT)


def test_a_remote_that_comes_back_while_a_job_closes_gets_all_of_it(box: Mailbox) -> None:
    own = Post(job(), 0)
    own.begin()
    until(lambda: Flaky.puts)
    Flaky.weather = iter([REFUSED, LOST] * 4)
    own.say("the last line")
    assert own.close(RESULT)
    assert log(box) == ["the last line"]
    assert letters(box)[-1]["result"] == RESULT


def test_a_remote_that_never_comes_back_is_waited_for_only_so_long(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "PATIENCE", 0.02)
    Flaky.weather = iter(lambda: REFUSED, OK)
    own = Post(job(), 0)
    own.begin()
    assert not own.close(RESULT)
    assert letters(box) == []


def test_curves_are_the_same_at_the_other_end_whatever_fails(
    box: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.folder().mkdir(parents=True)
    series, lines = live.folder() / "work.0-a.tsv", ["step\tloss\n"]
    lines += [f"{step}\t{1 / step!r}\n" for step in range(1, 40)]
    Flaky.weather = iter([OK, LOST, REFUSED] * 20)
    own = Post(job(), 0)
    own.begin()
    for number, line in enumerate(lines):
        with series.open("a") as file:
            file.write(line)
        own.say(f"step {number}")
    until(lambda: len(log(box)) == len(lines))
    own.say("now all of it is there")
    until(lambda: len(log(box)) > len(lines))
    known = len(letters(box))
    series.unlink()  # the training has ended
    assert own.close(RESULT)

    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "here"))
    drawn = live.folder() / series.name
    for number, letter in enumerate(letters(box), 1):
        for name, part in letter.get("series", {}).items():
            following.draw(name, part["from"], part["text"])
        if number == known:
            assert drawn.read_text() == "".join(lines)
    assert not drawn.exists()


@pytest.mark.skipif(not mailbox.MEMORY.is_dir(), reason="this system has no files in memory")
def test_a_disk_that_is_full_there_does_not_keep_the_result(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", "/proc/nothing/can/be/written")
    monkeypatch.setattr("builtins.print", full)
    monkeypatch.setattr(post, "PATIENCE", 0.02)
    own = Post(job(), 0)
    own.begin()
    own.say("ERROR: No space left on device")
    assert own.close(RESULT)
    assert log(box) == ["ERROR: No space left on device"]
    assert letters(box)[-1]["result"] == RESULT


def test_a_locale_that_lacks_a_letter_does_not_end_a_job(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (Path.cwd() / "said").open("w", encoding="latin-1") as narrow:
        monkeypatch.setattr("sys.stdout", narrow)
        own = Post(job(), 0)
        own.say("50 % ━━━")
        assert own.close(RESULT)
    assert log(box) == ["50 % ━━━"]


@pytest.mark.parametrize(
    ("failure", "barred"),
    [
        (FileNotFoundError(2, "No such file or directory", "/nowhere/key"), True),
        (PermissionError(13, "Permission denied"), True),
        (ConnectionResetError("the connection broke"), False),
    ],
)
def test_a_remote_that_refuses_ends_a_job_at_once_and_a_lost_wire_does_not(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch, failure: OSError, barred: bool
) -> None:
    def fails(*_: Any, **more: Any) -> Any:
        raise failure

    one = Post(job(), 0)
    monkeypatch.setattr(one.store.fs, "put_file", fails)
    if not barred:
        one.reach()
        return
    with pytest.raises(TunesmithError, match="The remote cannot be used from this machine") as told:
        one.reach()
    assert "box.remote_options" in told.value.where


def test_a_job_that_has_sent_nothing_yet_is_heard_by_what_it_prints(box: Mailbox) -> None:
    shown: list[str] = []
    place = SimpleNamespace(
        plugin=SimpleNamespace(
            state=lambda *_: jobs.RUNNING, said=lambda *_: "> pip install\nno space left\n"
        ),
        options=None,
    )
    record = SimpleNamespace(job=job(), place=place, stage="")
    follower = following.Follower(record, shown.append)  # type: ignore[arg-type] # all it reads

    assert follower.ask(box) is None
    assert follower.ask(box) is None
    assert shown == ["  no letter yet; there: no space left"]
