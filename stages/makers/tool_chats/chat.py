"""Turns in; a conversation in the form of OpenAI's chat lines out, and the words it is made of."""

import re
from random import Random
from typing import Any

import orjson

SYSTEM = "You are a coding clerk."
STEMS = (
    *("parser", "config", "cache", "index", "router", "queue", "timer", "logger", "store"),
    *("client", "server", "loader", "writer", "reader", "worker", "table", "menu", "mailer"),
    *("filter", "sorter", "tokens", "shapes", "orders", "prices", "events", "images", "notes"),
    *("users", "jobs", "rules", "pages", "forms"),
)
ENDINGS = ("py", "rs", "go", "ts", "js")
VERBS = ("load", "save", "send", "read", "drop", "find", "make", "sort", "count", "check")
NOUNS = (
    *("user", "order", "page", "key", "row", "line", "file", "item", "job", "mail", "price"),
    *("note", "event", "image", "rule", "token"),
)
NAME = re.compile(rf"\b[\w/]+\.(?:{'|'.join(ENDINGS)})\b|\b[a-z]+_[a-z]+\b")
KEYS = ("timeout", "retries", "limit", "size", "depth", "port", "level", "delay", "width", "rate")


def _tool(name: str, description: str, *params: str) -> dict[str, Any]:
    """A tool whose parameters are texts, all required."""
    properties = {param: {"type": "string"} for param in params}
    schema = {"type": "object", "properties": properties, "required": list(params)}
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


TOOLS = [
    _tool("read", "Read a file.", "path"),
    _tool("grep", "Search files.", "pattern"),
    _tool("bash", "Run a command.", "command"),
    _tool("edit", "Replace text.", "path", "old", "new"),
]


class Chat:
    """A conversation under construction; it begins with what the user asks.

    What is said names files and symbols in double quotes, spelt as in the calls.
    """

    def __init__(self, request: str) -> None:
        self.request = quoted(request)
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": self.request}]
        self.with_system = self.with_tools = True
        self._calls = 0

    def ask(self, text: str) -> "Chat":
        """The user speaks again."""
        self.messages.append({"role": "user", "content": quoted(text)})
        return self

    def say(self, text: str) -> "Chat":
        """An answer without a call."""
        self.messages.append({"role": "assistant", "content": quoted(text)})
        return self

    def call(self, *calls: tuple[dict[str, Any], str], text: str = "") -> "Chat":
        """One message with these calls, and after it the result of each."""
        made, results = [], []
        for function, result in calls:
            self._calls += 1
            key = f"call_{self._calls}"
            made.append({"id": key, "type": "function", "function": function})
            given = {"role": "tool", "tool_call_id": key, "content": result}
            results.append(given | {"name": function["name"]})
        self.messages.append({"role": "assistant", "content": quoted(text), "tool_calls": made})
        self.messages += results
        return self

    def join(self, other: "Chat") -> "Chat":
        """Go on with another conversation, its calls numbered after these."""
        for message in other.messages:
            for call in message.get("tool_calls", ()):
                call["id"] = f"call_{int(call['id'].removeprefix('call_')) + self._calls}"
            if "tool_call_id" in message:
                number = int(message["tool_call_id"].removeprefix("call_")) + self._calls
                message["tool_call_id"] = f"call_{number}"
            self.messages.append(message)
        self._calls += other._calls
        return self

    def vary(self, random: Random) -> None:
        """Draw what the form leaves free: null for no text, names of results, tools, system."""
        null, named = random.random() < 0.5, random.random() < 0.7
        self.with_system, self.with_tools = random.random() < 0.8, random.random() < 0.7
        for message in self.messages:
            if null and message["content"] == "" and "tool_calls" in message:
                message["content"] = None
            if not named:
                message.pop("name", None)


def quoted(text: str) -> str:
    """The text with its bare file names and symbols in double quotes."""
    parts = text.split('"')  # every second part stands in quotes already
    return '"'.join(
        NAME.sub(r'"\g<0>"', part) if n % 2 == 0 else part for n, part in enumerate(parts)
    )


def _function(name: str, **arguments: str) -> dict[str, Any]:
    return {"name": name, "arguments": orjson.dumps(arguments).decode()}


def read(path: str, result: str) -> tuple[dict[str, Any], str]:
    """A call of `read` and its result."""
    return _function("read", path=path), result


def grep(pattern: str, result: str) -> tuple[dict[str, Any], str]:
    """A call of `grep` and its result."""
    return _function("grep", pattern=pattern), result


def bash(command: str, result: str) -> tuple[dict[str, Any], str]:
    """A call of `bash` and its result."""
    return _function("bash", command=command), result


def edit(path: str, old: str, new: str, result: str = "1 change") -> tuple[dict[str, Any], str]:
    """A call of `edit` and its result."""
    return _function("edit", path=path, old=old, new=new), result


def file(random: Random) -> str:
    """A file name such as `parser.py`."""
    return f"{random.choice(STEMS)}.{random.choice(ENDINGS)}"


def files(random: Random) -> tuple[str, str]:
    """Two file names that differ in their stem."""
    first, second = random.sample(STEMS, 2)
    return f"{first}.{random.choice(ENDINGS)}", f"{second}.{random.choice(ENDINGS)}"


def symbol(random: Random) -> str:
    """A function name such as `load_user`."""
    return f"{random.choice(VERBS)}_{random.choice(NOUNS)}"


def setting(random: Random) -> tuple[str, int]:
    """The name and value of a setting."""
    return random.choice(KEYS), random.randint(2, 99)


def numbers(random: Random) -> tuple[int, int]:
    """Two different numbers."""
    first, second = random.sample(range(2, 100), 2)
    return first, second
