"""A sweep's outcomes in; one table out: on the screen, as TSV and as Markdown."""

from collections.abc import Sequence

from stages.commands.experiments import screen
from stages.commands.sweep import store
from stages.commands.sweep.store import Outcome, Point, Sweep
from stages.core import files


def rows(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row a point: experiment, values, state, metrics, place, seconds, reason."""
    ended = [(each, store.outcome(sweep, each)) for each in sweep.points]
    names = screen.short(sweep.keys)
    metrics = list(dict.fromkeys(m for _, one in ended if one for m in one.metrics))
    places = ["place"] if any(one and one.place for _, one in ended) else []
    head = ["experiment", *names.values(), "state", *metrics, *places, "seconds", "reason"]
    return head, [_row(each, one, metrics, len(places)) for each, one in ended]


def _row(of: Point, one: Outcome | None, metrics: Sequence[str], places: int) -> list[str]:
    values = [screen.value(value) for value in of.values.values()]
    if one is None:
        return [of.name, *values, "not run", *[""] * (len(metrics) + places + 2)]
    numbers = [screen.number(one.metrics.get(name)) for name in metrics]
    where = f"{one.stage}: " if one.stage else ""
    reason = f"{where}{one.reason}" if one.reason else ""
    place = [one.place] * places
    return [of.name, *values, one.state, *numbers, *place, f"{one.seconds:.1f}", reason]


def write(sweep: Sweep) -> None:
    """Write table.tsv and table.md into the sweep's folder."""
    head, found = rows(sweep)
    clean = [[screen.line(cell) for cell in row] for row in [head, *found]]
    with files.file(sweep.folder / "table.tsv") as work:
        work.write_text("".join("\t".join(row) + "\n" for row in clean), encoding="utf-8")
    with files.file(sweep.folder / "table.md") as work:
        work.write_text(markdown(clean), encoding="utf-8")


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its heading."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in table)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
