"""A pair of a memory in; its example, or the reject that it becomes, out."""

from typing import Any, Protocol

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.recipes.memories import choosing, cleaning, modes
from stages.recipes.memories.pairs import Pair

Record = dict[str, Any]
SHOWN = 40


class Choices(Protocol):
    """The options that shape one sample; see `Options`."""

    @property
    def mode(self) -> str: ...
    @property
    def modes(self) -> Any: ...
    @property
    def seed(self) -> int: ...
    @property
    def system(self) -> str: ...
    @property
    def max_words(self) -> int: ...
    @property
    def long_words(self) -> int: ...
    @property
    def long_share(self) -> float: ...


def refusal(record: Record) -> tuple[str, str] | None:
    """Code and reason why nothing of this memory counts."""
    if not isinstance(record.get("type"), str) or not record["type"].strip():
        return "no_type", "It has no type."
    metadata = record.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        return "wrong_type", "Its metadata are no object."
    if _set(metadata, "discard"):
        return "discarded", "Its metadata say `discard`."
    return None


def sample(
    source: str, name: str, record: Record, pair: Pair, several: bool, options: Choices
) -> Example | Reject:
    """The example of a pair of the memory `name`; `several` where it is not the only one."""
    metadata = record.get("metadata") or {}
    mode, mode_source = modes.of(record["type"], metadata, options.modes)
    if options.mode not in ("all", mode):
        return Reject(source, "other_mode", f"It is {mode}, and only {options.mode} is wanted.")
    answer = cleaning.clean(pair.answered)
    if not answer:
        return Reject(source, "filler_only", "Its answer is nothing but filler.")
    drawn = choosing.below(options.seed, "long", source, options.long_share)
    long = drawn or _set(metadata, "long_output")
    limit = options.long_words if long else options.max_words
    answer, was_cut = cleaning.cut(answer, limit)
    if foreign := modes.foreign(mode, pair.asked, answer):
        tags = " and ".join(f"<{tag}>" for tag in foreign)
        return Reject(source, "contaminated", f"It is {mode}, but holds {tags}.")
    user, assistant = modes.tagged(mode, pair.asked, answer)
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    if options.system:
        messages.insert(0, {"role": "system", "content": options.system})
    meta = {"mode": mode, "mode_source": mode_source, "source_type": record["type"]}
    meta |= {"original_id": _text(record, "id"), "timestamp": _text(record, "timestamp")}
    meta |= {"multi_turn": several or _set(metadata, "multi_turn"), "long_output": long}
    meta |= {"cut": was_cut, "max_words": limit}
    return Example(messages, source, _group(name, metadata), meta)


class Contaminated:
    """The contaminated samples met so far: the first of them, and how many."""

    def __init__(self) -> None:
        self.count = 0
        self.shown: list[str] = []

    def note(self, reject: Reject) -> None:
        if reject.code == "contaminated":
            self.count += 1
            if self.count <= SHOWN:
                self.shown.append(f"{reject.source}: {reject.reason}")

    def stop(self) -> None:
        """Refuse the dataset where there is one.

        Raises:
            TunesmithError: with the files.
        """
        if not self.count:
            return
        more = self.count - len(self.shown)
        lines = [*self.shown, *([f"and {more} more"] if more else [])]
        raise TunesmithError(
            f"{self.count} sample(s) hold tags of another mode:\n  " + "\n  ".join(lines),
            why="A model that saw the tags of two modes in one sample mixes the modes.",
            do="Mend these memories, or set `contaminated: drop`, which rejects them by name.",
        )


def _group(name: str, metadata: Record) -> str:
    """Memories of one conversation stay on one side of the split, and all turns of a memory."""
    conversation = metadata.get("conversationId")
    return f"conversation:{conversation}" if isinstance(conversation, str | int) else name


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _set(metadata: Record | None, key: str) -> bool:
    """Whether a flag is set: true, or any text such as "allowed" that does not say no."""
    value = (metadata or {}).get(key)
    if isinstance(value, str):
        return value.strip().lower() not in ("", "false", "no", "none", "0")
    return bool(value)
