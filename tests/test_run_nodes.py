"""One training on several machines by one command: the same curve, and clear ends when one falls.

What needs no machines stands first. The machines are network namespaces (`tests/machines.py`), and
times that are minutes for people are seconds there.
"""

import os
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import run_project
import small_project
import yaml
from run_project import FUSE, MODEL, TRAIN, Checkout, Typed

from stages.commands.run.there import building, nodes, others, saving
from stages.core import checkpoints, files
from stages.places import ssh
from tests import machines
from tests.machines import Machine, Network, wait_for

PAIR = {"kind": "ssh", "host": "gpu0", "others": ["gpu1"], "master": "gpu0:29500"}


# Places


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (PAIR | {"master": ""}, "master is missing"),
        (PAIR | {"master": "gpu0"}, "master is missing"),
        (PAIR | {"master": "gpu0:none"}, "master is missing"),
        (PAIR | {"master": "gpu0:70000"}, "master is missing"),
        (PAIR | {"others": ["gpu1", "gpu0"]}, "gpu0 is named twice"),
        (PAIR | {"others": ["gpu1", "gpu1"]}, "gpu1 is named twice"),
        (PAIR | {"nodes": 3}, "nodes is 1 and the number of others: 2"),
        ({"kind": "ssh", "host": "gpu0", "nodes": 2}, "nodes is 1 and the number of others: 1"),
        ({"kind": "ssh", "host": "gpu0", "shard": "fsdp"}, "fsdp needs several processes"),
        (PAIR | {"settings": {"TUNESMITH_NODES": "2"}}, "follows from processes, nodes and shard"),
    ],
)
def test_machines_that_cannot_be_meant_so_are_refused_by_name(entry, says):
    with pytest.raises(ValueError, match=says):
        ssh.Options.model_validate(entry)


def test_a_place_of_several_machines_counts_them_and_gives_each_what_torchrun_wants():
    place = ssh.Options.model_validate(PAIR | {"processes": 8, "shard": "fsdp"})
    assert (place.nodes, place.hosts) == (2, ["gpu0", "gpu1"])
    job = SimpleNamespace(processes=place.processes, nodes=place.nodes, shard=place.shard)
    assert nodes.variables(job, 1, place.master) == {
        "TUNESMITH_PROCESSES": "8", "TUNESMITH_NODES": "2", "TUNESMITH_NODE": "1",
        "TUNESMITH_MASTER": "gpu0:29500", "TUNESMITH_SHARD": "fsdp",
    }  # fmt: skip


# Who is there


class Letters:
    """A mailbox that holds what a test puts there."""

    def __init__(self) -> None:
        self.by: dict[int, list[dict]] = {}
        self.looks = threading.Semaphore(0)

    def read(self, node: int, after: int):
        yield from list(enumerate(self.by.get(node, []), 1))[after:]
        self.looks.release()

    def seen(self) -> None:
        """Return once what is there now was read."""
        while self.looks.acquire(blocking=False):
            continue
        for _ in range(2):
            assert self.looks.acquire(timeout=10)


@pytest.fixture
def box(monkeypatch):
    found = Letters()
    monkeypatch.setattr(others.Others, "_opened", lambda _: found)
    monkeypatch.setattr(others, "QUICK", 0.001)
    monkeypatch.setattr(others, "SLOW", 0.001)
    return found


def test_a_machine_that_cannot_go_on_is_named_with_what_it_said(box):
    rest = others.Others(Mock(), [1, 2])
    box.by = {1: [{"machine": "gpu1"}, {"log": ["hello"]}], 2: [{"machine": "gpu2"}]}
    box.seen()
    assert rest.left() == ""
    box.by[2].append({"left": "memory ran out"})
    box.seen()
    assert rest.left() == "gpu2: memory ran out"
    box.by[2].append({"result": {"code": 1, "reason": ""}})
    box.seen()
    assert rest.left() == "gpu2: memory ran out"


def test_the_good_end_of_a_machine_is_no_trouble(box):
    rest = others.Others(Mock(), [0])
    box.by = {0: [{"machine": "gpu0"}, {"result": {"code": 0, "reason": ""}}]}
    box.seen()
    assert rest.left() == ""
    assert [rest.letters.get() for _ in range(2)] == box.by[0]


def test_silence_counts_only_while_the_mailbox_can_be_read(box, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    ours = SimpleNamespace(monotonic=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr(others, "time", ours)
    monkeypatch.setattr(others, "AGAIN", 0.001)
    rest = others.Others(Mock(), [1])
    box.by = {1: [{"machine": "gpu1"}]}
    box.seen()
    working = box.read
    failed = threading.Semaphore(0)

    def broken(*_):
        failed.release()
        raise ConnectionResetError

    monkeypatch.setattr(box, "read", broken)
    assert failed.acquire(timeout=10)
    assert failed.acquire(timeout=10)
    clock.now = 500.0
    assert failed.acquire(timeout=10)
    assert rest.silent(120) == ""
    monkeypatch.setattr(box, "read", working)
    box.seen()
    assert rest.silent(120) == "gpu1"


class Silent:
    """A post that hears all."""

    def __init__(self) -> None:
        self.ended, self.reason, self.lines, self.told = threading.Event(), "", [], {}

    def say(self, line: str) -> None:
        self.lines.append(line)

    def runs(self, stage: str) -> None:
        self.told["stage"] = stage


def test_a_training_is_ended_by_trouble_elsewhere_and_the_job_is_not(monkeypatch):
    monkeypatch.setattr(nodes, "LOOK", 0.01)
    post = Silent()
    training = nodes.Training(post)
    with training.watched(lambda: "gpu1 fell silent"):
        code = building.run(["sleep", "600"], {}, training)
    assert code == building.ENDED
    assert training.reason == "gpu1 fell silent"
    assert not post.ended.is_set()


def test_a_failure_is_told_by_the_machine_where_it_began(monkeypatch):
    monkeypatch.setattr(nodes, "LOOK", 0.01)
    rest = Mock()
    rest.left.side_effect = ["", "", "gpu1: memory ran out", "gpu1: memory ran out"]
    training = nodes.Training(Silent())
    training.say(f"error: {nodes.ELSEWHERE}, and so have those on this one.")
    assert nodes.cause(training, rest) == "gpu1: memory ran out"
    training.say("error: Process 0 of 2 (pid 7) was ended by SIGKILL; the others were ended.")
    assert nodes.cause(training, rest).startswith(f"{socket.gethostname()}: Process 0 of 2")


def test_the_first_machines_port_counts_as_dead_only_after_it_has_answered(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(others, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def after(seconds: float) -> float:
        clock.now += seconds
        return port.dead()

    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = others.Port(f"127.0.0.1:{own.getsockname()[1]}")
        assert after(500) == 0
        own.listen()
        assert after(500) == 0
    assert after(50) == 50
    assert after(100) == 150


# Checkpoints


def checkpoint(run: Path, step: int) -> None:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(str(step))
    files.write_json(folder / checkpoints.STATE, {})


class Folder:
    """A remote that is a folder of this machine, as far as checkpoints ask for it."""

    def __init__(self, top: Path) -> None:
        self.path, self.fs = str(top), SimpleNamespace(join=os.path.join)
        self.name = "store"

    def put(self, source: Path, target: str, _) -> None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)

    def get(self, source: str, target: Path, _) -> None:
        shutil.copy(source, target)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def remove(self, path: str) -> None:
        Path(path).unlink()

    def entries(self, folder: str):
        found = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
        named = [SimpleNamespace(name=p.name, path=str(p)) for p in found]
        return [e for e in named if Path(e.path).is_file()], [
            e.path for e in named if Path(e.path).is_dir()
        ]

    def below(self, folder: str):
        found = [path for path in Path(folder).rglob("*") if path.is_file()]
        return [SimpleNamespace(name=path.name, path=str(path)) for path in found]


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """Two machines' folders of checkpoints and a remote; where this is, is `here`."""
    here = SimpleNamespace(root=tmp_path / "gpu0")
    monkeypatch.setattr(saving, "home", lambda: here.root)
    here.store = Folder(tmp_path / "store")
    needed = ["tokenise@a", "train@a", "train@b"]
    here.job = Mock(project="p", needed=needed, remote={"name": "store"})
    monkeypatch.setattr(saving, "Store", lambda *_: here.store)
    monkeypatch.setattr(saving, "settings", Mock())
    return here


def test_before_they_meet_a_checkpoint_that_was_never_sent_goes_to_the_others(ours):
    checkpoint(ours.root / "run", 8)
    saving.Saver(ours.job, ours.store, Mock(stage="tokenise@a")).send("train@b")
    checkpoint(ours.root / "run", 16)
    saver = saving.Saver(ours.job, ours.store, Mock(stage="tokenise@a"))  # it began anew
    saver.send("train@b")
    first = saving.steps()
    assert first == {"run": 16}
    ours.root = ours.root.with_name("gpu1")
    assert saving.follow(ours.store, "p", "train@a", first) == []
    assert len(saving.follow(ours.store, "p", "train@b", first)) == 1
    assert saving.steps() == first


def test_a_machine_lets_go_of_steps_that_the_first_does_not_have(ours):
    for step in (8, 16):
        checkpoint(ours.root / "run", step)
    checkpoint(ours.root / "other", 4)
    saving.follow(ours.store, "p", "train@a", {"run": 8})
    assert saving.steps() == {"run": 8}


def test_while_no_training_runs_nothing_is_sent_under_another_stages_name(ours):
    checkpoint(ours.root / "run", 8)
    post = Mock(stage="tokenise@a")
    saver = saving.Saver(ours.job, ours.store, post)
    saver.send()
    assert not Path(ours.store.path).exists()
    post.stage = "train@b"
    saver.send()
    assert saving.found(ours.store, "p", "train@b") == {"run": 8}


# For real

OTHER = "other"  # a model of the same settings
HELD = 15  # the step at which a training waits to be hurt; checkpoints are at each fourth
SITE = f"""
import os, sys, time
from pathlib import Path

if "RANK" in os.environ:
    from stages.backends.torch.train import team

    control, calls, whole = Path(os.environ["CONTROL"]), [], team.Team.plus_gradients

    def held(self, weights):
        calls.append(1)
        while (control / "hold").exists() and len(calls) >= {HELD}:
            names = ("GLOO_SOCKET_IFNAME", "TUNESMITH_SHARD", "TUNESMITH_NODE", "CONTROL")
            text = " ".join([str(os.getpid()), *(os.environ.get(name, "") for name in names[:3])])
            (control / os.environ["TUNESMITH_NODE"]).write_text(text)
            time.sleep(0.02)
        return whole(self, weights)

    team.Team.plus_gradients = held
elif "stages.commands.run.there" in sys.orig_argv:
    sys.path.insert(0, os.getcwd())
    from stages.commands.run.there import others, post, saving

    others.STILL, post.BEAT, saving.LOOK = 6.0, 0.5, 0.5
elif "run" in sys.orig_argv:
    sys.path.insert(0, os.getcwd())
    from stages.commands.run import following

    following.GONE = 2.0
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "site").mkdir()
    (folder / "control").mkdir()
    (folder / "site/sitecustomize.py").write_text(SITE, encoding="utf-8")
    own = {"PYTHONPATH": f"{folder / 'site'}:{small_project.ROOT}"}
    own["CONTROL"] = str(folder / "control")
    who = small_project.environment()
    who = {name: who[name] for name in who if name.startswith(("GIT_A", "GIT_C"))}
    names = {"here": {**own, **who}, "gpu0": dict(own), "gpu1": dict(own), "store": {}}
    for name, env in names.items():
        env["DVC_SITE_CACHE_DIR"] = str(folder / f"dvc-{name}")
    with machines.network(folder / "net", names) as found:
        yield found


@pytest.fixture(scope="module")
def checkout(net):
    """A project at `here` with what a person with the data has; `alone` is one trained here."""
    project = net.here.home / "project"
    project.mkdir()
    small_project.make(project)
    params = run_project.params(24, 4)
    params["models"][MODEL]["train"] |= {"eval_steps": 12}
    params["models"][OTHER] = params["models"][MODEL]
    params["gguf"] = {
        f"{name}-q8_0": {"model": name, "judge": "rules", "quant": "q8_0"}
        for name in (MODEL, OTHER)
    }
    text = yaml.dump(params, Dumper=small_project.Plain, sort_keys=False)
    (project / "params.yaml").write_text(text, encoding="utf-8")
    run_project.repro(project, f"validate@{MODEL}", "base@tiny")
    found = Checkout(net, project)
    found.tunesmith("remote", "store", net["store"].ssh.url, "--option", f"keyfile={net.keyfile}")
    small_project.git(project, "add", "-A")
    small_project.git(project, "commit", "-q", "-m", "Examples, a base and a store")
    alone = project.with_name("alone")
    shutil.copytree(project, alone, symlinks=True)
    run_project.repro(alone, TRAIN)
    ssh_place = PAIR | {
        "python": sys.executable, "folder": "~/box",
        "settings": {"GLOO_SOCKET_IFNAME": "eth0"},
        "remote_options": {"keyfile": str(net.keyfile)},
    }  # fmt: skip
    places = {"pair": ssh_place, "shared": ssh_place | {"shard": "fsdp"}}
    text = yaml.dump(places, Dumper=small_project.Plain)
    (project / "places.yaml").write_text(text, encoding="utf-8")
    return found


def begun(net: Network, checkout: Checkout, target: str, place: str) -> Typed:
    """A run whose training waits on both machines, with its last checkpoint at the remote."""
    control = Path(net["gpu0"].env["CONTROL"])
    for path in control.iterdir():
        path.unlink()
    (control / "hold").touch()
    job = checkout.start("run", target, "--on", place, "--yes", "--bring", "all")
    sent = f"tunesmith/checkpoints/*/train-{target.partition('@')[2]}/*/12.json"

    def waits() -> bool:
        there = net["store"].ssh.folder.glob(sent)
        return (control / "0").exists() and (control / "1").exists() and any(there)

    job.until(waits, 120)
    return job


def release(net: Network) -> None:
    (Path(net["gpu0"].env["CONTROL"]) / "hold").unlink()


def work(machine: Machine) -> Path:
    (found,) = (machine.home / "box").glob("*/jobs/*/work.*[0-9]/")
    return found


def idle(machine: Machine) -> bool:
    return all(one.name().startswith("sshd") for one in machine.processes())


def series(project: Path, model: str) -> list[dict[str, float]]:
    lines = (project / f"reports/{model}/train/loss.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    cells = [dict(zip(names, line.split("\t"), strict=True)) for line in lines[1:]]
    return [{name: float(cell) for name, cell in row.items() if cell} for row in cells]


def require_same_curve(checkout: Checkout, model: str) -> None:
    """Every loss is that of one process, nearly; and something was learned."""
    one = series(checkout.folder.with_name("alone"), MODEL)
    several = series(checkout.folder, model)
    assert [row.keys() for row in one] == [row.keys() for row in several]
    names = ("loss", "valid_loss")
    far = [abs(a[n] - b[n]) for a, b in zip(one, several, strict=True) for n in names if n in a]
    assert len(one) == 24
    assert 0 < max(far) < 1e-4  # several processes write other bytes, by rounding
    assert one[0]["loss"] - one[-1]["loss"] > 0.5
    print(f"largest difference of a loss: {max(far):.1e}")


@pytest.mark.machines
def test_a_port_that_is_taken_there_is_refused_before_anything_is_sent(net, checkout):
    program = "import socket; s = socket.create_server(('', 29500)); print('on', flush=True)"
    taker = net["gpu0"].popen(["python3", "-c", f"{program}; s.accept()"])
    assert taker.stdout.readline() == "on\n"
    before = sorted(net["store"].ssh.folder.rglob("*"))
    said = checkout.tunesmith("run", TRAIN, "--on", "pair", "--yes", code=2)
    taker.kill()
    taker.wait()
    assert "Port 29500 is taken on gpu0" in said
    assert sorted(net["store"].ssh.folder.rglob("*")) == before


@pytest.mark.machines
def test_two_machines_train_by_one_command_and_one_that_dies_is_named(net, checkout):
    job = begun(net, checkout, FUSE, "pair")
    told = [(Path(net["gpu0"].env["CONTROL"]) / node).read_text().split()[1:] for node in "01"]
    assert told == [["eth0", "none", "0"], ["eth0", "none", "1"]]
    own = work(net["gpu1"])
    made = [p for kind in ("data/tokens", "data/chat", "models", "reports")
            for p in sorted((own / kind).glob("*/"))]  # fmt: skip
    assert [str(p.relative_to(own)) for p in made] == [f"data/tokens/{MODEL}", "models/base"]

    net["gpu1"].die()
    said = job.end(code=130)
    assert "did not end well: gpu1 has said nothing for 6 s, and no step was made" in said
    assert "Traceback" not in said
    wait_for(lambda: idle(net["gpu0"]), "gpu0 to end what it ran")
    net["gpu1"].revive()

    release(net)
    said = checkout.tunesmith("run", FUSE, "--on", "pair", "--yes", "--bring", "all")
    for node in "01":
        assert f"[{node}]   {TRAIN} goes on from step 12: its checkpoint came from store" in said
    assert "2 processes (ddp, gloo)" in said
    assert f"Running stage '{FUSE}'" in said
    require_same_curve(checkout, MODEL)
    theirs = run_project.entries(checkout.folder.with_name("alone"))[TRAIN]
    ours = checkout.lock()[TRAIN]
    assert {n: ours[n] for n in ours if n != "outs"} == {n: theirs[n] for n in ours if n != "outs"}
    assert "are up to date" in checkout.dvc("status", FUSE)
    assert not list(net["store"].ssh.folder.glob("tunesmith/checkpoints/*/*/*/*.json"))
    for name in ("gpu0", "gpu1"):
        wait_for(lambda name=name: idle(net[name]), f"{name} to end what it ran")


@pytest.mark.machines
def test_when_the_first_machine_dies_the_others_end_and_the_same_command_goes_on(net, checkout):
    target = f"train@{OTHER}"
    job = begun(net, checkout, target, "shared")
    net["gpu0"].die()
    said = job.end(code=130)
    assert "did not end well: gpu0 has said nothing for 6 s" in said
    assert "Traceback" not in said
    wait_for(lambda: idle(net["gpu1"]), "gpu1 to end what it ran")
    net["gpu0"].revive()

    release(net)
    said = checkout.tunesmith("run", target, "--on", "shared", "--yes", "--bring", "all")
    assert said.count("goes on from step 12: its checkpoint came from store") >= 1
    assert "2 processes (fsdp, gloo)" in said
    require_same_curve(checkout, OTHER)
    for name in ("gpu0", "gpu1"):
        wait_for(lambda name=name: idle(net[name]), f"{name} to end what it ran")
