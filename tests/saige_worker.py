"""A SAIGE worker on loopback, real HTTP: scenarios, outcomes, statistics, and faults on demand.

Its model is an OpenAI-compatible endpoint of the same server, so that one process has all that
`tunesmith collect` speaks to.
"""

import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

HARMS = ("deception", "harshness", "omission", "manipulation")
GARBAGE = {
    "html": b"<html>502 Bad Gateway</html>",
    "list": b"[1, 2]",
    "empty": b"",
    "not utf-8": b'{"a": "\xff"}',
    "nan": b'{"total_harm": NaN}',
    "other keys": b'{"ok": true}',
}


def scenario(number: int, difficulty: int = 5) -> dict[str, Any]:
    """A row of `scenarios` with its JSON columns decoded, as the worker sends it."""
    return {
        "id": number,
        "context": f"Somebody asks for the truth about thing {number}.",
        "person_state": {"mood": "sad", "vulnerability": "high"} if number % 2 else {},
        "facts": ["It is so."],
        "critical_info": ["Say it."],
        "difficulty_level": difficulty,
        "harm_type": "omission",
        "expected_response": None,
        "created_at": "2025-02-01 09:00:00",
    }


def outcome(response: str) -> dict[str, Any]:
    """The rating of a response: each exclamation mark is harsh."""
    breakdown = dict.fromkeys(HARMS, 0.0) | {"harshness": min(response.count("!") / 4, 1.0)}
    scores = dict.fromkeys(("ahimsa", "sacca", "karuna", "panna", "upekkha"), 8)
    return {
        "total_harm": sum(breakdown.values()) / 4,
        "breakdown": breakdown,
        "details": [],
        "lesson": "Speak softly.",
        "buddhist_assessment": {
            "principle_scores": scores, "total_score": 40, "weighted_score": 8.0,
            "strengths": [], "weaknesses": [], "alignment_level": "excellent",
        },
    }  # fmt: skip


@dataclass
class Worker:
    """A running worker.

    Attributes:
        url: its address.
        scenarios: by id; sent in turn.
        rows: what it stored: (scenario id, response, idempotency key).
        asked: every request: (path, body or query, headers).
        faults: by path, what goes wrong with its next requests; None is a request that works.
        held: set as soon as a request is held back by the fault "hold".
        free: lets held requests go on.
    """

    url: str = ""
    scenarios: dict[int, dict[str, Any]] = field(default_factory=dict)
    rows: list[tuple[Any, str, str]] = field(default_factory=list)
    asked: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    faults: dict[str, deque[Any]] = field(default_factory=lambda: defaultdict(deque))
    held: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked == path for asked, _, _ in self.asked)


class _Handler(BaseHTTPRequestHandler):
    worker: Worker

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self._serve(parts.path, query)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve(self.path, json.loads(raw))

    def _serve(self, path: str, body: dict[str, Any]) -> None:
        worker = self.worker
        worker.asked.append((path, body, dict(self.headers)))
        fault = worker.faults[path].popleft() if worker.faults[path] else None
        if fault == "drop":
            return self.close_connection_now()
        if fault in ("hold", "stored then hold"):
            if fault == "stored then hold":
                self._answer(path, body)
            worker.held.set()
            worker.free.wait(60)
            return self.close_connection_now()
        if isinstance(fault, int):
            return self._send(fault, json.dumps({"error": f"fault {fault}"}).encode())
        if isinstance(fault, dict):
            return self._send(200, json.dumps(fault).encode())
        if fault is not None:
            return self._send(200, GARBAGE[fault])
        return self._send(*self._answer(path, body))

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        status, found = {
            "/api/get-scenario": self._scenario,
            "/api/simulate-outcome": self._outcome,
            "/api/stats": self._stats,
            "/v1/chat/completions": self._completion,
        }[path](body)
        return status, json.dumps(found).encode()

    def _scenario(self, query: dict[str, Any]) -> tuple[int, Any]:
        wanted = int(query.get("difficulty", 2))
        fitting = [s for s in self.worker.scenarios.values() if s["difficulty_level"] == wanted]
        if not fitting:
            return 404, {"error": "No scenarios found"}
        return 200, fitting[self.worker.count("/api/get-scenario") % len(fitting)]

    def _outcome(self, body: dict[str, Any]) -> tuple[int, Any]:
        number, response = body.get("scenario_id"), body.get("response")
        if number is None or not response:
            return 400, {"error": "Missing scenario_id or response"}
        if number not in self.worker.scenarios:
            return 404, {"error": "Scenario not found"}
        key = self.headers.get("Idempotency-Key", "")
        self.worker.rows.append((number, response, key))
        return 200, outcome(response)

    def _stats(self, _: dict[str, Any]) -> tuple[int, Any]:
        harms = [outcome(response)["total_harm"] for _, response, _ in self.worker.rows]
        stats = {
            "total_episodes": len(harms),
            "avg_harm": sum(harms) / len(harms) if harms else None,
            "best_harm": min(harms, default=None),
            "worst_harm": max(harms, default=None),
        }
        return 200, {"stats": stats, "trend": []}

    def _completion(self, body: dict[str, Any]) -> tuple[int, Any]:
        number = self.worker.count("/v1/chat/completions")
        message = {"role": "assistant", "content": f"Answer {number}!"}
        return 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    def _send(self, status: int, raw: bytes) -> None:
        self.send_response(status)
        if status in (301, 302, 307, 308):
            self.send_header("Location", "/api/elsewhere")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def close_connection_now(self) -> None:
        """End without an answer, as a crashed server does."""
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing on the terminal."""


@contextmanager
def serving(scenarios: int = 4) -> Iterator[Worker]:
    """A worker with so many scenarios of difficulty 5, for as long as the block lasts."""
    worker = Worker(scenarios={number: scenario(number) for number in range(1, scenarios + 1)})
    handler = type("Handler", (_Handler,), {"worker": worker})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    worker.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield worker
    finally:
        worker.free.set()
        server.shutdown()
        thread.join()
        server.server_close()
