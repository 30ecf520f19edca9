"""A GGUF file in; its token ids, its logits and its own answers out, as llama.cpp gives them.

Everything runs on the CPU and in an order fixed by the prompts, so the same file on the same
machine gives the same numbers.
"""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import numpy as np

from stages.core import llama_abi
from stages.core.errors import TunesmithError
from stages.core.llama_abi import Library

SLOTS = 16
SMALL = 256 << 20  # bytes of a file up to which every core works alone
STEP = 512  # tokens that one call works on, and the most logits held at a time


@dataclass(frozen=True, slots=True)
class Answer:
    """What followed a prompt: its ids without the one that ended it, and how it ended.

    Attributes:
        ids: token ids.
        end: the id that ended the answer; -1 where it ran to the limit.
    """

    ids: list[int]
    end: int

    @property
    def stopped(self) -> bool:
        """Whether it ended by itself."""
        return self.end >= 0

    @property
    def whole(self) -> list[int]:
        """The ids with the one that ended it."""
        return [*self.ids, self.end] if self.stopped else self.ids


@dataclass(slots=True)
class _Slot:
    """One answer in the making."""

    row: int
    place: int
    most: int
    found: list[int] = field(default_factory=list)


class Runtime:
    """An open file; made by `open_file`."""

    def __init__(self, library: Library, path: Path, model: int) -> None:
        self.path, self._library, self._model = path, library, model
        self._vocab = library.model_get_vocab(model)
        self.vocabulary: int = library.vocab_n_tokens(self._vocab)
        self.eos: int = library.vocab_eos(self._vocab)
        self.adds_bos: bool = library.vocab_get_add_bos(self._vocab)
        self.context: int = library.model_n_ctx_train(model)
        self.workers, self._threads = sharing(path)

    def template(self) -> str | None:
        """The chat template in the file; None where there is none."""
        found: bytes | None = self._library.model_chat_template(self._model, None)
        return None if found is None else found.decode("utf-8", "surrogateescape")

    def ends(self, token: int) -> bool:
        """Whether llama.cpp ends an answer at this token."""
        return bool(self._library.vocab_is_eog(self._vocab, token))

    def token_ids(self, text: str, parse_special: bool = True, whole: bool = False) -> list[int]:
        """The ids of a text.

        With `parse_special` the text of a control token becomes that token, else plain text.
        With `whole` the file's own BOS and EOS rules apply, as for a prompt; else nothing is
        put before or behind.
        """
        raw = text.encode()
        room = len(raw) + 8
        ids = (ctypes.c_int32 * room)()
        count = self._library.tokenize(self._vocab, raw, len(raw), ids, room, whole, parse_special)
        return list(ids[:count])

    def text(self, ids: Sequence[int], control: bool = False) -> str:
        """The text of ids; control tokens leave no text unless `control`."""
        found = (ctypes.c_int32 * len(ids))(*ids)
        size = -self._library.detokenize(self._vocab, found, len(ids), None, 0, False, control)
        raw = ctypes.create_string_buffer(max(size, 1))
        self._library.detokenize(self._vocab, found, len(ids), raw, size, False, control)
        return raw.raw[:size].decode("utf-8", "replace")

    def logits(self, ids: Sequence[int], places: Sequence[int] | None = None) -> np.ndarray:
        """float32 [places, vocabulary]: the scores of what follows each place, in order.

        Without `places`, after every token. Place p has seen ids[: p + 1].
        """
        wanted = set(range(len(ids)) if places is None else places)
        rows = [np.empty((0, self.vocabulary), np.float32)]
        with self._session(len(ids), 1) as session:
            for start in range(0, len(ids), STEP):
                part = enumerate(ids[start : start + STEP], start)
                rows.append(session.decode([(0, at, token, at in wanted) for at, token in part]))
        return np.concatenate(rows)

    def answers(self, prompts: Sequence[Sequence[int]], most: int) -> Iterator[tuple[int, Answer]]:
        """Yield (index of the prompt, its likeliest answer of at most `most` tokens) as made.

        An answer also ends where the model's context does.

        Raises:
            TunesmithError: a prompt without tokens, or one that the context cannot hold.
        """
        for prompt in prompts:
            if not 0 < len(prompt) < self.context:
                held = f"and its context holds {self.context}"
                raise self._refused(f"a prompt has {len(prompt)} tokens, {held}")
        made: SimpleQueue[tuple[int, Answer] | Future[None]] = SimpleQueue()
        halt, busy = Event(), self.workers
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for worker in range(self.workers):
                    share = range(worker, len(prompts), self.workers)
                    work = pool.submit(self._share, prompts, share, most, made.put, halt)
                    work.add_done_callback(made.put)  # a worker's last word
                while busy:
                    found = made.get()
                    if isinstance(found, Future):
                        found.result()
                        busy -= 1
                    else:
                        yield found
            finally:
                halt.set()

    def _share(
        self,
        prompts: Sequence[Sequence[int]],
        share: Sequence[int],
        most: int,
        put: Callable[[tuple[int, Answer]], None],
        halt: Event,
    ) -> None:
        """Answer a share of the prompts; a finished one leaves its place to the next."""
        if not share:
            return
        longest = min(max(len(prompts[row]) for row in share) + most, self.context)
        slots = min(max(SLOTS // self.workers, 2), len(share))
        waiting, free = list(share)[::-1], list(range(slots))[::-1]
        live: dict[int, _Slot] = {}
        with self._session(longest, slots) as session:
            while (waiting or live) and not halt.is_set():
                if waiting and free:
                    slot, row = free.pop(), waiting.pop()
                    length = len(prompts[row])
                    live[slot] = _Slot(row, length, min(most, self.context - length))
                    picked = {slot: int(session.prefill(slot, prompts[row]).argmax())}
                else:
                    last = [(slot, s.place - 1, s.found[-1], True) for slot, s in live.items()]
                    best = session.decode(last).argmax(axis=1).tolist()
                    picked = dict(zip(live, best, strict=True))
                for slot, token in picked.items():
                    answer = self._take(live[slot], token)
                    if answer is not None:
                        put((live.pop(slot).row, answer))
                        session.forget(slot)
                        free.append(slot)

    def _take(self, slot: _Slot, token: int) -> Answer | None:
        """Add a token to an answer; the answer, once it is whole."""
        if self.ends(token):
            return Answer(slot.found, token)
        slot.found.append(token)
        slot.place += 1
        return Answer(slot.found, -1) if len(slot.found) == slot.most else None

    def _refused(self, what: str) -> TunesmithError:
        return TunesmithError(
            f"{self.path.name} cannot be run: {what}.",
            where=str(self.path),
            why="Only what the file itself answers can be compared with the model.",
            do="Delete it and run its gguf stage again.",
        )

    @contextmanager
    def _session(self, length: int, sequences: int) -> Iterator["_Session"]:
        """A context for sequences of at most `length` tokens each, freed at the end."""
        settings = self._library.context_default_params()
        size = -(-max(length, 1) // 256) * 256  # llama.cpp's own step
        settings.n_ctx, settings.n_seq_max = size * sequences, sequences
        settings.n_batch = settings.n_ubatch = STEP
        settings.n_outputs_max_per_seq = 0  # as many as the batch holds
        settings.n_threads = settings.n_threads_batch = self._threads
        context = self._library.init_from_model(self._model, settings)
        if not context:
            raise self._refused(llama_abi.errors())
        try:
            yield _Session(self, self._library, context)
        finally:
            self._library.free(context)


class _Session:
    """A context and its key-value cache."""

    def __init__(self, runtime: Runtime, library: Library, context: int) -> None:
        self._runtime, self._library, self._context = runtime, library, context

    def decode(self, tokens: Sequence[tuple[int, int, int, bool]]) -> np.ndarray:
        """float32 [wanted, vocabulary] for (sequence, place, id, wanted?), wanted ones in order."""
        library = self._library
        batch = library.batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for number, (sequence, place, token, wanted) in enumerate(tokens):
                batch.token[number], batch.pos[number] = token, place
                batch.n_seq_id[number], batch.seq_id[number][0] = 1, sequence
                batch.logits[number] = wanted
            failed = library.decode(self._context, batch)
        finally:
            library.batch_free(batch)
        if failed:
            raise self._runtime._refused(f"decoding gave {failed}: {llama_abi.errors()}")
        count = sum(token[3] for token in tokens)
        shape = (count, self._runtime.vocabulary)
        if not count:
            return np.empty(shape, np.float32)
        # copied: the next call writes the same memory
        return np.array(np.ctypeslib.as_array(library.get_logits(self._context), shape))

    def prefill(self, sequence: int, ids: Sequence[int]) -> np.ndarray:
        """float32 [vocabulary]: the scores of what follows a prompt."""
        for start in range(0, len(ids), STEP):
            part = enumerate(ids[start : start + STEP], start)
            scores = self.decode([(sequence, at, token, at == len(ids) - 1) for at, token in part])
        found: np.ndarray = scores[0]
        return found

    def forget(self, sequence: int) -> None:
        """Free the places of a sequence."""
        self._library.memory_seq_rm(self._library.get_memory(self._context), sequence, -1, -1)


def cores() -> int:
    """The cores this process may use, at most 16: beyond that they only wait for the memory."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(len(affinity(0)) if affinity else os.cpu_count() or 1, 16)


def sharing(path: Path) -> tuple[int, int]:
    """(sequences of work side by side, threads of each) for a file.

    Threads of one small decode mostly wait for each other (16 times slower on a busy machine);
    a large model is better read from memory once for all its sequences.
    """
    return (cores(), 1) if path.stat().st_size <= SMALL else (1, cores())


@contextmanager
def open_file(path: Path) -> Iterator[Runtime]:
    """A GGUF file ready to run, freed at the end.

    Raises:
        TunesmithError: llama.cpp refuses the file; its own reason is in the message.
        MissingPackage: xllamacpp is not installed.
    """
    library = llama_abi.library()
    llama_abi.listen(library)
    settings = library.model_default_params()
    none = (ctypes.c_void_p * 1)(None)  # an empty list of devices: the CPU alone
    settings.devices, settings.n_gpu_layers = none, 0
    model: Any = library.model_load_from_file(os.fsencode(path), settings)
    if not model:
        raise TunesmithError(
            f"llama.cpp cannot open {path.name}: {llama_abi.errors()}",
            where=str(path),
            why="A file that llama.cpp refuses runs in none of the programs built on it.",
            do="Delete it and run its gguf stage again.",
        )
    try:
        yield Runtime(library, path, model)
    finally:
        library.model_free(model)
