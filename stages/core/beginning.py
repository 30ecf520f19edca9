"""A job in; on another machine its workspace is made, prepared and given to the worker.

`text` is what a place is sent: the source of this very file, and a last line that calls it. It
needs Python 3.9 and git, and nothing of Tunesmith, which is in the commit that it fetches. The
environment says TUNESMITH_NODE (which of several machines this is, 0 without it), TUNESMITH_MASTER
(where they meet) and TUNESMITH_DETACH (go on in the background, and write what is said to a file).

Below the folder that the place names, the project has a folder of its own:

    repo/, cache/          a git repository with the commits of jobs; DVC's cache, for all jobs
    prepared               the digest of the last set-up that ended well
    jobs/<id>/job.<n>.json what this machine, the n-th of the job, was told
    jobs/<id>/lock.<n>     held while anything of it runs here, with the number of its process
    jobs/<id>/said.<n>.txt what was said in the background
    jobs/<id>/work.<n>/    the checkout; work.<n>.made: once it is whole
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

BUSY = 75  # exit code: the job is at work here already, as this attempt
OTHER = 76  # exit code: it is at work here as another attempt
UNPREPARED = 71  # exit code: the workspace could not be made or prepared
TOLD = 143  # exit code: it was told to end before the worker ran
MOMENT = 3.0  # seconds in which whoever only asks for a lock has let go of it
GRACE = 30.0  # seconds for a job that was told to end
LATE = 300  # seconds after a job's limit until it is ended from outside of the worker


def text(job: dict[str, Any], act: str = "begin") -> str:
    """A program that begins this job on the machine that runs it, or asks for it there."""
    source = Path(__file__).read_text(encoding="utf-8")
    return f"{source}\n\nsys.exit({act}(json.loads({json.dumps(json.dumps(job))})))\n"


def begin(job: dict[str, Any]) -> int:
    """Make and prepare the workspace and run the job; the exit code of the worker."""
    own, node = where(job)
    own.mkdir(parents=True, exist_ok=True)
    told, work = own / f"job.{node}.json", own / f"work.{node}"
    held = hold(own / f"lock.{node}", MOMENT)
    if held is None:
        print(f"this job is at work here already, as attempt {attempt(told)}")
        return BUSY if attempt(told) == job["attempt"] else OTHER
    held.truncate(0)  # it names a process that has ended
    master = os.environ.pop("TUNESMITH_MASTER", "")
    told.write_text(json.dumps({"job": job, "node": int(node), "master": master}), encoding="utf-8")
    os.environ.pop("TUNESMITH_NODE", "")
    if not os.environ.pop("TUNESMITH_DETACH", ""):
        held.write(str(os.getpid()).encode())
    elif not detached(own / f"said.{node}.txt", held):
        return 0
    command = Command(held)
    if job["hours"]:
        signal.alarm(int(job["hours"] * 3600) + LATE)
    try:
        folder = checkout(command, job, work)
        prepare(command, job, folder)
        code = run(command, job, folder, told)
        if code == 0:  # its outputs are in the cache and at the remote
            remove(command, home(job) / "repo", work)
    except subprocess.CalledProcessError as failure:
        said = f"error: this has failed, with {failure.returncode}: {' '.join(failure.cmd)}"
        print("it was told to end" if command.told else said)
        return TOLD if command.told else UNPREPARED
    except OSError as failure:  # a full disk, or no such `python`
        print(f"error: {failure}")
        return UNPREPARED
    return code


def state(job: dict[str, Any]) -> int:
    """Say `running`, or of this attempt `ended` or `none`."""
    own, node = where(job)
    lock = own / f"lock.{node}"
    runs = lock.exists() and hold(lock) is None
    ended = attempt(own / f"job.{node}.json") == job["attempt"]
    print("running" if runs else "ended" if ended else "none")
    return 0


def said(job: dict[str, Any]) -> int:
    """Print what a job has said in the background of this machine, the end of it if it is long."""
    own, node = where(job)
    path = own / f"said.{node}.txt"
    if path.exists():
        print(path.read_bytes()[-65536:].decode("utf-8", errors="replace"), end="")
    return 0


def stop(job: dict[str, Any]) -> int:
    """End a job on this machine, gently and then at once; nothing where it has ended."""
    own, node = where(job)
    lock = own / f"lock.{node}"
    begun, told = time.monotonic(), (0, 0)
    while lock.exists() and hold(lock) is None:
        pid, age = int(lock.read_text("utf-8") or 0), time.monotonic() - begun
        if age > 2 * GRACE:
            print(f"process {pid} does not end")
            return 1
        how = signal.SIGKILL if age > GRACE else signal.SIGTERM
        if pid and told != (pid, how):
            told = pid, how
            with suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), how) if how == signal.SIGKILL else os.kill(pid, how)
        time.sleep(0.1)
    return 0


def where(job: dict[str, Any]) -> "tuple[Path, str]":
    """The job's folder on this machine, and which of its machines this is."""
    return home(job) / "jobs" / job["id"], os.environ.get("TUNESMITH_NODE") or "0"


def home(job: dict[str, Any]) -> Path:
    """The project's own folder here."""
    return Path(os.path.expandvars(job["folder"])).expanduser() / str(job["project"])


def attempt(told: Path) -> int:
    """Which attempt of a job this machine was told last; 0 where it was told none."""
    try:
        return int(json.loads(told.read_text("utf-8"))["job"]["attempt"])
    except (FileNotFoundError, ValueError):
        return 0


def hold(path: Path, patience: float = 0.0) -> "IO[bytes] | None":
    """Take a lock, which ends with this process and the worker; None where another has it."""
    path.touch()
    lock, until = path.open("r+b", buffering=0), time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() >= until:
                lock.close()
                return None
            time.sleep(0.1)


def detached(log: Path, held: "IO[bytes]") -> bool:
    """Go on in the background, in a session of its own; False in the process that is left.

    That one goes on once nothing that ends it can end the other one, too.
    """
    sys.stdout.flush()
    heard, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os.read(heard, 1)
        return False
    os.setsid()
    with log.open("wb", buffering=0) as file, Path(os.devnull).open("rb") as nothing:
        for number, other in enumerate((nothing, file, file)):
            os.dup2(other.fileno(), number)
    held.write(str(os.getpid()).encode())
    os.close(tell)
    return True


class Command:
    """Runs one command after the other; a signal that asks for the end ends the one that runs.

    Each holds the job's lock, so that the lock is free when nothing of the job runs any more.
    """

    def __init__(self, held: "IO[bytes]") -> None:
        self.held, self.told = held, False
        self.child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, self._told)

    def run(self, words: "list[str]", cwd: Path, env: "dict[str, str]") -> None:
        """Run one that must end well; when the job is to end, so does all that this has started.

        Raises:
            subprocess.CalledProcessError: it has not ended well, or was not begun any more.
        """
        code = self.wait(words, cwd, env, start_new_session=True)
        if code:
            raise subprocess.CalledProcessError(code, words)

    def wait(self, words: "list[str]", cwd: Path, env: "dict[str, str]", **more: Any) -> int:
        """Run one to its end, and pass on what asks for that; its exit code."""
        sys.stdout.flush()
        if self.told:
            return TOLD
        more["pass_fds"] = [self.held.fileno()]
        self.child = subprocess.Popen(words, cwd=cwd, env=env, **more)
        if self.told:  # just now: nobody was there to be told
            self._end(signal.SIGTERM)
        code = self.child.wait()
        self.child = None
        return code

    def _told(self, number: int, _: Any) -> None:
        self.told = True
        self._end(signal.SIGKILL if number == signal.SIGALRM else signal.SIGTERM)

    def _end(self, how: int) -> None:
        if self.child is not None and self.child.returncode is None:
            with suppress(ProcessLookupError):
                alone = os.getpgid(self.child.pid) == self.child.pid
                (os.killpg if alone else os.kill)(self.child.pid, how)


def git(command: Command, folder: Path, *words: str, **env: str) -> None:
    """Run git; what it says is seen. GIT_TOKEN, where it is set, is what it signs in with."""
    helper = "!f() { echo username=${GIT_USER:-git}; echo password=$GIT_TOKEN; }; f"
    sign_in = ["-c", f"credential.helper={helper}"] if env.get("GIT_TOKEN") else []
    variables = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **env}
    command.run(["git", *sign_in, *words], folder, variables)


def checkout(command: Command, job: dict[str, Any], work: Path) -> Path:
    """The commit with the changes of the snapshot in a folder; one that is there stays as it is.

    A job's id is of its files, so one of this id has them.
    """
    repo, made = home(job) / "repo", work.with_name(f"{work.name}.made")
    reference = f"refs/tunesmith/jobs/{job['id']}"
    if not made.exists() or not work.is_dir():
        made.unlink(missing_ok=True)
        repo.mkdir(parents=True, exist_ok=True)
        git(command, repo, "init", "--quiet")
        if job["git"]:
            fetch = ("fetch", "--quiet", "--no-tags", "--depth=2", job["git"])
            git(command, repo, *fetch, f"+{reference}:{reference}", **secrets(job))
        remove(command, repo, work)
        words = ("worktree", "add", "--quiet", "--detach", "--no-checkout", str(work))
        git(command, repo, *words, job["baseline"])
        git(command, work, "read-tree", "--reset", "-u", job["snapshot"])
        # What the next job sends is only what is newer than this commit.
        git(command, repo, "update-ref", "refs/tunesmith/known", job["baseline"])
        made.touch()
    git(command, repo, "update-ref", "-d", reference)  # its files are here
    return work / str(job["prefix"])


def remove(command: Command, repo: Path, work: Path) -> None:
    """Remove a checkout, a half-made one too."""
    if work.exists():
        shutil.rmtree(work)
    git(command, repo, "worktree", "prune")


def prepare(command: Command, job: dict[str, Any], work: Path) -> None:
    """Run the commands of the set-up, unless they and the locks are those of the last time."""
    if not job["setup"]:
        return
    digest = hashlib.sha256("\n".join(job["setup"]).encode())
    for path in sorted([*work.glob("env/*.lock"), work / "pyproject.toml"]):
        digest.update(path.read_bytes() if path.exists() else b"")
    with (home(job) / "prepared").open("a+", encoding="utf-8") as done:
        fcntl.flock(done, fcntl.LOCK_EX)  # another job here may be at it
        done.seek(0)
        if done.read() == digest.hexdigest():
            return
        done.truncate(0)
        for line in job["setup"]:
            print(f"> {line}", flush=True)
            command.run(["sh", "-c", line], work, variables(job))
        done.write(digest.hexdigest())


def variables(job: dict[str, Any]) -> dict[str, str]:
    """The environment of the set-up and the worker."""
    return {**os.environ, **secrets(job), "TUNESMITH_HOME": str(home(job))}


def secrets(job: dict[str, Any]) -> dict[str, str]:
    """The secrets that are set here: those of the job's file, and of the environment before it."""
    path = Path(os.path.expandvars(job["env_file"])).expanduser()
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.strip().partition("=")[::2] for line in lines)
    names = {name.replace("export ", "").strip(): value for name, value in pairs}
    found = {**{name: value.strip().strip("\"'") for name, value in names.items()}, **os.environ}
    return {name: found[name] for name in job["secrets"] if found.get(name)}


def run(command: Command, job: dict[str, Any], work: Path, told: Path) -> int:
    """Run the worker; its exit code."""
    env = {**variables(job), "TUNESMITH_HELD": str(command.held.fileno())}
    python = os.path.expandvars(job["python"].replace("$TUNESMITH_HOME", env["TUNESMITH_HOME"]))
    words = [str(Path(python).expanduser()), "-m", "stages.commands.run.there", str(told)]
    return command.wait(words, work, env)
