"""A seed in, the small base's reading matter out: plain documents with the sample worlds' words.

The base reads the vocabulary and the skills (copying, chains that link, boards and distances) in
forms of its own: no document is a chat of a dataset, and none answers with a numbered list, a JSON
object or a tool call. What is left to learn is what fine-tuning is for.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

Chat = list[tuple[str, str]]

COUNT_WORDS = ("one", "two", "three", "four", "five", "six")
NAMES, WORDS = (
    Path(__file__).with_name(name).read_text(encoding="utf-8").split()
    for name in ("names.txt", "words.txt")
)
CLASSES = ("sentinel", "specter", "oracle", "striker", "medic", "vector")
LINES = ("line of {}", "{} tricks", "run of {} tricks", "{}-trick line", "{} in a row")
WISHES = {
    "first": ("from {}", "starting with {}", "that starts with {}", "that opens with {}"),
    "within": ("with {} in it", "that includes {}", "featuring {}"),
    "last": ("to {}", "ending with {}", "that ends with {}", "that closes with {}"),
}
PLAIN = tuple(word for word in WORDS if word.isalpha())
LETTERS = "abcdefghijklmnopqrstuvwxyz"
GRID = 6
SPELT = 200


def documents(seed: int, count: int) -> Iterator[str]:
    """`count` documents in ChatML, each from its own draw; the same seed gives the same bytes."""
    random = Random(seed)
    kinds: tuple[Callable[[Random], Chat], ...] = (
        *(chain, chain, chain, facts),
        *(board, board, copy, copy),
    )
    for _ in range(count):
        yield chat_text(random.choice(kinds)(random))


def spellings() -> Iterator[str]:
    """Every word, alone and after a space, often enough to become a token of its own."""
    for word in (*NAMES, *WORDS):
        yield from [word, f" {word}"] * SPELT


def chat_text(turns: Chat) -> str:
    """Turns in the form of the base's chat template."""
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


def tricks(random: Random, n: int) -> list[tuple[str, str]]:
    """n linked tricks, each as (name, move), by the rules of the wzrdbrain package.

    Many lines use few moves: counting must not depend on what is counted.
    """
    from wzrdbrain.wzrdbrain import DIRECTIONS, MOVES, STANCES, Trick, exclude_stance, only_first

    later = [move for move in MOVES if move not in only_first]
    later = random.sample(later, random.choice((1, 2, 4, len(later))))
    direction, made = random.choice(DIRECTIONS), []
    for number in range(n):
        move = random.choice(later if number or len(later) < 4 else MOVES)
        stance = None if move in exclude_stance else random.choice(STANCES)
        trick = Trick(direction=direction, stance=stance, move=move)
        made.append((str(trick), move))
        direction = str(trick.exit_from_trick)
    return made


def chain(random: Random) -> Chat:
    """A line of linked tricks, asked for by its length and sometimes by what is in it."""
    n = random.randint(2, 6)
    made = tricks(random, n)
    place = random.choice(tuple(WISHES))
    name, move = {"first": made[0], "last": made[-1]}.get(place) or random.choice(made)
    wish = random.choice(WISHES[place]).format(random.choice((name, move)))
    wish = f" {wish}" if random.random() < 0.7 else ""
    noun = random.choice(LINES).format(random.choice((str(n), COUNT_WORDS[n - 1])))
    line = " > ".join(f"{number}. {name}" for number, (name, _) in enumerate(made, 1))
    return [("user", f"{random.choice(WORDS)} {noun}{wish}"), ("assistant", f"{n}{wish}: {line}")]


def facts(random: Random) -> Chat:
    """How one move begins and ends."""
    from wzrdbrain.wzrdbrain import DIRECTIONS, MOVES, STANCES, Trick, exclude_stance

    move, direction = random.choice(MOVES), random.choice(DIRECTIONS)
    stance = None if move in exclude_stance else STANCES[0]
    trick = Trick(direction=direction, stance=stance, move=move)
    text = f"{trick} goes in {direction} and comes out {trick.exit_from_trick}"
    return [("user", f"{move} {direction}"), ("assistant", text)]


def copy(random: Random) -> Chat:
    """Words said again, or the one after a given word: what makes a model look back."""
    words = [_word(random) for _ in range(random.randint(3, 14))]
    if random.random() < 0.7:
        return [("user", f"say: {' '.join(words)}"), ("assistant", f"say: {' '.join(words)}")]
    place = random.randrange(len(words) - 1)
    asked = f"{' '.join(words)}; what comes after {words[place]}"
    return [("user", asked), ("assistant", f"after {words[place]} {words[place + 1]}")]


def _word(random: Random) -> str:
    """A name, a common word, a scrap of JSON, a path, a number or letters that spell nothing."""
    kind = random.random()
    if kind < 0.1:
        return _scrap(random)
    if kind < 0.3:
        return random.choice(NAMES)
    if kind < 0.6:
        return random.choice(WORDS)
    if kind < 0.65:
        return _path(random)
    if kind < 0.7:
        return str(random.randint(0, 99))
    return "".join(random.choices(LETTERS, k=random.randint(2, 5)))


def _path(random: Random) -> str:
    """A file such as `door_lamp.py` or `old/map.ts`."""
    folder, name, more = random.choices(PLAIN, k=3)
    start = random.choice(("", "", f"{folder}/", f"{more}_"))
    return f"{start}{name}.{random.choice(('py', 'ts', 'rs', 'go', 'js'))}"


def _scrap(random: Random) -> str:
    """A piece of JSON such as `"type":"wait"},`, never a whole answer."""
    key, value = random.choices(WORDS, k=2)
    start, end = random.choice(("", "{", ",", '":{')), random.choice(("", "}", "},", "}}"))
    return f'{start}"{key}":"{value}"{end}'


def board(random: Random) -> Chat:
    """A board of units; who is nearest, how far, and a step towards it."""
    cells = random.sample([(x, y) for x in range(GRID) for y in range(GRID)], 4)
    names, me, seen = random.sample(NAMES, 4), cells[0], slice(1, random.randint(2, 4))
    lines = [f"You: {_unit(random, names[0], me)}, facing {random.choice('NESW')}", "Enemies:"]
    lines += [_seen(random, n, c, me) for n, c in zip(names[seen], cells[seen], strict=True)]
    near = min(range(seen.start, seen.stop), key=lambda i: _distance(me, cells[i]))
    step = _towards(random, me, cells[near], set(cells), random.randint(1, 3))
    answer = f"nearest enemy {names[near]} at {_at(cells[near])}, dist={_distance(me, cells[near])}"
    answer += f"; go to {_at(step)}, dist={_distance(step, cells[near])}"
    answer += f"; {_target(step)} then {_target(cells[near])}"
    return [("user", "\n".join(lines)), ("assistant", answer)]


def _target(cell: tuple[int, int]) -> str:
    """A place in the spelling of an action."""
    return f'target {{"x":{cell[0]},"y":{cell[1]}}}'


def _unit(random: Random, name: str, cell: tuple[int, int]) -> str:
    most = random.randint(2, 9)
    return f"{name} ({random.choice(CLASSES)}) at {_at(cell)}, HP {random.randint(1, most)}/{most}"


def _seen(random: Random, name: str, cell: tuple[int, int], me: tuple[int, int]) -> str:
    return f"  {_unit(random, name, cell)}, dist={_distance(cell, me)}"


def _at(cell: tuple[int, int]) -> str:
    return f"({cell[0]},{cell[1]})"


def _distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _towards(
    random: Random,
    me: tuple[int, int],
    goal: tuple[int, int],
    taken: set[tuple[int, int]],
    far: int,
) -> tuple[int, int]:
    """The free cell at most `far` steps away that is nearest to `goal`."""
    free = [(x, y) for x in range(GRID) for y in range(GRID) if (x, y) not in taken or (x, y) == me]
    near = [cell for cell in free if _distance(cell, me) <= far]
    best = min(_distance(cell, goal) for cell in near)
    return random.choice([cell for cell in near if _distance(cell, goal) == best])
