"""A job in; on another machine its workspace is made, prepared and given to the worker.

`text` is what a place is sent: the source of this very file, and a last line that calls it. It
needs Python 3.9 and git, and nothing of Tunesmith, which is in the commit that it fetches. The
environment says TUNESMITH_NODE (which of several machines this is, 0 without it), TUNESMITH_MASTER
(where they meet) and TUNESMITH_DETACH (go on in the background, and write what is said to a file).

Below the folder that the place names, the project has a folder of its own:

    repo/                  a git repository that holds the commits of jobs
    cache/                 DVC's cache, for all jobs
    prepared               the digest of the last set-up that ended well
    jobs/<id>/job.<n>.json what this machine, the n-th of the job, was told
    jobs/<id>/lock.<n>     held while the job is at work here, with the number of its process
    jobs/<id>/said.<n>.txt what was said in the background
    jobs/<id>/work.<n>/    the checkout
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
from pathlib import Path
from typing import IO, Any

BUSY = 75  # exit code: the job is at work here already
UNPREPARED = 71  # exit code: the workspace could not be made or prepared
GRACE = 30.0  # seconds for a job that was told to end


def text(job: dict[str, Any], act: str = "begin") -> str:
    """A program that begins this job on the machine that runs it, or asks for it there."""
    source = Path(__file__).read_text(encoding="utf-8")
    return f"{source}\n\nsys.exit({act}(json.loads({json.dumps(json.dumps(job))})))\n"


def begin(job: dict[str, Any]) -> int:
    """Make and prepare the workspace and run the job; the exit code of the worker."""
    node = os.environ.pop("TUNESMITH_NODE", "") or "0"
    own = home(job) / "jobs" / job["id"]
    own.mkdir(parents=True, exist_ok=True)
    held = hold(own / f"lock.{node}")
    if held is None:
        print("this job is at work here already")
        return BUSY
    master = os.environ.pop("TUNESMITH_MASTER", "")
    if os.environ.pop("TUNESMITH_DETACH", "") and not detached(own / f"said.{node}.txt"):
        return 0
    held.write(str(os.getpid()).encode())
    held.flush()
    told = own / f"job.{node}.json"
    facts = {"job": job, "node": int(node), "master": master}
    told.write_text(json.dumps(facts), encoding="utf-8")
    try:
        work = checkout(job, own / f"work.{node}")
        prepare(job, work)
    except subprocess.CalledProcessError as failure:
        print(f"error: this has failed, with {failure.returncode}: {' '.join(failure.cmd)}")
        return UNPREPARED
    code = run(job, work, told, held)
    if code == 0:  # its outputs are in the cache and at the remote
        remove(home(job) / "repo", own / f"work.{node}")
    return code


def state(job: dict[str, Any]) -> int:
    """Say `running`, `ended` or `none` of a job on this machine."""
    node = os.environ.get("TUNESMITH_NODE") or "0"
    lock = home(job) / "jobs" / job["id"] / f"lock.{node}"
    if not lock.exists():
        print("none")
        return 0
    held = hold(lock)
    print("running" if held is None else "ended")
    return 0


def said(job: dict[str, Any]) -> int:
    """Print what a job has said in the background of this machine."""
    node = os.environ.get("TUNESMITH_NODE") or "0"
    path = home(job) / "jobs" / job["id"] / f"said.{node}.txt"
    if path.exists():
        print(path.read_text("utf-8", errors="replace"), end="")
    return 0


def stop(job: dict[str, Any]) -> int:
    """End a job on this machine, gently and then at once; nothing where it has ended."""
    node = os.environ.get("TUNESMITH_NODE") or "0"
    lock = home(job) / "jobs" / job["id"] / f"lock.{node}"
    until, how = time.monotonic() + GRACE, signal.SIGTERM
    told = False
    while lock.exists() and hold(lock) is None:
        pid = lock.read_text("utf-8").strip()
        if pid and not told:
            kill(int(pid), how)
            told = True
        if time.monotonic() > until:
            until, how, told = time.monotonic() + GRACE, signal.SIGKILL, False
        time.sleep(0.2)
    return 0


def kill(pid: int, how: int) -> None:
    """Send a signal to the first process of a job; at once: to all of its session."""
    try:
        if how == signal.SIGKILL:
            os.killpg(pid, how)
        else:
            os.kill(pid, how)
    except ProcessLookupError:
        return


def home(job: dict[str, Any]) -> Path:
    """The project's own folder on this machine."""
    return Path(os.path.expandvars(job["folder"])).expanduser() / str(job["project"])


def hold(path: Path) -> "IO[bytes] | None":
    """Take a lock, which ends with this process and the worker; None where another has it."""
    path.touch()
    lock = path.open("r+b", buffering=0)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def detached(log: Path) -> bool:
    """Go on in the background, in a session of its own; False in the process that is left."""
    sys.stdout.flush()
    if os.fork():
        return False
    os.setsid()
    with log.open("wb", buffering=0) as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    return True


def git(folder: Path, *words: str, **env: str) -> None:
    """Run git; what it says is seen. GIT_TOKEN, where it is set, is what it signs in with."""
    sys.stdout.flush()
    helper = "!f() { echo username=${GIT_USER:-git}; echo password=$GIT_TOKEN; }; f"
    sign_in = ["-c", f"credential.helper={helper}"] if env.get("GIT_TOKEN") else []
    subprocess.run(
        ["git", *sign_in, *words],
        cwd=folder,
        check=True,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0", **env},
    )


def checkout(job: dict[str, Any], work: Path) -> Path:
    """The commit with the changes of the snapshot in a folder; one that is there stays as it is."""
    repo, made = home(job) / "repo", work.with_name(f"{work.name}.made")
    commits = f"{job['baseline']} {job['snapshot']}"
    if made.exists() and made.read_text("utf-8") == commits and work.is_dir():
        return work / str(job["prefix"])
    if not (repo / ".git").is_dir():
        repo.mkdir(parents=True, exist_ok=True)
        git(repo, "init", "--quiet")
    if job["git"]:
        reference = f"refs/tunesmith/jobs/{job['id']}"
        fetched = f"+{reference}:{reference}"
        words = ("fetch", "--quiet", "--no-tags", "--depth=2", job["git"], fetched)
        git(repo, *words, **secrets(job))
    made.unlink(missing_ok=True)
    remove(repo, work)
    words = ("worktree", "add", "--quiet", "--detach", "--no-checkout", str(work))
    git(repo, *words, job["baseline"])
    git(work, "read-tree", "--reset", "-u", job["snapshot"])
    made.write_text(commits, encoding="utf-8")
    return work / str(job["prefix"])


def remove(repo: Path, work: Path) -> None:
    """Remove a checkout, a half-made one too."""
    if work.exists():
        shutil.rmtree(work)
    git(repo, "worktree", "prune")


def prepare(job: dict[str, Any], work: Path) -> None:
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
            subprocess.run(["sh", "-c", line], check=True, cwd=work, env=variables(job))
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


def run(job: dict[str, Any], work: Path, told: Path, held: "IO[bytes]") -> int:
    """Run the worker; signals that ask for the end are passed on to it."""
    env = variables(job)
    python = os.path.expandvars(job["python"].replace("$TUNESMITH_HOME", env["TUNESMITH_HOME"]))
    words = [str(Path(python).expanduser()), "-m", "stages.commands.run.there", str(told)]
    try:
        worker = subprocess.Popen(words, cwd=work, env=env, pass_fds=[held.fileno()])
    except OSError as failure:
        print(f"error: {python} cannot be run: {failure}")
        return UNPREPARED
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: worker.send_signal(signal.SIGTERM))
    return worker.wait()
