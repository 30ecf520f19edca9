"""--on and places.yaml in; the machines on which points are built, and how many on each, out."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.commands.run import declared, records
from stages.commands.run.declared import Place
from stages.commands.run.records import Record
from stages.commands.sweep.store import Point, Sweep
from stages.core import files
from stages.core.errors import TunesmithError

HERE = "here"  # this machine, beside the places of places.yaml
NOT_NAMED = "--on does not name it"


@dataclass(slots=True)
class Seat:
    """A machine for points.

    Attributes:
        name: of places.yaml, or HERE.
        at_once: how many points it takes.
        place: None for this machine.
        lost: why it gets no more points.
    """

    name: str
    at_once: int
    place: Place | None = None
    lost: str = ""


def local(at_once: int) -> list[Seat]:
    """This machine alone."""
    return [Seat(HERE, at_once)]


def named(on: str, at_once: int) -> list[Seat]:
    """The machines that were typed behind --on.

    Args:
        on: names with commas between them.
        at_once: points on this machine; 0: nothing was typed.

    Raises:
        TunesmithError: no name; one that is none, or twice; --at-once without this machine.
    """
    names = [name.strip() for name in on.split(",") if name.strip()]
    if not names:
        raise TunesmithError(
            "No place was named.", where=f"--on {on}", do=f"--on PLACE,PLACE; {HERE}: this machine"
        )
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise TunesmithError(
            f"{twice} is named twice.",
            where=f"--on {on}",
            do=f"Name it once; how many points it takes is its at_once in {declared.FILE}",
        )
    if HERE in declared.names():
        raise TunesmithError(
            f"A place is called {HERE!r}.",
            where=f"{declared.path()}: {HERE}",
            why=f"--on {HERE} is this machine.",
            do="Give the place another name.",
        )
    if at_once and HERE not in names:
        raise TunesmithError(
            "--at-once is about this machine, which --on does not name.",
            where=f"--on {on} --at-once {at_once}",
            do=f"--on {HERE},{on}    or set at_once of a place in {declared.FILE}",
        )
    places = [declared.place(name) for name in names if name != HERE]
    _require_together(places)
    seats = [Seat(place.name, place.options.at_once, place) for place in places]
    return seats + [Seat(HERE, at_once or 1)] * (HERE in names)


def _require_together(places: Sequence[Place]) -> None:
    """Refuse places that cannot take part in one sweep."""
    if by_hand := [one.name for one in places if getattr(one.plugin, "BY_HAND", False)]:
        raise TunesmithError(
            f"A job on {by_hand[0]} is begun by hand.",
            where=f"{declared.FILE}: {by_hand[0]}.kind",
            why="A sweep begins its points by itself, one after the other.",
            do=f"Leave it out; or run a point there: tunesmith run STAGE --on {by_hand[0]}",
        )
    if others := [one.name for one in places if one.options.remote != places[0].options.remote]:
        raise TunesmithError(
            f"{places[0].name} and {others[0]} have different remotes.",
            where=f"{declared.FILE}: {others[0]}.remote",
            why="What one place makes the others take from the remote.",
            do="Give both the same.",
        )


def remote(seats: Sequence[Seat]) -> str:
    """The DVC remote in which machines meet; empty: the default one."""
    return next((seat.place.options.remote for seat in seats if seat.place), "")


def under_way(sweep: Sweep, pending: Sequence[Point]) -> dict[str, Record]:
    """The points that an earlier try has begun elsewhere, and whose end nobody has seen."""
    found = {}
    for point in pending:
        path = sweep.note(point)
        record = records.load(files.read_json(path)["job"]) if path.is_file() else None
        if record is not None and record.state in records.OPEN:
            found[point.name] = record
    return found


def require_free(seats: Sequence[Seat], own: Sequence[Record]) -> None:
    """Take off what other jobs of this checkout take of a place.

    Raises:
        TunesmithError: nothing is left of it.
    """
    ours = {record.job.id for record in own}
    every = [one for one in records.every() if one.state in records.OPEN and one.job.id not in ours]
    for seat in seats:
        others = [one.job.id for one in every if seat.place and one.job.place == seat.name]
        if len(others) >= seat.at_once:
            raise TunesmithError(
                f"{seat.name} is at work: {', '.join(others)}.",
                where=f"{declared.FILE}: {seat.name}.at_once",
                why=f"It takes {seat.at_once} at a time.",
                do=f"tunesmith run --attach {others[0]}    or --stop; or leave {seat.name} out",
            )
        seat.at_once -= len(others)
