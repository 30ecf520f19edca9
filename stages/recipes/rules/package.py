"""The installed package wzrdbrain -> its rules as plain data, and combos that a seed repeats."""

import importlib.util
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from types import ModuleType
from typing import Any

from stages.core.errors import TunesmithError

VERSION = "0.2.2"  # from 0.6 on: 68 moves with other names, other stances, another generator
RULE_NAMES = ("ONLY_FIRST", "USE_FAKIE", "EXCLUDE_STANCE_BASE", "ROTATING_MOVES")


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the package knows of moves; every tuple in the order of its list of moves."""

    moves: tuple[str, ...]
    only_first: tuple[str, ...]
    fakie: tuple[str, ...]
    rotating: tuple[str, ...]
    no_stance: tuple[str, ...]

    def rules_of(self, move: str) -> tuple[str, ...]:
        """The package's rule names that hold for a move, in the order of `RULE_NAMES`."""
        base = tuple(name for name in self.no_stance if name not in self.fakie)
        parts = (self.only_first, self.fakie, base, self.rotating)
        return tuple(name for name, moves in zip(RULE_NAMES, parts, strict=True) if move in moves)


@lru_cache(maxsize=1)
def grammar() -> Grammar:
    """The rules of the installed package."""
    module = _private_copy()
    moves = tuple(module.MOVES)

    def ordered(chosen: set[str]) -> tuple[str, ...]:
        return tuple(move for move in moves if move in chosen)

    return Grammar(
        moves,
        ordered(module.only_first),
        ordered(module.use_fakie),
        ordered(module.rotating_moves),
        ordered(module.exclude_stance),
    )


def combos(chance: random.Random) -> Callable[[int], list[dict[str, Any]]]:
    """The package's own `generate_combo`, drawing from `chance` alone.

    The package lists a set to pick the later moves, so a seed alone gives other combos under
    every PYTHONHASHSEED; and it draws from the interpreter's shared generator. A private copy
    of its module gets that pool as a tuple in the order of its moves, and `chance` in place of
    `random`. The code that runs is its own; the installed module is left as it is.
    """
    module = _private_copy()
    pool = tuple(move for move in module.MOVES if move in module.SUBSEQUENT_MOVES)
    vars(module).update(random=chance, SUBSEQUENT_MOVES=pool)
    generate: Callable[[int], list[dict[str, Any]]] = module.generate_combo
    return generate


def _private_copy() -> ModuleType:
    """The package's module, run once more and kept out of `sys.modules`.

    Raises:
        TunesmithError: wzrdbrain is not installed, or not in the version that is read here.
    """
    _require_version()
    with warnings.catch_warnings():
        # It reads its data with importlib.resources.open_text, which Python 3.11 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        spec = importlib.util.find_spec("wzrdbrain.wzrdbrain")
        if spec is None or spec.loader is None:
            raise _unusable("it has no module wzrdbrain.wzrdbrain")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def _require_version() -> None:
    """Refuse a package that is not there, or another version of it."""
    try:
        found = metadata.version("wzrdbrain")
    except metadata.PackageNotFoundError:
        raise _unusable("it is not installed") from None
    if found != VERSION:
        raise _unusable(f"version {found} is installed, and {VERSION} is the one that is read")


def _unusable(problem: str) -> TunesmithError:
    return TunesmithError(
        f"The package wzrdbrain cannot be used: {problem}.",
        why="Combos, their rules and their judge all come from one version of it; another knows "
        "other moves and names, so that the same settings would make another dataset.",
        do=f"pip install wzrdbrain=={VERSION}",
    )
