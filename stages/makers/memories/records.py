"""A draw in; one memory as the recorder writes it, or one that no reader can use, out."""

import re
from datetime import datetime, timedelta
from random import Random
from typing import Any

from stages.makers.memories import texts

Record = dict[str, Any]

FIRST_DAY = datetime(2025, 1, 6)  # made up, in UTC
TENTHS = 300 * 24 * 60 * 60 * 10

# Types of each mode: the recorder's own, some that only contain one, and some of nobody.
TYPES = {
    "dual": ("inner_dialogue", "reflection", "dream", "Inner_Dialogue_Summary"),
    "emulation": ("conversation", "chat", "journal", "curiosity_question"),
    "agent": ("action", "task", "tool_use", "action_log"),
}
FOLDERS = {
    "reflection": "reflections",
    "dream": "dreams",
    "action": "actions",
    "tool_invocation": "actions",
}
FILLERS = (
    "Certainly! ",
    "Sure, ",
    "Okay, ",
    "OK: ",
    "Alright, so ",
    "As an AI, ",
    "So, ",
    "Let me think about that for a second: ",
    "Here's what I would say: ",
    "I'm just here to help: ",
)
PAIR_KEYS = (("content", "response"), ("prompt", "response"), ("question", "answer"))


def memory(random: Random, number: int, user: str) -> Record:
    """A memory with a pair: one of the shapes, modes and types, now and then with fillers."""
    mode = random.choices(texts.MODES, (35, 43, 22))[0]
    record = _head(random, random.choice(TYPES[mode]), user)
    chosen = random.random()
    if chosen < 0.02:
        record["type"], record["metadata"] = "observation", {}
        record["observation"] = texts.OBSERVATION.format(**texts.draw(random))
        return record
    _set_mode(random, record, mode, number)
    if chosen < 0.12:
        pairs = [texts.pair(random, mode) for _ in range(random.randint(2, 3))]
        record |= {"content": pairs[0][0], "messages": _messages(random, pairs)}
    elif chosen < 0.2:  # long on purpose, or just too long
        question, answer = texts.long_pair(random, mode)
        record |= {"content": question, "response": answer}
        if chosen < 0.19:
            record["metadata"]["long_output"] = "allowed"
    else:
        asked, answered = random.choice(PAIR_KEYS)
        question, answer = texts.pair(random, mode)
        record |= {asked: question, answered: _filled(random, answer)}
    return record


def _head(random: Random, kind: str, user: str) -> Record:
    """Id and time agree to the tenth of a second, as the recorder's do."""
    tenths = random.randrange(TENTHS)
    moment = FIRST_DAY + timedelta(seconds=tenths // 10)
    time = f"{moment:%Y-%m-%dT%H:%M:%S}.{tenths % 10}00Z"
    return {
        "id": f"evt-{moment:%Y%m%d%H%M%S}{tenths % 10}",
        "timestamp": time,
        "type": kind,
        "entities": [],
        "tags": [],
        "importance": random.choice((0.3, 0.5, 0.7, 0.9)),
        "links": [],
        "userId": f"user-{user}",
        "metadata": {},
    }


def _set_mode(random: Random, record: Record, mode: str, number: int) -> None:
    """The mode stands in the metadata, where any type may go with it, or follows from the type."""
    if random.random() < 0.3:
        record["metadata"]["cognitiveMode"] = mode
        record["type"] = random.choice([kind for kinds in TYPES.values() for kind in kinds])
    elif random.random() < 0.1:
        record["metadata"]["cognitiveMode"] = random.choice(("environment", "", None))
    if random.random() < 0.1:
        record["metadata"]["conversationId"] = f"conv-{number // 8}"


def _messages(random: Random, pairs: list[texts.Pair]) -> list[dict[str, str]]:
    found = [{"role": "system", "content": "Be brief."}] if random.random() < 0.2 else []
    for question, answer in pairs:
        found.append({"role": "user", "content": question})
        found.append({"role": "assistant", "content": _filled(random, answer)})
    return found


def _filled(random: Random, answer: str) -> str:
    return random.choice(FILLERS) + answer if random.random() < 0.08 else answer


def path(record: Record, suffix: str = ".json") -> str:
    """`[category/]YYYY/MM/DD/<id>-<slug>.json` below the episodic folder."""
    day = str(record["id"])[4:12]
    said = next((record[key] for key in ("content", "prompt", "question") if key in record), "")
    slug = re.sub(r"[^a-z0-9]+", "-", str(said).lower())[:50].strip("-") or "event"
    folder = FOLDERS.get(str(record.get("type")), "")
    place = f"{day[:4]}/{day[4:6]}/{day[6:]}/{record['id']}-{slug}{suffix}"
    return f"{folder}/{place}" if folder else place


def odd(random: Random, number: int, user: str) -> tuple[str, Record | bytes]:
    """A memory that becomes no example, the kinds in turn: its path and its content."""
    record = _head(random, "conversation", user)
    question, answer = texts.pair(random, "emulation")
    record |= {"content": question, "response": answer}
    names = list(ODD)
    kind = names[number % len(names)]
    change = ODD[kind]
    if isinstance(change, bytes):
        suffix = {"encrypted": ".json.enc", "text_file": ".txt"}.get(kind, ".json")
        return path(record, suffix), change
    changed = {key: value for key, value in (record | change).items() if value is not ...}
    return path(record), changed


# What makes each kind odd: the whole content of the file, or keys to change (...: to leave out).
ODD: dict[str, bytes | Record] = {
    "encrypted": b'{"iv":"00","data":"AAAA"}',
    "content_only": {"response": ...},
    "discarded": {"metadata": {"discard": True}},
    "contaminated_question": {"content": "Why does my log say <thought> here?"},
    "contaminated_answer": {"response": "It says <action>: copied, and then it stops."},
    "only_filler": {"response": "Certainly!"},
    "empty_answer": {"response": ""},
    "broken_json": b'{"id": "evt-1", "type": "conversation", "content": "cut o',
    "json_null": b"null\n",
    "missing_type": {"type": ...},
    "number": {"content": 42},
    "object": {"response": {"text": "hi"}},
    "null_message": {
        "messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": None}]
    },
    "no_messages": {"messages": []},
    "text_file": b"A note that is no memory.\n",
}
