"""Examples in, train, valid and test out, with no group and no prompt on two sides."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from stages.core.errors import TunesmithError
from stages.core.example import Example, dumps

NAMES = ("train", "valid", "test")


def prompt(row: Example) -> str:
    """What the model is shown before its last answer, system message left out, folded."""
    shown = [message for message in row.messages[:-1] if message.get("role") != "system"]
    facts = [[m.get("role"), _folded(m.get("content") or ""), m.get("tool_calls")] for m in shown]
    return dumps(facts).decode().casefold()


def _folded(text: str) -> str:
    return " ".join(text.split())


def is_probe(row: Example) -> bool:
    """Whether the row is only ever asked (`meta["probe"]` is true), never trained on."""
    return row.meta.get("probe") is True


def assign(rows: Sequence[Example], seed: int, valid: float, test: float) -> list[str]:
    """The split of each row.

    Groups that share a prompt are joined first, so that neither is cut. A group with a probe in
    it goes to test; the fractions are of the other rows. Their joined groups are put in an order
    made of the seed and their name (SHA-256); test takes each group that brings it nearer to its
    fraction, then valid, and train keeps the rest.

    Raises:
        TunesmithError: too few groups to give every wanted split a row.
    """
    joined = _joined_groups(rows)
    probes = {name for name, row in zip(joined, rows, strict=True) if is_probe(row)}
    sizes = Counter(name for name in joined if name not in probes)
    free = sizes.total()
    side = _fill(sizes, seed, {"test": test * free, "valid": valid * free})
    wanted = {"train", *(n for n, share in (("valid", valid), ("test", test)) if share)}
    missing = wanted - set(side.values())
    if missing:
        beside = f" beside {len(rows) - free} in groups with a probe" if probes else ""
        raise TunesmithError(
            f"{free} examples in {len(sizes)} groups{beside} leave nothing for "
            f"{', '.join(sorted(missing))}.",
            why="A group (one match, one conversation, one prompt) is never cut between splits.",
            do="Bring more groups, or make the fractions in `split` smaller.",
        )
    return [side.get(name, "test") for name in joined]


def leaks(rows: Sequence[Example], sides: Sequence[str]) -> dict[str, int]:
    """Rows outside train whose prompt, group or whole text also stands in another split."""
    found = {}
    for name, text in (
        ("prompt", prompt),
        ("group", lambda row: row.group),
        ("example", lambda row: dumps(row.messages).decode()),
    ):
        owner: dict[str, str] = {}
        for row, side in zip(rows, sides, strict=True):
            if side == "train":
                owner[text(row)] = side
        count = 0
        for row, side in zip(rows, sides, strict=True):
            if side != "train" and owner.setdefault(text(row), side) != side:
                count += 1
        found[name] = count
    return found


def refuse_leaks(rows: Sequence[Example], sides: Sequence[str], key: str) -> None:
    """Stop when anything stands on both sides of a split.

    Raises:
        TunesmithError: with the counts.
    """
    found = leaks(rows, sides)
    if any(found.values()):
        raise TunesmithError(
            f"The splits share {', '.join(f'{n} × {name}' for name, n in found.items() if n)}.",
            where=key,
            why="A test row that was trained on measures memory, not skill.",
            do="Give rows that belong together one `group` in the recipe.",
        )


def _joined_groups(rows: Sequence[Example]) -> list[str]:
    """Each row's group after joining groups that share a prompt (union-find, first name wins)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first_with: dict[str, str] = {}
    for row in rows:
        other = first_with.setdefault(prompt(row), row.group)
        parent[root(row.group)] = root(other)
    return [root(row.group) for row in rows]


def _fill(sizes: Mapping[str, int], seed: int, wanted: dict[str, float]) -> dict[str, str]:
    """Group -> split, filling the wanted splits in turn with whole groups."""
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    side = dict.fromkeys(order, "train")
    for split, rows in wanted.items():
        free = [name for name in order if side[name] == "train"]
        for name in _nearest_fill(free, sizes, rows)[: len(free) - 1]:  # one is left to train
            side[name] = split
    return side


def _nearest_fill(free: list[str], sizes: Mapping[str, int], rows: float) -> list[str]:
    """The groups, in order, of which each brings the sum nearer to `rows`; else the smallest."""
    taken, left = [], rows
    for name in free:
        if sizes[name] < 2 * left:
            taken.append(name)
            left -= sizes[name]
    return taken or ([min(free, key=lambda name: sizes[name])] if rows else [])
