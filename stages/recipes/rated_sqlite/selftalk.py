"""An answer in; the label with which it begins to speak for somebody else, or itself, out."""

import re

# Who speaks in invented dialogues; each was seen, or is a chat format's word for a side.
SPEAKERS = (
    *("ai", "assistant", "bot", "chatbot", "model", "saige", "you", "me", "i"),
    *("sir", "madam", "ma'am", "miss", "user", "human", "person", "client", "customer"),
    *("patient", "student", "friend", "man", "woman", "girl", "boy", "child", "speaker"),
    *("interviewer", "narrator", "system", "question", "answer", "q", "a"),
)
MARKS = r"[*_#>\[(\s\"'“”-]*"
# A label counts where a line or a sentence begins: "Dear Sir:" is a letter, not a turn.
SPEAKER = re.compile(
    rf"(?:^|[.!?…\"”)\]]\s)\s*{MARKS}((?:{'|'.join(SPEAKERS)})(?: ?\d{{1,2}})?)[*_\])]*\s*[:：]",
    re.IGNORECASE | re.MULTILINE,
)
# Somebody else's label: one or two capitalised words, the same at the start of two lines or more.
NAME = re.compile(r"^[*_\[(]*([A-Z]\w{0,19}(?: [A-Z]\w{0,19})?)[*_\])]*:[ \t]", re.MULTILINE)


def talks_to_itself(answer: str) -> str | None:
    """The first speaker's label in the answer, or None.

    A heuristic: labels are recognised by a list of speakers, or by returning at the start of a
    line, so that "Note:" or "Pros: … Cons: …" is none.
    """
    if ":" not in answer and "：" not in answer:
        return None
    if found := SPEAKER.search(answer):
        return found.group(1)
    seen: set[str] = set()
    for name in NAME.findall(answer):
        if name in seen:
            return str(name)
        seen.add(name)
    return None
