"""A seeded generator in; squads with names, orders and places, and a rule book, out."""

from random import Random
from typing import Any

GRID = 6
ROUNDS = 20
SIDES = ("player", "opponent")

NAMES = {
    "sentinel": ("Anvil", "Boulder", "Gate", "Oak"),
    "specter": ("Dusk", "Mist", "Moth", "Raven"),
    "oracle": ("Beacon", "Comet", "Rune", "Owl"),
    "striker": ("Arrow", "Flint", "Heron", "Spark"),
    "medic": ("Balm", "Clover", "Ember", "Fern"),
    "vector": ("Bramble", "Thorn", "Web", "Knot"),
}

ORDERS = {
    "sentinel": ("Hold the line.", "Walk in front."),
    "specter": ("Stay unseen.", "Come from behind."),
    "oracle": ("Scan before they come close.", "Watch and guide."),
    "striker": ("Shoot first.", "Keep your distance."),
    "medic": ("Mend your friends.", "Stay near the wounded."),
    "vector": ("Mine their way.", "Close the paths."),
}

PLACING = ("Spread out.", "Stand together.")

# maxHp, movement, range, speed of each class, by the first version that has them
STATS = {
    (0, 5, 0): {
        "sentinel": (6, 2, 1, 1),
        "specter": (4, 3, 1, 3),
        "oracle": (5, 2, 3, 3),
        "striker": (3, 2, 3, 2),
        "medic": (4, 2, 1, 2),
        "vector": (5, 2, 2, 1),
    },
    (0, 5, 9): {
        "sentinel": (7, 2, 1, 1),
        "specter": (4, 3, 1, 3),
        "oracle": (5, 3, 3, 2),
        "striker": (4, 2, 3, 2),
        "medic": (5, 3, 1, 2),
        "vector": (5, 2, 2, 1),
    },
}

ABILITIES = {
    "attack": {"damage": 1},
    "shadowStrike": {"damage": 2},
    "breach": {"maxUses": 2, "cooldown": 2, "duration": 3, "range": 2},
    "cloak": {"duration": 2},
    "precisionShot": {"damage": 2, "movedDamage": 1},
    "scan": {"damage": 1},
    "suppressingFire": {"damage": 1},
    "patch": {"maxUses": 3, "healAmount": 2},
    "overclock": {"selfDamage": 1},
    "trap": {"damage": 2},
    "pulse": {"damage": 1},
}

VERSIONS = ((0, 5, 2), (0, 5, 8), (0, 5, 9), (0, 5, 10), (0, 6, 0))


def balance(version: tuple[int, ...]) -> dict[str, Any]:
    """The numbers of the rule book of a version, as a log holds them."""
    stats = STATS[max(first for first in STATS if first <= version)]
    keys = ("maxHp", "movement", "range", "speed")
    return {
        "version": ".".join(map(str, version)),
        "grid": {"width": GRID, "height": GRID},
        "maxRounds": ROUNDS,
        "unitStats": {cls: dict(zip(keys, row, strict=True)) for cls, row in stats.items()},
        "abilities": {name: dict(numbers) for name, numbers in ABILITIES.items()},
    }


def squads(random: Random, size: int, equal: bool) -> dict[str, list[dict[str, str]]]:
    """`size` units for each side: different classes, no name twice in the match.

    With `equal` both sides have the same classes.
    """
    taken: set[str] = set()
    chosen: dict[str, list[dict[str, str]]] = {}
    for side in SIDES:
        classes = random.sample(sorted(NAMES), size)
        if equal and chosen:
            classes = [member["class"] for member in chosen[SIDES[0]]]
        chosen[side] = []
        for cls in classes:
            name = random.choice([name for name in NAMES[cls] if name not in taken])
            taken.add(name)
            orders = random.choice(ORDERS[cls])
            chosen[side].append({"name": name, "class": cls, "prompt": orders})
    return chosen


def places(random: Random, side: str, size: int) -> list[dict[str, int]]:
    """Different tiles in the two rows at the side's edge."""
    rows = (0, 1) if side == "player" else (GRID - 2, GRID - 1)
    tiles = [{"x": x, "y": y} for y in rows for x in range(GRID)]
    return random.sample(tiles, size)
