"""Checked knowledge and a random generator in; a question, its answer and its facts out."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.recipes.rules.combos import FAKIE_WORDS, STANCES, TURNED, Trick
from stages.recipes.rules.knowledge import Knowledge, Tier
from stages.recipes.rules.package import Grammar
from stages.recipes.rules.prompts import line

# (question, answer, facts); a fact is `<kind>=<value>`, see facts.py for the kinds.
Topic = tuple[str, str, list[str]]

EXPLAIN = (
    "Explain {}.",
    "Explain {} to me.",
    "Please explain {}.",
    "Can you explain {}?",
    "Could you explain {} to me?",
    "Describe {}.",
    "Describe {} for me.",
    "Please describe {}.",
    "Can you describe {}?",
    "Tell me about {}.",
    "Tell me what {} is.",
    "Can you tell me about {}?",
    "What is {}?",
    "What kind of move is {}?",
    "What should I know about {}?",
    "What does {} look like?",
    "How does {} go?",
    "How would you describe {}?",
    "How hard is {}?",
    "I have never seen {}. What is it?",
    "I do not know {}. What is it?",
    "Teach me {}.",
    "Show me what {} is.",
    "Break down {} for me.",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the questions are made from."""

    chance: random.Random
    grammar: Grammar
    knowledge: Knowledge


def explanation(asked: Asked) -> Topic:
    """What one move is: its difficulty, its kind, what it looks like."""
    move = asked.knowledge.moves[asked.chance.choice(asked.grammar.moves)]
    article = "an" if move.difficulty[0] in "aeiou" else "a"
    answer = f"{move.name} is {article} {move.difficulty} {move.category}. {move.description}"
    facts = [f"difficulty={move.difficulty}", f"kind={move.category}"]
    question = asked.chance.choice(EXPLAIN).format(move.name)
    return question, " ".join([answer, move.notes]).strip(), facts


def rules(asked: Asked) -> Topic:
    """One rule in general, or what a rule means for one move."""
    general = asked.chance.random() < 0.3
    return (_general if general else asked.chance.choice(ABOUT_ONE))(asked)


def progression(asked: Asked) -> Topic:
    """What to learn in which order."""
    return asked.chance.choice(PROGRESSION)(asked)


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _general(asked: Asked) -> Topic:
    questions, answer, facts = asked.chance.choice(_general_topics(asked.grammar))
    ask = asked.chance.choice(("{}?", "Tell me: {}?", "I wonder: {}?", "Quick question: {}?"))
    question = ask.format(asked.chance.choice(questions))
    return question[0].upper() + question[1:], answer, facts


def _general_topics(grammar: Grammar) -> list[tuple[tuple[str, ...], str, list[str]]]:
    """The seven topics: (questions, answer, facts)."""
    both = [move for move in grammar.moves if move not in grammar.no_stance]
    return [
        (
            ("which moves may only come first", "which moves can only open a combo"),
            f"Only {listed(grammar.only_first)} must come first; they never follow another trick.",
            [f"moves={'|'.join(grammar.only_first)}"],
        ),
        (
            ("which moves turn you around", "which moves rotate"),
            f"These turn you around: {listed(grammar.rotating)}.",
            [f"moves={'|'.join(grammar.rotating)}"],
        ),
        (
            ("which moves take a stance", "which moves can be open or closed"),
            f"These are open or closed: {listed(both)}.",
            [f"moves={'|'.join(both)}"],
        ),
        (
            ("which moves are called forward or fakie", "which moves use the fakie words"),
            f"These are forward or fakie: {listed(grammar.fakie)}.",
            [f"moves={'|'.join(grammar.fakie)}"],
        ),
        (
            ("how do tricks link", "how does one trick follow another"),
            "Each trick starts in the direction in which the trick before it ends.",
            ["says=starts in the direction", "says=before it ends"],
        ),
        (
            ("what does fakie mean", "what is fakie"),
            "Fakie means going back; forward means going front.",
            ["says=fakie means going back", "says=forward means going front"],
        ),
        (
            ("how is a trick written", "how do I write down a trick"),
            "A trick is its direction, then its stance if it takes one, then its move.",
            ["says=direction, then its stance", "says=then its move"],
        ),
    ]


def _can_follow(asked: Asked) -> Topic:
    move = asked.chance.choice(asked.grammar.moves)
    ask = ("Can {} come second?", "May {} follow another trick?", "Can I do {} in mid-combo?")
    if move in asked.grammar.only_first:
        return _asked(asked, ask, move), f"No, {move} may only come first.", ["answer=no"]
    return _asked(asked, ask, move), f"Yes, {move} may come anywhere.", ["answer=yes"]


def _turns(asked: Asked) -> Topic:
    move = asked.chance.choice(asked.grammar.moves)
    ask = ("Does {} turn me around?", "Is {} a rotating move?", "Will {} change my direction?")
    if move in asked.grammar.rotating:
        return _asked(asked, ask, move), f"Yes, {move} turns you around.", ["answer=yes"]
    return _asked(asked, ask, move), f"No, {move} keeps your direction.", ["answer=no"]


def _takes_stance(asked: Asked) -> Topic:
    move = asked.chance.choice(asked.grammar.moves)
    ask = ("Does {} take a stance?", "Is {} open or closed?", "Do I say open or closed for {}?")
    if move in asked.grammar.no_stance:
        return _asked(asked, ask, move), f"No, {move} takes no stance.", ["answer=no"]
    return _asked(asked, ask, move), f"Yes, {move} is open or closed.", ["answer=yes"]


def _leaves(asked: Asked) -> Topic:
    trick = _any_trick(asked)
    ask = ("Which way do I leave a {}?", "How do I come out of a {}?", "Where does a {} end?")
    out = trick.exit(asked.grammar)
    return _asked(asked, ask, line(trick)), f"You leave it going {out}.", [f"direction={out}"]


def _word(asked: Asked) -> Topic:
    trick = _any_trick(asked)
    going = f"{trick.move} going {trick.entry}"
    ask = ("What do I call {}?", "What is the word for {}?", "How do I write {}?")
    answer = f"It is {trick.word} {trick.move}."
    return _asked(asked, ask, going), answer, [f"word={trick.word}"]


def _any_trick(asked: Asked) -> Trick:
    move = asked.chance.choice(asked.grammar.moves)
    direction = asked.chance.choice(sorted(TURNED))
    word = FAKIE_WORDS[direction] if move in asked.grammar.fakie else direction
    stance = "" if move in asked.grammar.no_stance else asked.chance.choice(STANCES)
    return Trick(word, stance, move)


def _asked(asked: Asked, forms: Sequence[str], about: object) -> str:
    return asked.chance.choice(forms).format(about)


def _level_facts(tier: Tier) -> list[str]:
    return [f"level=level {tier.level}", f"moves={'|'.join(tier.moves)}"]


def _start(asked: Asked) -> Topic:
    tier = asked.knowledge.tiers[0]
    ask = ("Where do I start?", "What should I learn first?", "I am a beginner. What now?")
    polite = asked.chance.choice(("{}", "I am new to this. {}", "Tell me: {}", "Please help. {}"))
    answer = f"Start with level {tier.level}, {tier.name}: {listed(tier.moves)}."
    return _asked(asked, (polite,), asked.chance.choice(ask)), answer, _level_facts(tier)


def _level_moves(asked: Asked) -> Topic:
    tier, name = _any_tier(asked)
    ask = ("Which moves are in {}?", "What do I learn in {}?", "List the moves of {}.")
    answer = f"In level {tier.level}, {tier.name}: {listed(tier.moves)}."
    return _asked(asked, ask, name), answer, _level_facts(tier)


def _level_skills(asked: Asked) -> Topic:
    tier, name = _any_tier(asked)
    ask = ("Which skills does {} train?", "What should I work on in {}?", "What is {} for?")
    answer = f"In level {tier.level}, work on {listed(tier.skills)}. {tier.description}"
    return _asked(asked, ask, name), answer, _level_and(tier, tier.skills)


def _level_combos(asked: Asked) -> Topic:
    tier, name = _any_tier(asked)
    ask = ("What can I practise in {}?", "Give me drills for {}.", "I am in {}. What do I try?")
    answer = " ".join([f"In level {tier.level}, try this.", *tier.suggested_combos])
    return _asked(asked, ask, name), answer, _level_and(tier, tier.suggested_combos)


def _level_and(tier: Tier, texts: Sequence[str]) -> list[str]:
    return [f"level=level {tier.level}", *(f"says={text}" for text in texts)]


def _level_of(asked: Asked) -> Topic:
    move = asked.chance.choice(asked.grammar.moves)
    tier = asked.knowledge.tier_of(move)
    ask = ("When do I learn {}?", "Which level is {} in?", "In which level does {} come?")
    answer = f"{move} comes in level {tier.level}, {tier.name}."
    return _asked(asked, ask, move), answer, [f"level=level {tier.level}"]


def _next(asked: Asked) -> Topic:
    move = asked.chance.choice(asked.grammar.moves)
    tier, tiers = asked.knowledge.tier_of(move), asked.knowledge.tiers
    ask = ("I can do {}. What comes next?", "What do I learn after {}?", "What follows {}?")
    if tier is tiers[-1]:
        answer = f"It is in level {tier.level}, the last one: now build long combos of your own."
        return _asked(asked, ask, move), answer, [f"level=level {tier.level}"]
    after = tiers[tier.level]  # levels count from 1, the list from 0
    answer = f"Next comes level {after.level}, {after.name}: {listed(after.moves)}."
    return _asked(asked, ask, move), answer, _level_facts(after)


def _tip(asked: Asked) -> Topic:
    number = asked.chance.randrange(len(asked.knowledge.tips))
    ask = ("Give me tip {}.", "What is tip {}?", "What is practice tip number {}?", "Tip {}?")
    tip = asked.knowledge.tips[number]
    return _asked(asked, ask, number + 1), f"Tip {number + 1}: {tip}", [f"says={tip}"]


def _any_tier(asked: Asked) -> tuple[Tier, str]:
    tier = asked.chance.choice(asked.knowledge.tiers)
    names = (f"level {tier.level}", f"the level {tier.name}")
    return tier, asked.chance.choice(names)


ABOUT_ONE: tuple[Callable[[Asked], Topic], ...] = (
    _can_follow,
    _turns,
    _takes_stance,
    _leaves,
    _word,
)
PROGRESSION: tuple[Callable[[Asked], Topic], ...] = (
    _start,
    _level_moves,
    _level_skills,
    _level_combos,
    _level_of,
    _next,
    _tip,
)
