"""Recipe rules: a folder of knowledge and the package wzrdbrain -> combos and answers, judged."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stages.core.example import Example, Reject
from stages.core.settings import Count, Settings
from stages.recipes.rules import judging, knowledge, package, prompts, topics
from stages.recipes.rules.combos import Trick, parse_trick
from stages.recipes.rules.seen import Seen

SYSTEM = "You are WzrdBrain, a wizard skating coach."
STATS = ("category", "n", "request")
METRICS = judging.METRICS
TRIES = 50  # draws before an example counts as one that cannot be new

judge = judging.judge
check = judging.check

Draw = Callable[[], tuple[str, str, dict[str, Any]]]


class Options(Settings):
    """How many examples of each category, and the seed of them all."""

    seed: Count
    simple: Count
    constrained: Count
    explanation: Count
    rules: Count
    progression: Count


def examples(source: Path, options: Options) -> Iterator[Example | Reject]:
    """Check the knowledge files in `source`, then draw the examples of each category in turn.

    Each category has its own random stream, so that a changed count leaves the others as they
    are. `source` of an example is `<category>#<n>`, its `group` the folded prompt. No (prompt,
    answer) pair comes twice: after 50 fruitless draws the example is a Reject `duplicate`, and
    a combo that breaks a rule is a Reject `illegal`.

    Raises:
        TunesmithError: a knowledge file is missing, broken or contradicts the package.
    """
    rules = package.grammar()
    known = knowledge.load(source, rules)
    for category in ("simple", "constrained", "explanation", "rules", "progression"):
        # A text seeds by its SHA-512, the same under every PYTHONHASHSEED.
        chance = random.Random(f"{options.seed}:{category}")
        draw = _drawing(category, topics.Asked(chance, rules, known))
        yield from _category(category, getattr(options, category), draw)


def _drawing(category: str, asked: topics.Asked) -> Draw:
    if category in judging.COMBOS:
        generate = package.combos(asked.chance)
        return partial(_combo, getattr(prompts, category), generate, asked)
    return partial(_topic, getattr(topics, category), asked)


def _combo(
    phrase: Callable[..., tuple[str, str, dict[str, Any]]],
    generate: Callable[[int], list[dict[str, Any]]],
    asked: topics.Asked,
) -> tuple[str, str, dict[str, Any]]:
    made = generate(asked.chance.randint(prompts.SHORTEST, prompts.LONGEST))
    read = [parse_trick(trick["name"], asked.grammar) for trick in made]
    # A name that our grammar cannot read becomes a trick that breaks the rules.
    tricks = [trick or Trick("", "", made[at]["name"]) for at, trick in enumerate(read)]
    return phrase(asked.chance, tricks)


def _topic(
    ask: Callable[[topics.Asked], topics.Topic], asked: topics.Asked
) -> tuple[str, str, dict[str, Any]]:
    question, answer, facts = ask(asked)
    return question, answer, {"facts": facts}


def _category(category: str, count: int, draw: Draw) -> Iterator[Example | Reject]:
    seen = Seen(count)
    for number in range(1, count + 1):
        source = f"{category}#{number}"
        for _ in range(TRIES):
            prompt, answer, meta = draw()
            if seen.add(f"{prompt}\n\n{answer}"):
                break
        else:
            text = f"{TRIES} draws in a row gave only prompts and answers that stand already."
            yield Reject(source, "duplicate", text)
            continue
        example = _example(source, prompt, answer, {"category": category} | meta)
        reason = check(example)
        yield Reject(source, "illegal", reason) if reason else example


def _example(source: str, prompt: str, answer: str, meta: dict[str, Any]) -> Example:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": answer},
    ]
    return Example(messages, source, " ".join(prompt.casefold().split()), meta)
