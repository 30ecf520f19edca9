"""The pages of docs/elsewhere: what stands on them is typed as it stands, in order, and answers so.

A console block's `$ …` is typed in the project, `gpu0$ …` on that machine, `^C` interrupts what was
typed, and a line `# …` is something that happens to the world, such as a box that dies. What stands
below a command is what it says, `…` for what differs. A yaml block becomes a part of places.yaml. A
block below the words "Not run by CI" is only read: its commands must be commands of ours.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jobs_server
import psutil
import pytest
import typer
import yaml

from stages import __main__ as door
from stages.commands.run import declared
from stages.core.jobs import Common, Job
from stages.places import sky
from stages.places.sky import program
from tests import machines, remote_servers, small_project

FOLDER = Path(__file__).parents[1] / "docs" / "elsewhere"
PAGES = ("mac-and-rented-gpu", "laptop", "cluster")
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
TYPED = re.compile(r"(?P<where>\w*)\$ (?P<text>.*)")
NOT_RUN = "not run by ci:"
HERE = ""
GIT = "https://github.com/me/tunes.git"
TOKEN = "hf_" + "aB3dE5gH7j" * 3
STEPS, SAVED = 140, 20  # of the training that is interrupted
FEW = 16  # of the others


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    runs: bool


@dataclass
class Typed:
    """A command, where it is typed, and what it says; or, by its name, what happens."""

    where: str = HERE
    text: str = ""
    event: str = ""
    shown: list[str] = field(default_factory=list)


def blocks(page: str) -> list[Block]:
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(BLOCK.findall(text)), "each fence below an empty line"
    return [
        Block(one["kind"], one["text"], not one["before"].lower().endswith(NOT_RUN))
        for one in BLOCK.finditer(text)
    ]


def typed(block: Block) -> list[Typed]:
    found: list[Typed] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if words := TYPED.fullmatch(line):
            found.append(Typed(**words.groupdict()))
        elif line.startswith("# "):
            found.append(Typed(event=line.removeprefix("# ")))
        else:
            found[-1].shown.append(line)
    return found


def entries(page: str) -> dict[str, Any]:
    """What the page's places.yaml says."""
    found: dict[str, Any] = {}
    for block in blocks(page):
        if block.kind == "yaml":
            found |= yaml.safe_load(block.text)
    return found


def pattern(shown: list[str]) -> str:
    """A regular expression of these lines, in which … stands for anything."""
    lines = [
        r"(?:.*\n)*?"
        if line == "…"
        else ".*?".join(map(re.escape, line.split("…"))) + r"[^\S\n]*\n"
        for line in shown
    ]
    return r"\n*" + "".join(lines) + r"\n*"


# Every day.


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_blocks_of_known_kinds_alone(page: str) -> None:
    found = blocks(page)
    assert {block.kind for block in found} <= {"console", "yaml", "sshconfig"}
    assert [block for block in found if block.kind == "console" and block.runs]
    for block in found:
        if block.kind == "console":
            assert typed(block)
        elif block.kind == "yaml":
            assert block.text.startswith("# places.yaml\n")


def test_every_page_of_the_folder_is_run() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.md")) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_ours_on_a_page_is_one_that_there_is(page: str) -> None:
    group = typer.main.get_command(door.app)
    for words in ours(page):
        with group.make_context("tunesmith", list(words)) as context:
            name, command, rest = group.resolve_command(context, words)
            command.make_context(name, rest, parent=context)  # raises what would be shown


def ours(page: str) -> Iterator[list[str]]:
    """The words of each `tunesmith …` on a page, whether it is run or not."""
    for block in blocks(page):
        for one in typed(block) if block.kind == "console" else []:
            for part in re.split(r"&&|[|;]", one.text):
                words = shlex.split(part)
                if words and Path(words[0]).name == "tunesmith":
                    yield words[1:]


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page in PAGES for name in entries(page)]
)
def test_every_place_of_a_page_is_one_that_we_take(page: str, name: str) -> None:
    place = declared.of(name, entries(page)[name])
    assert place.describe().startswith(f"{name} (")
    if place.options.kind == "sky":
        told = sky.task(job(name, place.options), entries(page)[name]["resources"], "print(1)\n")
        assert told["num_nodes"] == place.options.nodes
        if own := os.environ.get("TUNESMITH_TEST_SKY"):
            answer = program.ask(str(Path(own).absolute()), "check", told)
            assert answer.code == 0, answer.text


def job(name: str, options: Common) -> Job:
    """A job of this place."""
    same = ("secrets", "env_file", "settings", "setup", "python", "folder", "hours", "processes")
    return Job(
        id=f"train-wzrdbrain-{name}", attempt=1, place=name, targets=["train@wzrdbrain"],
        needed=["train@wzrdbrain"], baseline="a" * 40, snapshot="b" * 40, prefix="",
        project="tunes", git="", remote={"name": "bucket", "url": "s3://my-tunes/store"},
        nodes=options.nodes, shard=options.shard, checkpoints=options.checkpoints,
        **{key: getattr(options, key) for key in same},
    )  # fmt: skip


def test_a_host_of_the_ssh_settings_is_what_the_place_names(tmp_path: Path) -> None:
    (block,) = [one for one in blocks("mac-and-rented-gpu") if one.kind == "sshconfig"]
    (tmp_path / "config").write_text(block.text)
    host = entries("mac-and-rented-gpu")["gpubox"]["host"]
    said = subprocess.run(
        ["ssh", "-G", "-F", tmp_path / "config", host], capture_output=True, text=True, check=True
    ).stdout
    assert "hostname 203.0.113.7\n" in said
    assert "user root\n" in said


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (["sent … files", "…", "done"], "sent 3 files\nand\nmore\ndone\n"),
        (["a", "…", "b"], "\na\nb\n\n"),
    ],
)
def test_what_is_shown_is_compared_with_all_that_is_said(shown: list[str], said: str) -> None:
    assert re.fullmatch(pattern(shown), said)
    assert not re.fullmatch(pattern(shown), said + "more\n")
    assert not re.fullmatch(pattern([*shown, "c"]), said)


# Typed as they stand.


@dataclass
class World:
    """Where a page is typed.

    Attributes:
        project: the folder of the project, on the machine of who reads the page.
        begin: a shell command begun, in the project or on the machine of that name.
        events: what happens, by its words on the page.
        interrupted: called before a command is interrupted.
    """

    project: Path
    begin: Callable[[str, str], "subprocess.Popen[str]"]
    events: dict[str, Callable[[], None]] = field(default_factory=dict)
    interrupted: Callable[[], None] = lambda: None


def follow(page: str, world: World) -> None:
    """Do what the page says, in order."""
    for block in blocks(page):
        if block.kind == "yaml":
            with (world.project / "places.yaml").open("a", encoding="utf-8") as file:
                file.write(block.text)
        for one in typed(block) if block.kind == "console" and block.runs else []:
            if one.event:
                world.events[one.event]()
            else:
                enter(one, world)


def enter(one: Typed, world: World) -> None:
    """Type a command, interrupt it where the page does, and compare what it says."""
    begun = time.monotonic()
    process = world.begin(one.where, one.text)
    before, cut = one.shown, "^C" in one.shown
    if cut:
        before = one.shown[: one.shown.index("^C")]
    said, until = "", pattern(before)
    late = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    late.start()
    assert process.stdout
    for line in process.stdout:
        said += line
        if cut and re.fullmatch(until, said):
            world.interrupted()
            os.killpg(process.pid, signal.SIGINT)
            cut = False
    late.cancel()
    code = process.wait()
    print(f"$ {one.text}  # {time.monotonic() - begun:.1f} s\n{said}")
    fails = "^C" in one.shown or any("did not end well" in line for line in one.shown)
    assert (code != 0) == fails, f"$ {one.text}: {code}\n{said}"
    lines = [line for line in one.shown if line != "^C"]
    assert not lines or re.fullmatch(pattern(lines), said), f"$ {one.text}\n{said}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project before anything is typed, but for its examples and its base, which take long."""
    project = tmp_path_factory.mktemp("built") / "tunes"
    project.mkdir()
    small_project.make(project)
    params = small_project.params()
    params["bases"]["tiny"] |= {"documents": 300, "steps": 5}
    steps = {"max_steps": STEPS, "save_steps": SAVED, "eval_steps": STEPS}
    params["models"][small_project.MODEL]["train"] |= steps
    text = yaml.dump(params, Dumper=small_project.Plain, sort_keys=False)
    (project / "params.yaml").write_text(text, encoding="utf-8")
    done = small_project.dvc(project, "repro", "-q", f"validate@{small_project.MODEL}", "base@tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    small_project.git(project, "add", "-A")
    small_project.git(project, "commit", "-q", "-m", "Examples and a base")
    return project


def copy(built: Path, home: Path, steps: int) -> Path:
    """A copy of the project, and the address of its git host for who lives in this home."""
    shutil.copytree(built, home / "tunes", symlinks=True)
    params = home / "tunes" / "params.yaml"
    params.write_text(params.read_text().replace(f"_steps: {STEPS}\n", f"_steps: {steps}\n"))
    small_project.git(home / "tunes", "commit", "-q", "--allow-empty", "-a", "-m", "So many steps")
    host = home / "host.git"
    small_project.git(home, "clone", "-q", "--bare", str(home / "tunes"), str(host))
    settle(home, host)
    return home / "tunes"


def settle(home: Path, host: Path) -> None:
    """In this home the git host is that folder, and there is somebody who commits."""
    text = (
        f'[url "file://{host}"]\n\tinsteadOf = {GIT}\n[user]\n\tname = t\n\temail = t@localhost\n'
    )
    (home / ".gitconfig").write_text(text, encoding="utf-8")


def variables() -> dict[str, str]:
    """Of every machine of the pages."""
    cache = os.environ.get("TUNESMITH_CACHE") or str(Path.home() / ".cache" / "tunesmith")
    return {"TUNESMITH_CACHE": cache, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


class Rig:
    """Machines of a page, each with a folder of ours in place of /srv."""

    def __init__(self, net: machines.Network, project: Path, srv: dict[str, Path]) -> None:
        self.net, self.project, self.srv = net, project, srv
        for name in net.machines:
            self.mount(name)

    def mount(self, name: str) -> None:
        """For all that comes by ssh."""
        if name in self.srv:
            (daemon,) = [one for one in self.net[name].processes() if one.name() == "sshd"]
            enter = ["nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt"]
            words = [*enter, "mount", "--bind", str(self.srv[name]), "/srv"]
            subprocess.run(words, check=True)

    def begin(self, where: str, text: str) -> "subprocess.Popen[str]":
        here, words = self.net.here, ["bash", "-c", text]
        if where:
            words = ["ssh", where, text]
        elif machines.HERE in self.srv:
            mounted = f"mount --bind {self.srv[machines.HERE]} /srv"
            words = ["bash", "-c", f"{mounted} && exec bash -c {shlex.quote(text)}"]
        return subprocess.Popen(
            here.words(words), cwd=self.project, env=here.env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def has_environment(home: Path) -> None:
    """`make setup` was typed there."""
    (home / "tunesmith").mkdir(exist_ok=True)
    (home / "tunesmith" / ".venv").symlink_to(Path(sys.executable).parents[1])


def sites(folder: Path, *names: str) -> dict[str, dict[str, str]]:
    """The variables of machines by name; DVC's own folders are apart."""
    return {
        name: variables() | {"DVC_SITE_CACHE_DIR": str(folder / f"dvc-{name}")} for name in names
    }


@pytest.mark.machines
def test_the_page_of_a_mac_and_a_rented_gpu_is_typed_as_it_stands(
    built: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "make").write_text(
        f'#!/bin/sh\ntest "$*" = "-C $HOME/tunesmith setup" && test -f "$2/Makefile" &&\n'
        f'ln -s {Path(sys.executable).parents[1]} "$2/.venv" && echo made\n'
    )
    (programs / "make").chmod(0o755)
    names = sites(tmp_path, "here", "gpubox")
    names["gpubox"]["PATH"] = f"{programs}:{machines.PATH}"
    with machines.network(tmp_path / "net", names) as net:
        box = net["gpubox"]
        (box.home / "srv").mkdir()
        project = copy(built, net.here.home, STEPS)
        settle(box.home, net.here.home / "host.git")
        rig = Rig(net, project, {"gpubox": box.home / "srv"})

        def waits() -> None:
            """The training stands still from its first checkpoint on, however fast it is."""
            saved = "tunesmith-jobs/*/jobs/*/work.0/.tunesmith/checkpoints/*/*/trainer_state.json"
            machines.wait_for(lambda: any(box.home.glob(saved)), "a checkpoint", 60)
            for one in box.processes():
                with suppress(psutil.NoSuchProcess):
                    if one.cmdline()[1:4] == ["-m", "stages", "train"]:
                        one.suspend()

        def dies() -> None:
            saved = box.home / "srv" / "tunesmith" / "tunesmith" / "checkpoints"
            machines.wait_for(lambda: any(saved.rglob("*")), "a checkpoint at the remote", 60)
            box.die()
            box.revive()
            rig.mount("gpubox")

        events = {"the box loses its power, and comes back": dies}
        follow("mac-and-rented-gpu", World(project, rig.begin, events, waits))
        assert not [one for one in box.processes() if one.name().startswith("python")]


@pytest.mark.machines
def test_the_page_of_a_cluster_is_typed_as_it_stands(built: Path, tmp_path: Path) -> None:
    with machines.network(tmp_path / "net", sites(tmp_path, "here", "gpu0", "gpu1")) as net:
        for name in ("gpu0", "gpu1"):
            has_environment(net[name].home)
        shared = tmp_path / "srv"
        (shared / "shared").mkdir(parents=True)
        project = copy(built, net.here.home, FEW)
        rig = Rig(net, project, dict.fromkeys(("here", "gpu0", "gpu1"), shared))
        follow("cluster", World(project, rig.begin))


@pytest.mark.machines
def test_the_page_of_a_laptop_is_typed_as_it_stands(built: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(remote_servers.s3("my-tunes"))
        hub = stack.enter_context(jobs_server.serving(jobs_server.Jobs(TOKEN)))
        home, there = tmp_path / "home", tmp_path / "colab"
        for each in (home, there):
            each.mkdir()
        project = copy(built, home, FEW)
        settle(there, home / "host.git")
        common = {
            **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
            **variables(),
            "PATH": f"{machines.BIN}{os.pathsep}{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": store.endpoint,
            "AWS_ACCESS_KEY_ID": store.key_id,
            "AWS_SECRET_ACCESS_KEY": store.secret,
        }

        def begin(where: str, text: str) -> "subprocess.Popen[str]":
            assert where == HERE
            env = common | {"HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
            return subprocess.Popen(
                ["bash", "-c", text], cwd=project, env=env, text=True, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip

        def run_all() -> None:
            (book,) = (project / "exports").glob("*.ipynb")
            is_prepared(there, project)
            done = subprocess.run(
                [machines.BIN / "jupyter-execute", book], cwd=there,
                env=common | {"HOME": str(there)}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr

        events = {"in Colab: upload it, choose a GPU, give it the secrets, Run all": run_all}
        follow("laptop", World(project, begin, events))
        assert hub.stages() == ["CANCELED"]


def is_prepared(there: Path, project: Path) -> None:
    """The set-up finds an environment, and a pip which has nothing left to install."""
    name = subprocess.run(
        [sys.executable, "-c", "from pathlib import Path; from stages.commands.run import sending; "
         "print(sending.project_name(Path()))"],
        cwd=project, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    programs = there / "tunesmith-jobs" / name / "venv" / "bin"
    programs.mkdir(parents=True)
    for own, text in (("python", f'exec {sys.executable} "$@"'), ("pip", "exit 0")):
        (programs / own).write_text(f"#!/bin/sh\n{text}\n")
        (programs / own).chmod(0o755)
