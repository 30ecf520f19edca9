"""Points and machines in; points are built side by side, each one's progress and end noted.

A result that several points have in common is made by one of them, and the others wait for it. What
is made elsewhere is there for others when its job has ended, so a point that keeps a free machine
waiting begins with a job for what they have in common. A point whose place is lost goes back to
those that wait; the place gets no more.
"""

import os
import queue
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType

from stages.commands.experiments import screen
from stages.commands.run import points
from stages.commands.sweep import dividing, places, point, store
from stages.commands.sweep.seats import HERE, NOT_NAMED, Seat
from stages.commands.sweep.store import FAILED, Outcome, Point, Sweep
from stages.core.errors import TunesmithError

Event = str | Future[Outcome]  # a line that a point printed, or its end
SIGNAL = ""  # the name under which a signal stands among the events of points
MOST = 3  # places that are lost with one point before it is thought to be the reason
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):  # noqa: N818 (no error: the user asked for it)
    """The sweep was asked to end."""


class NoPlace(Exception):  # noqa: N818 (points are left, to be gone on with)
    """Every place is lost."""


@dataclass(slots=True)
class Running:
    """A point under way: where, its slot there, what only it may make now, and its stage."""

    point: Point
    seat: Seat
    slot: int
    holds: set[str]
    stage: str = ""
    child: subprocess.Popen[str] | None = None


@dataclass(slots=True)
class Crew:
    """The points of a sweep under way.

    Attributes:
        seats: the machines.
        say: prints a line.
        made: results that every machine can have, as `result` calls them.
        bound: points that are under way elsewhere already, each with the name of its place.
        push_to: the git remote of experiments.
        remote: of DVC, in which the machines meet; empty: the default one.
        waiting: points that have not begun.
        lost: the places that were lost with a point.
        events: what the running points do, and signals.
    """

    sweep: Sweep
    seats: list[Seat]
    say: Callable[[str], None]
    made: set[str] = field(default_factory=set)
    bound: dict[str, str] = field(default_factory=dict)
    push_to: str = ""
    remote: str = ""
    waiting: list[Point] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)
    events: "queue.SimpleQueue[tuple[str, Event]]" = field(default_factory=queue.SimpleQueue)
    stopping: bool = False
    alone: bool = True  # this machine is all there is

    def work(self, pending: Sequence[Point]) -> None:
        """Build all points that are pending.

        Raises:
            Stopped: by a signal; the points under way have been ended here first.
            NoPlace: points are left, and no machine for them.
        """
        self.waiting = list(pending)
        self.alone = [seat.name for seat in self.seats] == [HERE] and not self.bound
        slots = sum(seat.at_once for seat in self.seats) + len(self.bound)
        with ThreadPoolExecutor(min(slots, len(pending))) as pool, self.signals():
            try:
                while self.waiting or self.running:
                    while (ready := self.next()) is not None:
                        self.waiting.remove(ready[0])
                        self.start(*ready, pool)
                    if not self.running:
                        raise NoPlace
                    self.take()
            except BaseException:
                self.stop()
                raise

    def next(self) -> tuple[Point, Seat] | None:
        """The first point that may begin, and where: it needs nothing that another is making."""
        if again := next((p for p in self.waiting if p.name in self.bound), None):
            return again, self.seat(self.bound.pop(again.name))
        held = set[str]().union(*(one.holds for one in self.running.values()))
        ready = next((p for p in self.waiting if not self.shared(p) & held), None)
        free = [seat for seat in self.seats if self.free(seat) > 0]
        if ready is None or not free:
            return None
        return ready, max(free, key=lambda seat: (self.free(seat), -self.seats.index(seat)))

    def seat(self, name: str) -> Seat:
        """The machine of a name; one that was not named gets no other points."""
        known = next((seat for seat in self.seats if seat.name == name), None)
        if known is None:
            known = Seat(name, 0, lost=NOT_NAMED)
            self.seats.append(known)
        return known

    def free(self, seat: Seat) -> int:
        """How many points more a machine takes."""
        at_work = sum(one.seat is seat for one in self.running.values())
        return 0 if seat.lost else seat.at_once - at_work

    def shared(self, of: Point) -> set[str]:
        """The results that a point needs and that are not made yet."""
        return {found for a in self.sweep.needed if (found := self.result(of, a))} - self.made

    def result(self, of: Point, address: str) -> str:
        """A stage's result, the same text for points that have it in common."""
        return places.sharing(address, self.sweep.affected[address], of.values)

    def ahead(self, ready: Point, holds: set[str]) -> list[str]:
        """What a point is to make first, since a machine is free for others that wait for it."""
        free = sum(self.free(seat) for seat in self.seats)
        common = [both for p in self.waiting if (both := self.shared(p) & holds)][:free]
        first = min(common, key=len, default=set())
        return [a for a in self.sweep.needed if self.result(ready, a) in first]

    def start(self, ready: Point, seat: Seat, pool: ThreadPoolExecutor) -> None:
        """Begin a point in a thread of its own."""
        taken = {one.slot for one in self.running.values() if one.seat is seat}
        slot = next(n for n in range(len(taken) + 1) if n not in taken)
        one = self.running[ready.name] = Running(ready, seat, slot, self.shared(ready))
        at_work = seat.name == HERE
        ahead = [] if at_work else self.ahead(ready, one.holds)
        env = dividing.environment(seat.at_once, slot) if at_work else {}
        where = "" if self.alone else f" {'here' if at_work else f'on {seat.name}'}"
        self.say(f"{label(self.sweep, ready)}: begins{where}")

        def started(child: subprocess.Popen[str]) -> None:
            one.child = child
            if self.stopping:
                end(child, signal.SIGINT)

        def said(line: str) -> None:
            self.events.put((ready.name, line))

        how = point.Build(seat, env, ahead, self.push_to, self.remote, self.alone)
        future: Future[Outcome] = pool.submit(point.run, self.sweep, ready, how, said, started)
        future.add_done_callback(lambda ended: self.events.put((ready.name, ended)))

    def take(self) -> None:
        """Wait for the next thing that a point does, and heed it."""
        name, event = self.events.get()
        if name == SIGNAL:
            raise Stopped
        one = self.running[name]
        if isinstance(event, str):
            self.heed(one, event)
            return
        del self.running[name]
        outcome = self.again(one, ended(event))
        if outcome is None:
            return
        store.note(self.sweep, one.point, outcome)
        if outcome.state in store.ENDED:
            self.made |= one.holds
        total = len(self.sweep.points)
        done = sum(store.outcome(self.sweep, each) is not None for each in self.sweep.points)
        where = f" at {outcome.stage}" if outcome.stage else ""
        more = f"{where}: {outcome.reason}" if outcome.reason else ""
        spent = f"{outcome.seconds:,.0f} s"
        self.say(f"{label(self.sweep, one.point)}: {outcome.state}{more}, {spent}; {done}/{total}")

    def again(self, one: Running, outcome: Outcome) -> Outcome | None:
        """The outcome; None where the point waits for another place, since this one is lost.

        A point that was lost with MOST places may be the reason, and has failed.
        """
        if outcome.state != store.LOST:
            return outcome
        one.seat.lost = one.seat.lost or outcome.reason
        self.say(f"{label(self.sweep, one.point)}: lost; {outcome.reason}")
        before = self.lost.setdefault(one.point.name, [])
        before.append(one.seat.name)
        if len(before) < MOST:
            self.say(f"  {one.seat.name} gets no more points; this one waits for another place")
            self.waiting.insert(0, one.point)
            return None
        self.say(f"  {one.seat.name} gets no more points, and this one is not tried again")
        return replace(outcome, state=FAILED, reason=f"lost with {', '.join(before)}")

    def heed(self, one: Running, line: str) -> None:
        """Follow a point by what is printed: a stage is in the cache when the next is named."""
        if line.startswith(points.SHARED):
            for address in line.removeprefix(points.SHARED).split():
                self.pass_on(one, address)
        found = point.STAGE.search(line)
        if not found or found[1] not in self.sweep.affected:
            return
        address, here = found[1], one.seat.name == HERE
        if one.stage and one.stage != address and here:
            self.pass_on(one, one.stage)
        one.stage = address
        if "didn't change" in line:
            if here:
                self.pass_on(one, address)
        elif line.startswith("Running stage"):
            at = f"{self.sweep.needed.index(address) + 1}/{len(self.sweep.needed)}"
            self.say(f"{label(self.sweep, one.point)}: {address} ({at})")

    def pass_on(self, one: Running, address: str) -> None:
        """Let others begin that waited for a result."""
        result = self.result(one.point, address)
        one.holds.discard(result)
        self.made.add(result)

    def stop(self) -> None:
        """End the points under way, gently; a second signal ends them at once."""
        self.stopping = True
        how = signal.SIGINT
        while self.running:
            for one in self.running.values():
                if one.child is not None:
                    end(one.child, how)
            name, event = self.events.get()
            while isinstance(event, str) and name != SIGNAL:
                name, event = self.events.get()
            if name == SIGNAL:
                how = signal.SIGKILL
            else:
                del self.running[name]

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Take signals that ask for the end as events, inside."""

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            self.events.put((SIGNAL, ""))

        heard = [n for n in ENDS if (n, signal.getsignal(n)) != (signal.SIGHUP, signal.SIG_IGN)]
        before = {number: signal.signal(number, stop) for number in heard}  # nohup ignores one
        try:
            yield
        finally:
            for number, how in before.items():
                signal.signal(number, how)


def ended(future: "Future[Outcome]") -> Outcome:
    """How a point ended; what was refused while it began or ended is its reason."""
    try:
        return future.result()
    except TunesmithError as refused:
        return Outcome(FAILED, refused.what)
    except OSError as failure:  # such as a full disk
        return Outcome(FAILED, str(failure))


def end(child: subprocess.Popen[str], how: signal.Signals) -> None:
    """Send a signal to a process and all that it has started; nothing where it is gone."""
    if child.poll() is None:
        try:
            os.killpg(child.pid, how)
        except ProcessLookupError:
            return


def label(sweep: Sweep, of: Point) -> str:
    """A point as progress names it: its number and values."""
    names = screen.short(sweep.keys)
    values = " ".join(f"{names[key]}={screen.value(value)}" for key, value in of.values.items())
    return f"[{of.name.rpartition('-')[2]}] {values}"
