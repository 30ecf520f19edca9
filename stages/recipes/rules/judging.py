"""An example and an answer in, scores out: combos judged by rule, all else by its facts."""

import re
from collections.abc import Sequence

from stages.core.example import Example
from stages.recipes.rules.combos import BACK, Trick, broken, parse_combo
from stages.recipes.rules.package import Grammar, grammar

COMBOS = ("simple", "constrained")
RULES = ("valid_moves", "only_first", "linking", "stance", "fakie")
METRICS = ("parse", *RULES, "count", "requested", "all", "facts")

# A fact of one of these kinds is right when the first such word of the answer is its value.
FIRST_WORD = {
    "difficulty": r"beginner|intermediate|advanced|expert",
    "kind": r"stance|transition|press|roll|spin|slide|pivot",
    "level": r"level \d+",
    "answer": r"yes|no",
    "direction": r"front|back",
    "word": "|".join(BACK),
}


def judge(example: Example, answer: str) -> dict[str, float]:
    """Scores of an answer.

    A combo scores 1 or 0 a metric: `parse` (a numbered list of tricks), the rules of
    `combos.broken`, `count` (as many tricks as asked for), `requested` (the move, direction and
    stance asked for, at the place asked for), and `all` of these. `count` and `requested` are
    given only where the prompt asks; what cannot be parsed scores 0 in everything that applies.
    Any other answer scores `facts`, the share of its expected facts that it states.
    """
    if example.meta["category"] not in COMBOS:
        return {"facts": _facts(example.meta["facts"], answer, grammar())}
    applies = ["parse", *RULES]
    applies += ["count"] if "n" in example.meta else []
    applies += ["requested"] if "request" in example.meta else []
    tricks = parse_combo(answer, grammar())
    failed = set(applies) if tricks is None else _failed(example, tricks)
    scores = {name: float(name not in failed) for name in applies}
    return scores | {"all": min(scores.values())}


def check(example: Example) -> str | None:
    """Why an example's own answer breaks a rule or misses a fact, or None."""
    answer = example.messages[-1].get("content") or ""
    if example.meta["category"] not in COMBOS:
        found = _facts(example.meta["facts"], answer, grammar())
        return None if found == 1.0 else f"It states {found:.0%} of its facts."
    tricks = parse_combo(answer, grammar())
    if tricks is None:
        return "It holds no combo."
    for rule, reason in broken(tricks, grammar()):
        return f"{reason} ({rule})"
    missed = _failed(example, tricks)
    return f"It misses what was asked for: {', '.join(sorted(missed))}." if missed else None


def _failed(example: Example, tricks: Sequence[Trick]) -> set[str]:
    failed = {rule for rule, _ in broken(tricks, grammar())}
    if len(tricks) != example.meta.get("n", len(tricks)):
        failed.add("count")
    if not _honoured(example, tricks):
        failed.add("requested")
    return failed


def _honoured(example: Example, tricks: Sequence[Trick]) -> bool:
    """Whether a trick at the place asked for is what was asked for."""
    meta = example.meta
    places = {"starts": tricks[:1], "ends": tricks[-1:], "includes": tricks}
    return "request" not in meta or any(
        meta.get("move", trick.move) == trick.move
        and meta.get("direction", trick.entry) == trick.entry
        and meta.get("stance", trick.stance) == trick.stance
        for trick in places[meta["request"]]
    )


def _facts(facts: Sequence[str], answer: str, rules: Grammar) -> float:
    """The mean over facts of how well the answer states each.

    A fact is `<kind>=<value>`. `says`: 1 when the text stands in the answer, case and
    whitespace folded. `moves`: moves named in both over moves named in either (Jaccard), so
    that naming all moves earns little. The kinds of `FIRST_WORD`: 1 when the first such word
    outside of move names is the value. Other wordings of a true statement can be missed:
    it is a lower bound, and no judgement of style.
    """
    text = " ".join(answer.casefold().replace("*", "").split())
    names = "|".join(re.escape(move) for move in sorted(rules.moves, key=len, reverse=True))
    # "180 degrees" says an angle, not the move.
    move = re.compile(rf"\b(?:{names})\b(?!\s*-?\s*degree)")
    plain = move.sub(" ", text)
    scores = []
    for fact in facts:
        kind, _, value = fact.partition("=")
        if kind == "says":
            scores.append(float(" ".join(value.casefold().split()) in text))
        elif kind == "moves":
            due, said = set(value.split("|")), set(move.findall(text))
            scores.append(len(due & said) / len(due | said))
        else:
            first = re.search(rf"\b(?:{FIRST_WORD[kind]})\b", plain)
            scores.append(float(first is not None and first.group() == value))
    return sum(scores) / len(scores)
