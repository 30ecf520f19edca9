"""Jobs in memory in; the Hub's jobs API on 127.0.0.1 out, as huggingface_hub 2.4.0 asks it.

`whoami`, `list_jobs` (filtered by labels, in pages), `list_jobs_hardware`, `run_job`,
`fetch_job_logs` and `cancel_job`. What is answered has the keys that the client reads; a job's
secrets are answered by their names alone, as the Hub's pages show it.
"""

import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER = {"id": "5e9e", "name": "me", "type": "user"}
JOBS = re.compile(r"/api/jobs/(?P<who>[^/]+)")
ONE = re.compile(r"/api/jobs/(?P<who>[^/]+)/(?P<id>[^/]+)(?P<what>/cancel|/logs)?")
A10G = {"type": "gpu", "model": "A10G", "quantity": "1", "vram": "24 GB", "manufacturer": "Nvidia"}


def machine(name: str, micro: int, accelerator: dict[str, str] | None = None) -> dict[str, Any]:
    """A flavor, priced by the minute."""
    return {
        "name": name,
        "prettyName": name,
        "cpu": "4 vCPU",
        "ram": "15 GB",
        "accelerator": accelerator,
        "unitCostMicroUSD": micro,
        "unitCostUSD": micro / 1e6,
        "unitLabel": "minute",
    }


class Jobs:
    """What the server holds and how it misbehaves.

    Attributes:
        token: the only one that is accepted.
        held: the jobs, in the order in which they came.
        posted: the body of each request for one.
        raw: all bytes that came: path and body of each request.
        asked: method and path of each request.
        hardware: the flavors; None for an endpoint that is not there.
        refuse: a part of `METHOD path` and the status with which it is answered, its body
            repeating the token.
        cut: hang up in place of answering the next request for a job, which is made all the same.
        deaf: hang up on every request.
        lag: how often a cancelled job is listed with its old stage.
        filters: whether labels are looked at.
        page: how many jobs a page of the list has.
        logs: lines by id.
        open: keep a log open after its lines, until `go` is set.
        gave_up: whether somebody waited for the end of such a log.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.held: list[dict[str, Any]] = []
        self.posted: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.asked: list[str] = []
        self.hardware: list[dict[str, Any]] | None = [
            machine("cpu-basic", 167),
            machine("a10g-small", 16667, A10G),
            machine("a10g-largex2", 50000, {**A10G, "quantity": "2"}),
        ]
        self.refuse: dict[str, int] = {}
        self.cut = self.deaf = self.open = self.gave_up = False
        self.lag = 0
        self.filters = True
        self.page = 100
        self.logs: dict[str, list[str]] = {}
        self.go = threading.Event()
        self.url = ""

    def add(self, body: dict[str, Any], stage: str = "RUNNING") -> dict[str, Any]:
        """A job as it is asked for, and as it is answered from then on."""
        number = len(self.held)
        made = {
            "id": f"6a2b{number:020x}",
            "createdAt": f"2026-11-22T08:{number // 60:02d}:{number % 60:02d}.000Z",
            **{key: body.get(key) for key in ("command", "arguments", "environment", "flavor")},
            "dockerImage": body.get("dockerImage"),
            "labels": body.get("labels"),
            "secrets": sorted(body.get("secrets", {})),
            "status": {"stage": stage, "message": None},
            "owner": OWNER,
            "lag": 0,
        }
        self.held.append(made)
        return made

    def stages(self) -> list[str]:
        return [job["status"]["stage"] for job in self.held]


@contextmanager
def serving(jobs: Jobs) -> Iterator[Jobs]:
    """Serve `jobs` on a free port while the block runs; `jobs.url` is its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"jobs": jobs}))
    jobs.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield jobs
    finally:
        jobs.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    jobs: Jobs
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two writes would wait 40 ms for an ACK

    def log_message(self, *args: object) -> None:
        """Keep the tests' output to the tests."""

    def do_GET(self) -> None:
        self._answer("")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())

    def _answer(self, body: str) -> None:
        jobs, (path, _, query) = self.jobs, self.path.partition("?")
        asked = f"{self.command} {path}"
        jobs.asked.append(asked)
        jobs.raw += [self.path, body]
        refused = [status for part, status in jobs.refuse.items() if part in asked]
        if jobs.deaf:
            self.close_connection = True
        elif refused:
            self._json({"error": f"no: {self.headers.get('Authorization')} {body}"}, refused[0])
        elif path == "/api/jobs/hardware":
            self._json(jobs.hardware or {}, 404 if jobs.hardware is None else 200)
        elif self.headers.get("Authorization") != f"Bearer {jobs.token}":
            self._json({"error": "Invalid credentials"}, 401)
        elif path == "/api/whoami-v2":
            self._json({"name": "me", "orgs": []})
        elif found := JOBS.fullmatch(path):
            self._run(json.loads(body)) if body else self._list(path, query)
        elif found := ONE.fullmatch(path):
            self._one(found["id"], found["what"] or "")
        else:
            self._json({}, 404)

    def _run(self, body: dict[str, Any]) -> None:
        self.jobs.posted.append(body)
        flavors = [each["name"] for each in self.jobs.hardware or []]
        if flavors and body["flavor"] not in flavors:
            self._json({"error": "unknown flavor"}, 404)
            return
        made = self.jobs.add(body)
        if self.jobs.cut:
            self.jobs.cut, self.close_connection = False, True
        else:
            self._json(made)

    def _list(self, path: str, query: str) -> None:
        asked = urllib.parse.parse_qs(query)
        wanted = dict(label.split("=", 1) for label in asked.get("label", []))
        found = [
            self._seen(job)
            for job in self.jobs.held
            if not self.jobs.filters or wanted.items() <= (job["labels"] or {}).items()
        ]
        first = int(asked.get("from", ["0"])[0])
        after = first + self.jobs.page
        more = urllib.parse.urlencode({**asked, "from": after}, doseq=True)
        link = f'<{self.jobs.url}{path}?{more}>; rel="next"' if after < len(found) else ""
        self._json(found[first:after], link=link)

    def _seen(self, job: dict[str, Any]) -> dict[str, Any]:
        """How a job is listed: one that was cancelled goes on for a while."""
        if job["status"]["stage"] == "CANCELED" and job["lag"] > 0:
            job["lag"] -= 1
            return {**job, "status": {"stage": "RUNNING", "message": None}}
        return job

    def _one(self, name: str, what: str) -> None:
        (job,) = [each for each in self.jobs.held if each["id"] == name] or [None]
        if job is None:
            self._json({"error": "no such job"}, 404)
        elif what == "/cancel":
            if job["status"]["stage"] not in ("RUNNING", "SCHEDULING"):
                self._json({"error": "it has ended"}, 409)
                return
            job["status"]["stage"], job["lag"] = "CANCELED", self.jobs.lag
            self._json(job)
        elif what == "/logs":
            self._log(self.jobs.logs.get(name, []))
        else:
            self._json(job)

    def _log(self, lines: list[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for line in ["===== Job started at 2026-11-22 08:00:00 =====", *lines]:
            event = json.dumps({"timestamp": "2026-01-01T08:00:00.000Z", "data": line})
            self.wfile.write(f"event: log\ndata: {event}\n\n".encode())
        self.wfile.flush()
        if self.jobs.open:
            self.jobs.gave_up = not self.jobs.go.wait(30)
        self.close_connection = True

    def _json(self, answer: object, status: int = 200, link: str = "") -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if link:
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(body)
