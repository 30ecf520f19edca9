"""MetaHuman's episodic memories in; chats in three cognitive modes with their tags out.

Each answer in a memory becomes an example or a reject `<file>#<n>`, n the number of its message
(1 where the memory has no messages); a file that cannot be read is one reject under its name.
Reject codes of files: `encrypted`, `not_json`, `unreadable`, `broken_json`, `not_an_object`,
`nul`, `no_type`, `wrong_type`, `discarded`, `content_only`, `no_pair`, `bad_timestamp`. Of
answers: `wrong_type`, `unknown_role`, `no_question`, `unanswered`, `empty_prompt`,
`empty_answer`, `filler_only`, `contaminated`, and what the options leave out: `other_mode`,
`too_old`, `over_max`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from stages.core.example import Example, Reject
from stages.core.settings import Count, Fraction, Positive, Settings
from stages.recipes.memories import choosing, modes, pairs, reading, samples
from stages.recipes.memories.judging import METRICS, judge
from stages.recipes.memories.quality import report

__all__ = ["METRICS", "STATS", "Options", "check", "examples", "judge", "report"]

STATS = ("mode", "mode_source", "source_type", "multi_turn", "long_output", "cut")

Mode = Literal["dual", "emulation", "agent"]


class Options(Settings):
    """Whose memories, which of them, and how their answers are cleaned.

    Attributes:
        user: the folder below `source/profiles`; "" reads every file below `source` itself.
        mode: only samples of this mode, or all.
        modes: memory type -> mode. A type that is not in it takes the mode of the first key that
            it contains, and emulation where it contains none.
        max: at most so many samples, 0 for all; taken last, from those that passed the rest.
        max_choice: which: the first of the walk, or drawn by the seed.
        days_recent: only memories of so many days before the newest one of the data; 0 for all.
        old_samples: so many older memories besides, drawn by the seed; needs `days_recent`.
        seed: of all draws.
        system: system message of every chat; "" for none.
        max_words: a longer answer is cut there and ends in "...".
        long_words: the limit in place of it for `long_share` of the answers, drawn by the seed,
            and for memories whose metadata says `long_output`.
        contaminated: what happens to samples with a tag of another mode: `error` stops the stage
            and names their files, `drop` makes them rejects.
    """

    user: Annotated[str, Field(pattern=r"^[^/\\]*$")]
    mode: Literal["all", "dual", "emulation", "agent"]
    modes: dict[Annotated[str, Field(min_length=1)], Mode]
    max: Count
    max_choice: Literal["first", "random"]
    days_recent: Count
    old_samples: Count
    seed: Count
    system: str
    max_words: Positive
    long_words: Positive
    long_share: Fraction
    contaminated: Literal["error", "drop"]


def examples(source: Path, options: Options) -> Iterator[Example | Reject]:
    """Yield the examples and rejects in the order of the files, one memory held at a time.

    `days_recent`, `old_samples` and a drawn `max` each read the files once more beforehand.

    Raises:
        TunesmithError: no such folder; or, with `contaminated: error`, after the last memory,
            tags of another mode, with the files that hold them.
    """
    dates = _Dates(source, options)
    left = _Left(source, dates, options)
    found = samples.Contaminated()
    for item in _all(source, dates, options):
        if isinstance(item, Reject):
            found.note(item)
            yield item
        else:
            yield left.taken(item)
    if options.contaminated == "error":
        found.stop()


def check(example: Example) -> str | None:
    """Why the tags of this example are not those of its mode, or None."""
    asked, answered = (message["content"] for message in example.messages[-2:])
    mode = example.meta["mode"]
    own = modes.TAGS[mode]
    if not (asked.startswith(f"<{own[0]}>: ") and answered.startswith(f"<{own[1]}>: ")):
        return f"It does not begin with the tags of {mode}, <{own[0]}> and <{own[1]}>."
    foreign = modes.foreign(mode, asked, answered)
    return f"It is {mode}, but holds <{foreign[0]}>." if foreign else None


class _Dates:
    """Which memories count by their dates."""

    def __init__(self, source: Path, options: Options) -> None:
        self.options, self.first, self.limit = options, None, -1
        if not options.days_recent:
            return
        newest = choosing.newest(choosing.moment(r) for _, r in _records(source, options))
        if newest is None:
            return
        self.first = newest - options.days_recent * choosing.DAY
        old = (name for name, record in _records(source, options) if self._is_drawn_from(record))
        drawn = (choosing.number(options.seed, "old", name) for name in old)
        self.limit = choosing.limit(drawn, options.old_samples)

    def _is_old(self, record: reading.Record) -> bool:
        moment = choosing.moment(record)
        return moment is not None and self.first is not None and moment < self.first

    def _is_drawn_from(self, record: reading.Record) -> bool:
        """Whether it is old and gives a sample: a draw is not wasted on what is rejected anyway."""
        usable = any(isinstance(part, pairs.Pair) for part in pairs.of(record))
        return usable and self._is_old(record) and samples.refusal(record) is None

    def refusal(self, name: str, record: reading.Record) -> tuple[str, str] | None:
        """Code and reason why the memory does not count."""
        if not self.options.days_recent:
            return None
        if choosing.moment(record) is None:
            return "bad_timestamp", f"Its timestamp {record.get('timestamp')!r} is no date."
        old = self._is_old(record)
        if not old or choosing.number(self.options.seed, "old", name) <= self.limit:
            return None
        days = self.options.days_recent
        return "too_old", f"It is more than {days} days older than the newest memory."


class _Left:
    """How many samples may still be taken."""

    def __init__(self, source: Path, dates: _Dates, options: Options) -> None:
        self.options, self.count, self.limit = options, 0, -1
        if options.max and options.max_choice == "random":
            found = (one for one in _all(source, dates, options) if isinstance(one, Example))
            self.limit = choosing.limit((self._number(one) for one in found), options.max)

    def _number(self, example: Example) -> int:
        return choosing.number(self.options.seed, "max", example.source)

    def taken(self, example: Example) -> Example | Reject:
        """The example, or its reject where `max` leaves it out."""
        self.count += 1
        most = self.options.max
        first = self.options.max_choice == "first"
        if not most or (self.count <= most if first else self._number(example) <= self.limit):
            return example
        return Reject(example.source, "over_max", f"`max` takes {most} others.")


def _records(source: Path, options: Options) -> Iterator[tuple[str, reading.Record]]:
    walked = reading.walk(source, options.user)
    return ((name, found) for name, found in walked if not isinstance(found, Reject))


def _all(source: Path, dates: _Dates, options: Options) -> Iterator[Example | Reject]:
    """Every answer as an example or a reject, `max` not yet applied."""
    for name, record in reading.walk(source, options.user):
        if isinstance(record, Reject):
            yield record
        else:
            yield from _memory(name, record, dates, options)


def _memory(name: str, record: Any, dates: _Dates, options: Options) -> Iterator[Example | Reject]:
    refused = samples.refusal(record)
    if refused:
        yield Reject(name, *refused)
        return
    found = list(pairs.of(record))
    several = sum(isinstance(part, pairs.Pair) for part in found) > 1
    refused = dates.refusal(name, record)
    for part in found:
        source = f"{name}#{part.number}" if part.number else name
        if isinstance(part, pairs.Problem):
            yield Reject(source, part.code, part.reason)
        elif refused:
            yield Reject(source, *refused)
        else:
            yield samples.sample(source, name, record, part, several, options)
