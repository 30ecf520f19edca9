"""Token folders: rows in, compact arrays and their texts out, and back again without torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from stages.core import example, files
from stages.core.errors import TunesmithError
from stages.core.example import Example

SPLITS = ("train", "valid", "test")
IGNORED = -100
INT = np.dtype("<i4")
ARRAYS: dict[str, np.dtype[Any]] = {
    "ids": INT,
    "trained": np.dtype("u1"),
    "offsets": np.dtype("<i8"),
    "prompts": INT,
}
# Of preference pairs, beside these: the same prompts with the answers not wanted.
REJECTED = {f"rejected_{name}": ARRAYS[name] for name in ("ids", "trained", "offsets")}


@dataclass(frozen=True, slots=True)
class Row:
    """One row to train on or to prompt with.

    Attributes:
        ids: token ids of the whole chat.
        labels: as many; the id where it is trained, -100 elsewhere.
        prompt_length: tokens before the last assistant turn; `ids[:prompt_length]` prompts it.
        source: where the chat comes from, `<file>#<n>`.
        example: the chat itself in valid and test, None in train.
        rejected_ids: of a preference pair, the prompt again and the answer not wanted.
        rejected_labels: as many; the id where that answer stands, -100 elsewhere.
    """

    ids: list[int]
    labels: list[int]
    prompt_length: int
    source: str
    example: Example | None
    rejected_ids: list[int] | None = None
    rejected_labels: list[int] | None = None


class Arrays(NamedTuple):
    """A split (or its rejected rows) as memory maps; row r is `ids[offsets[r]:offsets[r + 1]]`.

    Attributes:
        ids: int32 [tokens].
        trained: uint8 [tokens], 1 where the token is trained.
        offsets: int64 [rows + 1].
        prompts: int32 [rows], tokens before each row's last assistant turn.
    """

    ids: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    prompts: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)

    def row(self, row: int) -> np.ndarray:
        """int32 [length]: the ids of one row."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def labels(self, row: int) -> np.ndarray:
        """int32 [length]: the labels of one row, -100 where nothing is trained."""
        place = slice(self.offsets[row], self.offsets[row + 1])
        return labels(self.ids[place], self.trained[place])


def labels(ids: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """int32: the ids where `trained` is set, -100 elsewhere."""
    return np.where(trained.astype(np.bool_), ids, IGNORED).astype(np.int32)


class Writer:
    """Writes one split row by row: `<split>.<array>.npy` and `<split>.jsonl`.

    The lines hold each row's source; in valid and test the whole example and `prompt_length`,
    so that nothing else is needed to prompt and to judge. With `pairs` every `add` is followed
    by an `add_rejected`.
    """

    def __init__(self, folder: Path, split: str, pairs: bool = False) -> None:
        self.whole = split != "train"
        arrays = ARRAYS | (REJECTED if pairs else {})
        self.parts = {
            name: _Growing(folder / f"{split}.{name}.npy", dtype) for name, dtype in arrays.items()
        }
        self.lines = (folder / f"{split}.jsonl").open("wb")
        for name in ("offsets", *(["rejected_offsets"] if pairs else [])):
            self.parts[name].write(bytes(ARRAYS["offsets"].itemsize))

    def add(self, ids: bytes, trained: np.ndarray, prompt_length: int, row: Example) -> None:
        """Write one row: ids as little-endian int32, `trained` as uint8 of the same length."""
        self._sequence("", ids, trained)
        self.parts["prompts"].write(prompt_length.to_bytes(4, "little"))
        facts = row.row() | {"prompt_length": prompt_length} if self.whole else {}
        self.lines.write(example.dumps(facts or {"source": row.source}))

    def add_rejected(self, ids: bytes, trained: np.ndarray) -> None:
        """Write the rejected side of the row just added, in the same form."""
        self._sequence("rejected_", ids, trained)

    def _sequence(self, prefix: str, ids: bytes, trained: np.ndarray) -> None:
        numbers = self.parts[f"{prefix}ids"]
        numbers.write(ids)
        self.parts[f"{prefix}trained"].write(trained.tobytes())
        self.parts[f"{prefix}offsets"].write(numbers.count.to_bytes(8, "little"))

    def close(self) -> None:
        """End every file; only now do the arrays know their length."""
        self.lines.close()
        for part in self.parts.values():
            part.close()


class _Growing:
    """A one-dimensional .npy file whose length is written last (NumPy leaves room for it)."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.dtype, self.size = dtype, 0
        self.file: BinaryIO = path.open("wb")
        self._header()

    @property
    def count(self) -> int:
        return self.size // self.dtype.itemsize

    def write(self, content: bytes) -> None:
        self.file.write(content)
        self.size += len(content)

    def _header(self) -> None:
        shape = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self.file, shape)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()


def arrays(folder: Path, split: str) -> Arrays:
    """The arrays of a split, mapped and not read.

    Raises:
        TunesmithError: there is no such split.
    """
    return Arrays(*(_mapped(folder / f"{split}.{name}.npy") for name in ARRAYS))


def rejected(folder: Path, split: str) -> Arrays | None:
    """The rejected rows of a split's preference pairs; None where the rows are no pairs."""
    if not (folder / f"{split}.rejected_ids.npy").is_file():
        return None
    ids, trained, offsets, prompts = (
        _mapped(folder / f"{split}.{name}.npy") for name in (*REJECTED, "prompts")
    )
    return Arrays(ids, trained, offsets, prompts)


def _mapped(path: Path) -> np.ndarray:
    if not path.is_file():
        raise _unusable(path.parent, f"has no {path.name}")
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an array of no length cannot be mapped
        found = np.load(path, allow_pickle=False)
    return found


def read_split(folder: Path, split: str) -> Iterator[Row]:
    """The rows of a split, in order.

    Raises:
        TunesmithError: there is no such split.
    """
    found, others = arrays(folder, split), rejected(folder, split)
    for number, (_, line) in enumerate(example.read_lines(folder / f"{split}.jsonl")):
        yield Row(
            ids=found.row(number).tolist(),
            labels=found.labels(number).tolist(),
            prompt_length=int(found.prompts[number]),
            source=line["source"],
            example=example.example_of(line) if "messages" in line else None,
            rejected_ids=others.row(number).tolist() if others else None,
            rejected_labels=others.labels(number).tolist() if others else None,
        )


def require_checked(folder: Path) -> dict[str, Any]:
    """`checks.json` of a token folder whose checks ran over every row.

    Raises:
        TunesmithError: missing, interrupted or altered, or written without its checks.
    """
    files.require_complete(folder, f"tokenise@{folder.name}")
    path = folder / "checks.json"
    if not path.is_file():
        raise _unusable(folder, "has no checks.json")
    checks: dict[str, Any] = files.read_json(path)
    if checks.get("checked") is not True:
        raise _unusable(folder, "was written without its checks")
    for split, rows in checks["rows"].items():
        if len(arrays(folder, split)) != rows:
            raise _unusable(folder, f"has {len(arrays(folder, split))} rows in {split}, not {rows}")
        others = rejected(folder, split)
        if checks.get("pairs") and (others is None or len(others.offsets) != rows + 1):
            raise _unusable(folder, f"lacks rejected answers in {split}")
    return checks


def _unusable(folder: Path, what: str) -> TunesmithError:
    return TunesmithError(
        f"{folder} {what}.",
        where=str(folder),
        why="Only rows that were all checked are trained on.",
        do=f"dvc repro tokenise@{folder.name}",
    )
