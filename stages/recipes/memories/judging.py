"""An example and an answer in; whether it keeps its mode, its length and its words out."""

import re
from collections import Counter

from stages.core.example import Example
from stages.recipes.memories import cleaning, modes

METRICS = ("tag", "uncontaminated", "no_filler", "length", "ended", "overlap")

# Marks that end a sentence, and what may close after them.
ENDED = re.compile(r"[.!?…。！？]['\"’”»)\]]*$")


def judge(example: Example, answer: str) -> dict[str, float]:
    """Scores of one answer; all are 0 where it does not begin with the tag of its mode.

    tag: it begins with the tag, and something follows. uncontaminated: no tag of any mode stands
    behind it that the reference does not have there. no_filler: it does not start with a filler.
    length: at least half as many words as the reference, and no more than the limit it was cut
    to. ended: it ends a sentence; left out where the reference does not. overlap: F1 of the words
    of both with counts, case folded (ROUGE-1, Lin 2004, without stemming); it compares wording,
    not truth.
    """
    mode = example.meta["mode"]
    reference = modes.body(mode, example.messages[-1]["content"]) or ""
    ends = ENDED.search(reference) is not None
    metrics = [name for name in METRICS if name != "ended" or ends]
    said = modes.body(mode, answer.strip())
    if not said:
        return dict.fromkeys(metrics, 0.0)
    words, due = len(said.split()), len(reference.split())
    scores = {
        "tag": 1.0,
        "uncontaminated": float(_tags(said) <= _tags(reference)),
        "no_filler": float(not cleaning.starts_with_filler(said)),
        "length": float(due <= 2 * words and words <= example.meta["max_words"]),
        "ended": float(ENDED.search(said) is not None),
        "overlap": _overlap(said, reference),
    }
    return {name: scores[name] for name in metrics}


def _tags(text: str) -> Counter[str]:
    return Counter({tag: n for tag in modes.ALL_TAGS if (n := text.count(f"<{tag}>"))})


def _overlap(said: str, reference: str) -> float:
    given, due = (Counter(re.findall(r"\w+", text.casefold())) for text in (said, reference))
    if not due:  # only signs: no words to compare
        return float(said == reference)
    return 2 * (given & due).total() / (given.total() + due.total())
