"""A GGUF of ours, or an OpenAI-compatible endpoint, in; its answers to chats out."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.commands.collect.web import PassingError, Site
from stages.core import gguf_file, llama_abi, llamaruntime, llamaserver
from stages.core.errors import TunesmithError
from stages.core.example import Message

PATH = "/chat/completions"
CONTEXT = 4096  # tokens of a served chat, where the model has so many
MINUTES = 600.0  # seconds for an answer on a slow machine


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answers.

    Attributes:
        name: as `model_version` says it.
        seeded: whether it takes a seed; the model of a foreign endpoint may refuse one.
    """

    site: Site
    model: str
    name: str
    sampling: Sampling
    seeded: bool

    def answer(self, messages: list[Message], seed: int) -> str:
        """What is answered to a chat.

        Raises:
            PassingError: none came, it is empty, or it was cut off at `max_tokens`.
            FailedError: the chat is refused.
        """
        drawn = self.sampling
        body: dict[str, Any] = {
            "model": self.model, "messages": messages, "temperature": drawn.temperature,
            "top_p": drawn.top_p, "max_tokens": drawn.max_tokens,
        }  # fmt: skip
        found = self.site.ask(PATH, body | ({"seed": seed} if self.seeded else {}))
        try:
            choice = found["choices"][0]
            text, end = choice["message"]["content"], choice.get("finish_reason")
        except (LookupError, TypeError, AttributeError) as problem:
            raise PassingError(f"{PATH}: the answer holds no choice") from problem
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise PassingError(f"{PATH}: the answer is empty or no text")
        if end == "length":
            raise PassingError(f"{PATH}: the answer was cut off at {drawn.max_tokens} tokens")
        return text.strip()


@contextmanager
def gguf(path: Path, name: str, sampling: Sampling) -> Iterator[Answerer]:
    """A file served on this machine alone, for as long as the block lasts.

    Raises:
        TunesmithError: llama.cpp cannot serve it.
        MissingPackage: xllamacpp is not installed.
    """
    package, key = llama_abi.module(), secrets.token_hex(16)
    header = gguf_file.read(path).metadata
    known = header.get(f"{header.get('general.architecture')}.context_length", CONTEXT)
    _, threads = llamaruntime.sharing(path)
    settings = llamaserver.settings(package, path, min(CONTEXT, known), threads, key)
    try:
        server = package.Server(settings)
    except RuntimeError as problem:
        raise TunesmithError(
            f"llama.cpp's server cannot serve {path.name}: {problem}",
            where=str(path),
            why="Its answers are what is to be collected.",
            do="Delete it and run its gguf stage again.",
        ) from problem
    site = Site(f"{server.listening_address}/v1", key, MINUTES)
    try:
        yield Answerer(site, path.stem, name, sampling, seeded=True)
    finally:
        del server  # its last reference stops it
