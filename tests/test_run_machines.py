"""A stage that runs on another machine: found again or gone on with, never twice at once."""

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from tests import run_project
from tests.machines import Machine, Network, wait_for
from tests.run_project import FILE, FUSE, GGUF, STEPS, TRAIN, VERIFY, Built, Checkout, Paced, Typed
from tests.small_project import MODEL, git

pytestmark = pytest.mark.machines

SOON = 60.0
MADE = (f"tokenise@{MODEL}", TRAIN, FUSE, GGUF)
RUN = ("run", TRAIN, "--on", "gpu0", "--yes")
NAMES = (f"p{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return run_project.build_paced(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    names = ("gpu0", "gpu1", "store")
    with run_project.network(tmp_path_factory.mktemp("machines"), names) as net:
        yield net


@pytest.fixture
def paced(net: Network) -> Paced:
    found = Paced.of(net)
    found.fails("")
    return found


@pytest.fixture
def project(net: Network, built: Built, paced: Paced) -> Iterator[Checkout]:
    """A checkout; after the test nothing has run twice at once, and nothing runs."""
    found = run_project.checkout(net, built, next(NAMES))
    yield found
    run_project.heal(net)
    paced.trainings()
    for name in ("gpu0", "gpu1"):
        wait_for(lambda at=net[name]: not at_work(at), f"{name} to be free", SOON)
        assert not references(job(net[name], found).parents[1] / "repo")
    assert not references(found.folder)


def at_work(machine: Machine) -> list[str]:
    """What of a job runs on a machine."""
    found = []
    for one in machine.processes():
        with suppress(psutil.NoSuchProcess):  # it ends just now
            found.append(" ".join(one.cmdline()))
    return [words for words in found if "stages" in words or "dvc" in words]


def references(repository: Path) -> str:
    """What a repository knows of jobs."""
    words = ("for-each-ref", "refs/tunesmith/jobs")
    return git(repository, *words) if repository.exists() else ""


def job(machine: Machine, project: Checkout) -> Path:
    """The folder of the only job of a project on a machine."""
    return next((machine.home / "jobs").glob(f"{project.folder.name}-*/jobs/*"), Path("/none/n/n"))


def says(machine: Machine, project: Checkout, text: str) -> Callable[[], bool]:
    """Whether the job has said that where it runs."""
    path = job(machine, project) / "said.0.txt"
    return lambda: path.exists() and text in path.read_text()


def sent(net: Network, project: Checkout, step: int) -> Callable[[], bool]:
    """Whether the checkpoint of a step is at the remote."""
    top = net["store"].ssh.folder / project.folder.name / "tunesmith" / "checkpoints"
    return lambda: any(top.rglob(f"{step}.json"))


def started(project: Checkout, paced: Paced, step: int, *words: str) -> Typed:
    """A command whose training has come to a step, and waits there."""
    paced.to(step)
    typed = project.start(*(words or RUN))
    typed.until(paced.at(step), SOON)
    typed.until(f"step {step}\n", SOON)
    return typed


def whole(project: Checkout, built: Built, *addresses: str) -> None:
    """dvc.lock has what a local build has."""
    for address in addresses or (TRAIN,):
        assert project.lock()[address] == built.lock[address]


def test_edits_travel_and_untracked_files_do_not(project, built, paced, net):
    (project.folder / "README.md").write_text("Edited, and not committed.\n")
    (project.folder / "notes.txt").write_text("Nobody knows of this one.\n")
    assert "Nobody is here to say yes" in project.tunesmith(*RUN[:-1], code=2)

    typed = started(project, paced, 5)
    work = job(net["gpu0"], project) / "work.0"
    assert (work / "README.md").read_text() == "Edited, and not committed.\n"
    assert not (work / "notes.txt").exists()
    assert "with what is not committed: README.md" in typed.said()
    paced.to(STEPS)
    typed.end()

    whole(project, built)
    assert git(project.folder, "stash", "list") == ""
    assert (project.folder / "README.md").read_text() == "Edited, and not committed.\n"


def test_what_nobody_carries_is_refused_before_anything_is_sent(project, net):
    git(project.folder, "rm", "-q", "--cached", "stages/core/merge.py")

    said = project.tunesmith("run", FUSE, "--on", "gpu0", "--yes", code=2)

    assert "stages/core/merge.py" in said
    assert not any((net["store"].ssh.folder / project.folder.name).iterdir())
    assert not job(net["gpu0"], project).exists()
    assert not project.jobs()


def test_a_killed_command_is_found_again_by_the_same_one_and_by_attach(project, built, paced):
    typed = started(project, paced, 5)
    typed.signal(signal.SIGKILL)
    typed.end(-signal.SIGKILL)

    again = project.start(*RUN)
    again.until("is under way on gpu0 already; this follows it")
    again.until("step 5\n")
    assert "is followed already, by process" in project.tunesmith("run", "--attach", code=2)
    assert "is made on gpu0 already" in project.tunesmith(
        "run", GGUF, "--on", "gpu1", "--yes", code=2
    )
    again.signal(signal.SIGINT)
    left = again.end(130)
    assert f"tunesmith run --attach {project.job()}" in left
    assert f"tunesmith run --stop {project.job()}" in left

    attached = project.start("run", "--attach")
    attached.until("step 5\n")
    paced.to(STEPS)
    assert "done on gpu0" in attached.end()
    whole(project, built)
    assert paced.trainings() == [[*range(1, STEPS + 1)]]


@pytest.mark.parametrize("moment", ["sending", "begun"])
def test_a_command_killed_while_it_begins_a_job_leaves_none_or_one(
    moment, project, built, paced, net
):
    typed = project.start(*RUN)

    def come() -> bool:
        if moment == "sending":
            return bool(project.jobs())
        lock = job(net["gpu0"], project) / "lock.0"
        return lock.exists() and bool(lock.read_text())

    typed.until(come, SOON)
    typed.signal(signal.SIGKILL)
    typed.end(-signal.SIGKILL)
    paced.to(STEPS)

    said = project.start(*RUN).end()
    assert ("already; this follows it" in said) == (moment == "begun")
    whole(project, built)
    assert paced.trainings() == [[*range(1, STEPS + 1)]]


def test_two_commands_at_once_begin_one_job(project, built, paced):
    both = [project.start(*RUN) for _ in range(2)]
    paced.to(STEPS)

    ends = sorted(typed.process.wait(SOON) for typed in both)

    assert ends == [0, 2], [typed.said() for typed in both]
    assert any("is followed already" in typed.said() for typed in both)
    whole(project, built)
    assert paced.trainings() == [[*range(1, STEPS + 1)]]


def test_a_cut_wire_and_a_killed_sshd_do_not_end_a_job(project, built, paced, net):
    typed = started(project, paced, 5)
    net.here.cut()
    net["gpu0"].kill_sshd()
    paced.to(STEPS)
    wait_for(paced.at(STEPS), "the training to end", SOON)
    wait_for(lambda: not at_work(net["gpu0"]), "the job to end", SOON)
    net["gpu0"].sshd()
    net.here.mend()

    assert "done on gpu0" in typed.end()
    whole(project, built)
    assert paced.trainings() == [[*range(1, STEPS + 1)]]


def test_a_remote_that_fails_while_training_and_pushing_is_waited_for(project, built, paced, net):
    typed = started(project, paced, 5)
    net["store"].kill_sshd()
    paced.to(15)
    wait_for(says(net["gpu0"], project, "does not take the log"), "a letter to fail", SOON)
    typed.until("The job goes on; trying again", SOON)
    net["store"].sshd()
    typed.until("step 15\n", SOON)

    net["store"].kill_sshd()
    paced.to(STEPS)
    wait_for(says(net["gpu0"], project, "Trying again"), "a push to fail", SOON)
    net["store"].sshd()

    assert "done on gpu0" in typed.end()
    whole(project, built)
    assert paced.trainings() == [[*range(1, STEPS + 1)]]


def test_a_dead_machine_goes_on_from_its_checkpoint_and_another_takes_over(
    project, built, paced, net
):
    typed = started(project, paced, 15)
    net["gpu0"].die()
    typed.signal(signal.SIGKILL)
    attached = project.start("run", "--attach")
    attached.until("gpu0 (ssh gpu0) does not answer, and no letter comes", SOON)
    attached.signal(signal.SIGINT)
    attached.end(130)
    net["gpu0"].revive()
    said = project.tunesmith("run", "--attach", code=1)
    assert "has ended without a word" in said
    assert f"to go on: tunesmith run {TRAIN} --on gpu0" in said

    typed = started(project, paced, 25)
    typed.until("goes on from step 10")
    wait_for(sent(net, project, 20), "its checkpoint to be at the remote", SOON)
    net["gpu0"].die()
    typed.signal(signal.SIGKILL)
    assert "gpu0 does not answer" in project.tunesmith("run", "--forget", code=2)
    assert "forgotten" in project.tunesmith("run", "--forget", "--yes")

    paced.to(STEPS)
    elsewhere = project.tunesmith("run", TRAIN, "--on", "gpu1", "--yes")
    net["gpu0"].revive()
    assert "goes on from step 20" in elsewhere
    whole(project, built)
    first, second, third = paced.trainings()
    assert (first[0], second[0], third) == (1, 11, [*range(21, STEPS + 1)])


def test_stop_brings_the_checkpoint_and_a_limit_of_hours_ends_a_job(project, built, paced, net):
    typed = started(project, paced, 15)
    said = project.tunesmith("run", "--stop", project.job())
    assert "nothing of it runs on gpu0 any more" in said
    assert not at_work(net["gpu0"])
    assert "to go on:" in typed.end(130)
    own = project.folder / ".tunesmith" / "checkpoints"
    assert [path.name for path in own.glob("*/*")] == ["checkpoint-10"]

    places = project.folder / "places.yaml"
    every = yaml.safe_load(places.read_text())
    every["gpu0"]["hours"] = 0.001
    places.write_text(yaml.safe_dump(every))
    assert "the limit of 0.001 hours" in project.tunesmith(*RUN, code=130)

    every["gpu0"]["hours"] = 0.0
    places.write_text(yaml.safe_dump(every))
    paced.to(STEPS)
    assert "goes on from step 10" in project.tunesmith(*RUN)
    whole(project, built)
    assert paced.trainings()[-1] == [*range(11, STEPS + 1)]


def test_a_stage_that_fails_there_leaves_what_was_finished_before_it(project, built, paced, net):
    paced.to(STEPS)
    paced.fails(FUSE)
    said = project.tunesmith("run", GGUF, "--on", "gpu0", "--yes", code=255)
    assert "it fails here" in said
    whole(project, built)
    assert FUSE not in project.lock()

    paced.fails("")
    assert "done on gpu0" in project.tunesmith("run", GGUF, "--on", "gpu0", "--yes")
    whole(project, built, TRAIN, FUSE, GGUF)
    assert paced.trainings() == [[*range(1, STEPS + 1)]]


def test_a_real_training_elsewhere_is_that_of_a_local_build(tmp_path, net):
    real = run_project.build(tmp_path)
    project = run_project.checkout(net, real, "real")
    project.tunesmith("run", GGUF, "--on", "gpu0", "--yes")

    assert project.lock() == real.lock
    assert (project.folder / FILE).is_file()
    made = [out["path"] for a in MADE for out in real.lock[a]["outs"]]
    had = run_project.objects(job(net["gpu0"], project).parents[1] / "cache")
    assert had == run_project.objects_of(real, f"data/chat/{MODEL}", "models/base/tiny", *made)

    project.dvc("repro", "--pull", "--allow-missing", VERIFY)
    assert project.lock()[VERIFY]["outs"]
    assert "Nothing to do" in project.tunesmith("plan", "--pull", VERIFY)
    assert "up to date" in project.dvc("status", GGUF, VERIFY)
