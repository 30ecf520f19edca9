"""A base's own chat template and a chat in; the exact text the template renders out."""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import orjson
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages.core.errors import TunesmithError
from stages.core.example import Message

# The day `strftime_now` answers with: Llama 3's own fall-back date. Today's date would give
# other tokens tomorrow.
CLOCK = datetime(2024, 7, 26)
NAMED_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
REASONING = ("reasoning_content", "thinking", "reasoning")
# What foreign template code can raise beside jinja2's own errors.
FAILURES = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError)
# A content that no real one begins like.
_OTHER = "\x1a"
_DICT_NAMES = frozenset(dir(dict))
_LOOP_NAMES = frozenset(("first", "last", "index", "index0", "length", "previtem", "nextitem"))


class RenderError(Exception):
    """The template refuses this chat; the text says where and why."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox transformers renders in, with a short way to a plain dict's keys."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As jinja2's; a plain dict has no attribute but its methods, so look no further."""
        kind = type(obj)
        if kind is dict and attribute not in _DICT_NAMES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if kind is LoopContext and attribute in _LOOP_NAMES:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


class Generation(Extension):
    """`{% generation %}` marks text for trainers; here its body just renders."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's interface)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Turn(NamedTuple):
    """One assistant turn: the prompt that asks for it, and the letter it ends before."""

    prompt: str
    limit: int


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """One base's template.

    Attributes:
        text: the template's source.
        named: bos_token, eos_token, … as the template sees them.
        with_tools: the source used for chats that offer tools, where the base has a separate one.
    """

    text: str
    named: dict[str, str]
    with_tools: str | None
    _plain: jinja2.Template
    _tools: jinja2.Template
    _memo: dict[int, tuple[Any, str]]

    @property
    def sha256(self) -> str:
        """Hex digest of the template's source, UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def uses_clock(self) -> bool:
        """Whether the template may write today's date; here it is always that of `CLOCK`."""
        return "strftime_now" in self.text + (self.with_tools or "")

    def render(
        self, messages: list[Message], tools: list[dict[str, Any]] | None, generation_prompt: bool
    ) -> str:
        """What `apply_chat_template(..., tokenize=False)` of transformers 5 gives.

        Raises:
            RenderError: the template itself refuses the chat, or fails on it.
        """
        template = self._tools if tools else self._plain
        try:
            return template.render(
                messages=messages,
                tools=tools or None,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self.named,
            )
        except FAILURES as failure:
            raise RenderError(f"{type(failure).__name__}: {failure}") from failure

    def turns(
        self, messages: list[Message], tools: list[dict[str, Any]] | None
    ) -> tuple[str, list[Turn]]:
        """The whole chat's text, and where each assistant turn stands in it.

        Raises:
            RenderError: naming the message at which the template fails.
        """
        self._memo.clear()
        messages = [_as_template_sees(message) for message in messages]
        whole = self.render(messages, tools, generation_prompt=False)
        found = []
        for number, message in enumerate(messages):
            if message.get("role") == "assistant":
                try:
                    prompt = self.render(messages[:number], tools, generation_prompt=True)
                    limit = self._limit(whole, messages[: number + 2], number, tools)
                except RenderError as failure:
                    raise RenderError(f"at message {number + 1}: {failure}") from failure
                found.append(Turn(prompt, limit))
        return whole, found

    def _limit(
        self, whole: str, messages: list[Message], number: int, tools: list[dict[str, Any]] | None
    ) -> int:
        """Where the text of message `number` is over: at the latest where the next one's begins.

        With another content for the next message the text is the same up to that place. (A chat
        cut off after this turn would not do: some templates write the last turn differently.)
        """
        if number + 1 == len(messages):
            return len(whole)
        changed = [*messages[:-1], {**messages[-1], "content": _OTHER}]
        other = self.render(changed, tools, generation_prompt=False)
        lengths = range(min(len(whole), len(other)) + 1)
        differs = bisect_left(lengths, True, key=lambda n: not whole.startswith(other[:n]))
        return differs - 1


def load(base: Path) -> ChatTemplate:
    """The template of a base folder, found as transformers finds it.

    `chat_template.jinja` goes before `chat_template` in `tokenizer_config.json`; a list there, or
    `additional_chat_templates/tool_use.jinja`, may bring one of its own for chats with tools.

    Raises:
        TunesmithError: no template, a blank one, or one that is not Jinja.
    """
    config = read_config(base)
    texts = _texts(base, config)
    text = texts.get("default")
    if text is None or not text.strip():
        found = "is blank" if isinstance(text, str) else "is missing"
        raise TunesmithError(
            f"The chat template of this base {found}.",
            where=f"{base}/chat_template.jinja",
            why="Without its template a chat cannot become the text this base is prompted with.",
            do="Use an instruct variant of this base, or put its chat_template.jinja there.",
        )
    memo: dict[int, tuple[Any, str]] = {}
    environment = _environment(memo)
    plain = _compile(environment, text, base)
    with_tools = texts.get("tool_use")
    tools = _compile(environment, with_tools, base) if with_tools else plain
    return ChatTemplate(text, named_tokens(config), with_tools, plain, tools, memo)


def read_config(base: Path) -> dict[str, Any]:
    """`tokenizer_config.json` of a base folder.

    Raises:
        TunesmithError: the file is missing or is no JSON object.
    """
    path = base / "tokenizer_config.json"
    try:
        config = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError) as problem:
        raise TunesmithError(
            f"tokenizer_config.json cannot be read: {problem}.",
            where=str(path),
            why="It names the base's end-of-turn token; without it nothing learns to stop.",
            do="Make the base again: dvc repro base",
        ) from problem
    return dict(config)


def _texts(base: Path, config: dict[str, Any]) -> dict[str, str]:
    named = config.get("chat_template")
    if isinstance(named, list):
        texts = {entry["name"]: entry["template"] for entry in named}
    else:
        texts = {} if named is None else {"default": named}
    files = {
        "default": base / "chat_template.jinja",
        "tool_use": base / "additional_chat_templates" / "tool_use.jinja",
    }
    found = {name: path.read_text("utf-8") for name, path in files.items() if path.is_file()}
    # A template file replaces whatever the configuration holds, all its names included.
    return found or texts


def named_tokens(config: dict[str, Any]) -> dict[str, str]:
    """The named tokens that are set; the configuration writes them as text or as an object."""
    values = {name: config.get(name) for name in NAMED_TOKENS}
    return {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def _compile(environment: Sandbox, text: str, base: Path) -> jinja2.Template:
    try:
        compiled = environment.from_string(text)
    except jinja2.TemplateSyntaxError as problem:
        raise TunesmithError(
            f"The chat template is not Jinja: {problem}",
            where=f"{base}/chat_template.jinja:{problem.lineno}",
            why="A template that does not compile cannot prompt the model anywhere.",
            do="Repair that line, or take the base's own file again: dvc repro base",
        ) from problem
    # A plain dict instead of jinja2's chained one: every rendering copies it.
    compiled.globals = dict(compiled.globals)
    return compiled


def _environment(memo: dict[int, tuple[Any, str]]) -> Sandbox:
    """The environment of transformers' `render_jinja_template`: its tags, filters and globals."""
    environment = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson(memo)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = CLOCK.strftime
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(memo: dict[int, tuple[Any, str]]) -> Callable[..., str]:
    """The `tojson` filter: plain JSON, not HTML-escaped.

    A chat's prompts share their tools, so each object's text is kept while the chat lasts.
    """

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        if ensure_ascii or options:
            return json.dumps(value, ensure_ascii=ensure_ascii, **options)
        known = memo.get(id(value))
        if known is None or known[0] is not value:
            known = memo[id(value)] = (value, json.dumps(value, ensure_ascii=False))
        return known[1]

    return tojson


def _as_template_sees(message: Message) -> Message:
    """The message without its null fields, reasoning under every name templates read."""
    if None in message.values():
        message = {key: value for key, value in message.items() if value is not None}
    reasoning = next((message[key] for key in REASONING if key in message), None)
    if reasoning is not None:
        message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message
