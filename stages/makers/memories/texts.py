"""A draw in; a question and the answer that follows from its words alone, for one mode, out.

Every name, thing and place of an answer stands in its question, so that a small model can learn
the link by copying. An answer has 20 to 40 words; `long_pair` makes more than a hundred.
"""

from random import Random

Pair = tuple[str, str]

MODES = ("dual", "emulation", "agent")
OBSERVATION = (
    "At the {p} the {x} stood in the rain. {a} came by on {d}, looked at it, and went on. Nobody "
    "said a word, and I felt {f}, but it was a good day."
)

SLOTS = {
    "a": ("Ana", "Ben", "Eva", "Ida", "Jon", "Kim", "Leo", "Mia", "Nils", "Ola", "Sam", "Tove"),
    "x": (
        *("boat", "drum", "kite", "lamp", "ladder", "map", "oven"),
        *("piano", "radio", "scarf", "stove", "tent", "violin", "window"),
    ),
    "p": (
        *("bridge", "farm", "garden", "harbour", "library", "market"),
        *("mill", "museum", "park", "pier", "school", "station"),
    ),
    "f": ("brave", "calm", "curious", "guilty", "lonely", "proud", "restless", "tired"),
    "d": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
}
THINGS = ("x", "y", "z")

PAIRS: dict[str, tuple[Pair, ...]] = {
    "dual": (
        (
            "I keep thinking of {a} and the {x}. Maybe I am just {f}.",
            "The {x} is where it was, and {a} is not angry. You feel {f}, and {f} will pass. "
            "Outside it rains, then it stops, and the street is quiet again.",
        ),
        (
            "What if the {x} was never the problem, and the {p} was?",
            "The {p} is only a place, and the {x} is only a thing. Someone opens a door at the "
            "{p}. The light falls on the {x}, and the question gets smaller by the hour.",
        ),
        (
            "I dreamed of the {p}. {a} gave me the {x} and said nothing.",
            "At the {p} the door is open. {a} holds the {x} with both hands and waits. Nobody asks "
            "for a word. Then the morning comes, and the {x} is gone.",
        ),
        (
            "I was at the {p} with {a} on {d} and felt {f} all day.",
            "{d} is over now. {a} walks home from the {p} and turns once to wave. You were {f}, "
            "the day was long, and the evening is soft on the roof.",
        ),
    ),
    "emulation": (
        (
            "What did {a} say about the {x} at the {p}?",
            "{a} said that the {x} can wait. You were both at the {p}, it was late, and you "
            "agreed. Call {a} before you touch the {x}, then do it slowly.",
        ),
        (
            "Plan my {d}: the {p}, then the {x}.",
            "On {d} you go to the {p} first, while it is quiet. Have a break and a glass of "
            "water. After that comes the {x}, and you stop when it gets dark.",
        ),
        (
            "How do I fix the {x} before {d}?",
            "Start with the simplest part of the {x}. Clean it, turn it and listen. If it fails "
            "again, leave it for a night. {d} is not here yet, and the {x} will not run away.",
        ),
        (
            "Should I take the {x} to {a} or leave it at the {p}?",
            "Take the {x} to {a}. The {p} is closed on most days and nobody looks after things "
            "there. {a} has room, likes you, and will give the {x} back in good shape.",
        ),
    ),
    "agent": (
        (
            "Copy the {n} files of {a} to the {p}.",
            "Found {n} files of {a}. Copied all {n} to the {p}, checked each one, and none was "
            "lost. Wrote the list, sent it to {a}, and closed the folder. The work is done.",
        ),
        (
            "Find the cheapest train to the {p} on {d}.",
            "Searched the trains to the {p} for {d}. The cheapest one leaves early and needs one "
            "change. Saved the ticket for {d} and wrote down the way to the {p}.",
        ),
        (
            "Write a list for the {p}: {x}, {y} and {z}.",
            "Wrote the list for the {p}: {x}, {y} and {z}. That makes three things. The {x} goes "
            "first, the {y} second, the {z} last. Saved the list for the {p}.",
        ),
        (
            "Check whether {a} paid {n} for the {x}.",
            "Opened the account and looked for {a}. Found one payment of {n} for the {x}, so it is "
            "paid. Saved the receipt, marked the {x} as done, and thanked {a}.",
        ),
    ),
}

LONG: dict[str, Pair] = {
    "dual": (
        "I want to think at length of the {x}, the {y} and the {z}. {a} is at the {p}.",
        "It has been with you for a long time, and you know every part of it. When you look at "
        "the {t} you think of {a}, and of the days at the {p}.",
    ),
    "emulation": (
        "Tell me at length how {a} and I look after the {x}, the {y} and the {z}.",
        "Clean it on a dry day, look at each part, and put every part back where it was. Ask {a} "
        "to hold the {t} while you work, and write down what you changed.",
    ),
    "agent": (
        "Check the {x}, the {y} and the {z} at the {p} and report at length to {a}.",
        "Went to the {p}, looked at the {t} from each side, and found no fault. Took two photos "
        "of the {t}, wrote the date on the label, and sent a note to {a}.",
    ),
}


def draw(random: Random) -> dict[str, str]:
    """A value for each slot; the three things differ."""
    slots = {key: random.choice(words) for key, words in SLOTS.items()}
    slots |= dict(zip(THINGS, random.sample(SLOTS["x"], 3), strict=True))
    return slots | {"n": str(random.randint(2, 60))}


def pair(random: Random, mode: str) -> Pair:
    """A question and its answer."""
    slots = draw(random)
    question, answer = random.choice(PAIRS[mode])
    return question.format(**slots), answer.format(**slots)


def long_pair(random: Random, mode: str) -> Pair:
    """A question about three things and an answer of 100 to 150 words, one part for each."""
    slots = draw(random)
    question, part = LONG[mode]
    parts = [
        f"{order} comes the {slots[key]}. {part.format(t=slots[key], **slots)}"
        for order, key in zip(("First", "Second", "Third"), THINGS, strict=True)
    ]
    end = f"That was the {slots['x']}, the {slots['y']} and the {slots['z']}."
    return question.format(**slots), " ".join([*parts, end])
