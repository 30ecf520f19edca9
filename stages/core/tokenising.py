"""Chat files and a base in; a folder of checked tokens and their statistics out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from stages.core import example, files, template, tokens
from stages.core.encoding import Encoder
from stages.core.errors import TunesmithError
from stages.core.masking import Fault, Marked, mark, mark_pairs
from stages.core.progress import Progress
from stages.core.template import CLOCK, ChatTemplate
from stages.core.token_stats import Tally, view

# Rows in memory at a time: enough for one call of the tokenizer to be worth its while.
BATCH = 512
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Rules:
    """What `write` must know of the settings.

    Attributes:
        max_length: tokens a row may have.
        drop: leave longer rows out, named in dropped.jsonl, instead of refusing them all.
        by: meta keys whose rows and tokens are counted.
        pairs: every row must be a preference pair (method dpo); else none may be.
    """

    max_length: int
    drop: bool
    by: tuple[str, ...]
    pairs: bool = False


@dataclass(slots=True)
class _Faults:
    """The first faults and the count of each kind."""

    first: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, fault: Fault) -> None:
        self.counts[fault.code] += 1
        if len(self.first) < SHOWN:
            self.first.append(fault)


def write(chat: Path, base: Path, out: Path, rules: Rules) -> dict[str, Any]:
    """Tokenise and check every row of the three splits; returns what stands in stats.json.

    Raises:
        TunesmithError: naming the first rows that may not be trained on, and counting all.
    """
    chat_template, encoder = template.load(base), Encoder(base)
    faults, stats = _Faults(), {}
    for split in tokens.SPLITS:
        found = _marked(chat / f"{split}.jsonl", chat_template, encoder, rules)
        stats[split] = _write_split(split, found, out, rules, encoder, faults)
    _refuse(faults, chat)
    if not stats["train"]["rows"]:
        raise _nothing(chat, stats["train"]["dropped"])
    files.write_json(out / "stats.json", stats)
    checks = _checks(base, chat_template, encoder, stats)
    files.write_json(out / "checks.json", checks | {"pairs": rules.pairs})
    return stats


def _marked(
    path: Path, chat_template: ChatTemplate, encoder: Encoder, rules: Rules
) -> Iterator[Marked | Fault]:
    """The rows of one chat file, a batch at a time."""
    rows = example.read_examples(path)
    while batch := list(islice(rows, BATCH)):
        if rules.pairs:
            yield from mark_pairs(batch, chat_template, encoder, rules.max_length)
        else:
            found = mark(batch, chat_template, encoder, rules.max_length)
            yield from (_unpaired(row) for row in found)


def _unpaired(row: Marked | Fault) -> Marked | Fault:
    if isinstance(row, Fault) or row.example.rejected is None:
        return row
    reason = "It is a preference pair, whose rejected answer only method dpo reads."
    return Fault(row.example.source, "pair", reason)


def _write_split(
    split: str,
    found: Iterator[Marked | Fault],
    out: Path,
    rules: Rules,
    encoder: Encoder,
    faults: _Faults,
) -> dict[str, Any]:
    """Write what was marked, note what was not; returns the statistics."""
    tally, others = Tally(rules.by), Tally(())
    writer, progress = tokens.Writer(out, split, rules.pairs), Progress(f"tokenise {split}")
    with (out / f"{split}.dropped.jsonl").open("wb") as dropped:
        for row in found:
            progress.step()
            if isinstance(row, Marked):
                writer.add(row.ids, row.trained(), row.prompt_length, row.example)
                if row.rejected:
                    writer.add_rejected(row.rejected.ids, row.rejected.trained())
                    others.add(row.rejected)
                if split == "train" and not tally.rows:
                    (out / "view.txt").write_text(_view(row, encoder), encoding="utf-8")
                tally.add(row)
            elif rules.drop and row.code == "over_length":
                tally.dropped += 1
                dropped.write(example.dumps(asdict(row)))
            else:
                faults.add(row)
    writer.close()
    progress.close()
    if not rules.pairs:
        return tally.report()
    counted = others.report()
    kept = {name: counted[name] for name in ("tokens", "trained_tokens", "lengths")}
    return tally.report() | {"rejected": kept}


def _view(row: Marked, encoder: Encoder) -> str:
    shown = view(row, encoder)
    return f"{shown}\nREJECTED {view(row.rejected, encoder)}" if row.rejected else shown


def _refuse(faults: _Faults, chat: Path) -> None:
    if not faults.first:
        return
    total = faults.counts.total()
    lines = [f"  {fault.source}: {fault.reason}" for fault in faults.first]
    if total > len(lines):
        kinds = ", ".join(f"{count} x {code}" for code, count in sorted(faults.counts.items()))
        lines.append(f"  … and {total - len(lines)} more ({kinds})")
    raise TunesmithError(
        f"{total} row(s) cannot be trained on:\n" + "\n".join(lines),
        where=str(chat),
        why="Trained as they are, they would teach something other than what they say.",
        do=_cure(faults.counts),
    )


def _cure(counts: Counter[str]) -> str:
    if "no_pair" in counts:
        return "Give the dataset pairs (games: pairs: winner_loser), or set another method."
    if "pair" in counts:
        return "Set method: dpo, or take a dataset without pairs (games: pairs: none)."
    return "Mend or reject them in the recipe, or change tokens.max_length; then: dvc repro"


def _nothing(chat: Path, dropped: int) -> TunesmithError:
    return TunesmithError(
        f"No row is left to train on ({dropped} were longer than max_length).",
        where=f"{chat}/train.jsonl",
        why="Training would run and learn nothing.",
        do="Raise tokens.max_length of this model, or give the dataset more rows.",
    )


def _checks(
    base: Path, chat_template: ChatTemplate, encoder: Encoder, stats: dict[str, Any]
) -> dict[str, Any]:
    """What was checked, on which files; `train` asks for it."""
    sides = {split: found["rows"] for split, found in stats.items()}
    dropped = {split: found["dropped"] for split, found in stats.items()}
    with_bos = encoder.raw.encode("a").ids[:1] == [encoder.bos]
    return {
        "checked": True,
        "rows": sides,
        "dropped": dropped,
        "rows_checked": sum(sides.values()) + sum(dropped.values()),
        "template_sha256": chat_template.sha256,
        "template_clock": f"{CLOCK:%Y-%m-%d}" if chat_template.uses_clock else "",
        "tokenizer_sha256": files.sha256(base / "tokenizer.json"),
        "encoding": "pieces" if encoder.separable else "whole",
        "end_of_turn": {encoder.text(number): number for number in encoder.stops},
        "bos": {"id": encoder.bos, "tokenizer_adds_it": with_bos},
    }
