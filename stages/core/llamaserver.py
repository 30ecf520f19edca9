"""A GGUF file in; prompts as its own chat template renders them, and chats answered, out.

The file is served by llama.cpp's server inside this process, as a person would serve it.
"""

import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from stages.core import llama_abi
from stages.core.errors import TunesmithError
from stages.core.example import Message

Tools = list[dict[str, Any]] | None


class Served:
    """A running server; made by `serve`."""

    def __init__(self, server: Any, key: str) -> None:
        self._server, self._key = server, key

    def close(self) -> None:
        """Stop the server and free the model; its last reference does that."""
        self._server = None

    def render(self, messages: list[Message], tools: Tools) -> str | None:
        """The prompt for the next answer; None where llama.cpp cannot render it."""
        body = {"messages": messages} | ({"tools": tools} if tools else {})
        request = urllib.request.Request(  # noqa: S310 (the address is the server's own)
            f"{self._server.listening_address}/apply-template",
            orjson.dumps(body),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                return str(orjson.loads(answer.read())["prompt"])
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return None

    def finish(self, messages: list[Message], tools: Tools, most: int) -> str:
        """How the likeliest answer of at most `most` tokens ended.

        That is `stop` or `tool_calls` by itself, `length` at the limit, `error` where llama.cpp
        could not read the answer as one in this template's form.
        """
        body = {
            "messages": messages, "max_tokens": most, "temperature": 0.0, "cache_prompt": False,
        }  # fmt: skip
        answer = self._server.handle_chat_completions(body | ({"tools": tools} if tools else {}))
        return str(answer["choices"][0]["finish_reason"]) if "choices" in answer else "error"


@contextmanager
def serve(path: Path, context: int, threads: int) -> Iterator[Served]:
    """A server of this file on this machine alone, with room for `context` tokens a chat.

    Raises:
        TunesmithError: it does not start; no xllamacpp, or another version of it.
    """
    package, key = llama_abi.module(), secrets.token_hex(16)
    try:
        server = package.Server(settings(package, path, context, threads, key))
    except RuntimeError as problem:
        raise TunesmithError(
            f"llama.cpp's server cannot serve {path.name}: {problem}",
            where=str(path),
            why="The file is meant to be served; its chats are tried the way a person would.",
            do="Delete it and run its gguf stage again.",
        ) from problem
    made = Served(server, key)
    del server
    try:
        yield made
    finally:
        made.close()


def settings(package: Any, path: Path, context: int, threads: int, key: str) -> Any:
    """One chat at a time on the CPU, nothing kept between chats, nothing printed."""
    made = package.CommonParams()
    made.model.path = str(path)
    made.hostnames, made.port, made.api_keys = ["127.0.0.1"], 0, [key]
    made.n_ctx, made.n_parallel, made.n_gpu_layers = context, 1, 0
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = threads
    made.cache_prompt, made.cache_ram_mib = False, 0
    made.ui = made.warmup = made.fit_params = made.prefill_assistant = False
    made.verbosity = -1
    return made
