"""An example and an answer in; how close the answer is to the example's own out."""

import re
import unicodedata
from collections import Counter

from stages.core.example import Example

METRICS = ("exact", "overlap")


def judge(example: Example, answer: str) -> dict[str, float]:
    """`exact` and `overlap` with the text of the example's last message.

    `exact` is 1 when both are equal after NFC and whitespace folding. `overlap` is the F1 of
    their words with counts, case folded (ROUGE-1, Lin 2004, without stemming); a word is a run
    of letters, digits and underscores, so a script without spaces counts by the run. It says
    how many words agree, not whether the answer is right. Where the reference is a tool call
    without text there is nothing to compare, and no metric applies.
    """
    reference = _folded(example.messages[-1].get("content") or "")
    if not reference:
        return {}
    given = _folded(answer)
    return {"exact": float(given == reference), "overlap": _overlap(given, reference)}


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _overlap(given: str, reference: str) -> float:
    due, said = (Counter(re.findall(r"\w+", text.casefold())) for text in (reference, given))
    if not due:  # only signs: no words to compare
        return float(given == reference)
    shared = (due & said).total()
    return 2 * shared / (due.total() + said.total())
