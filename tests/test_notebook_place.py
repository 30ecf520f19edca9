"""The place `notebook`: what is written is a notebook, and does what it says when it is run."""

import ast
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import psutil
import pytest
from pydantic import ValidationError

from stages.core import beginning
from stages.core.errors import TunesmithError
from stages.core.jobs import UNKNOWN, Job
from stages.places import notebook
from stages.places.notebook import machine, running, signing, writing

TOKEN = "hf_" + "aB3dE5gH7j" * 3
JOB = Job(
    id="train-sibyl-colab-1f2e", attempt=1, place="colab", targets=["train@sibyl"],
    needed=["train@sibyl"], baseline="a" * 40, snapshot="b" * 40, prefix="", project="tunes",
    git="https://example.com/me/tunes.git", remote={"name": "store", "url": "s3://bucket/tunes"},
    secrets=["TUNES_KEY"], env_file="", settings={}, setup=[], python="python3",
    folder="~/tunesmith-jobs", hours=2.0, processes=1, nodes=1, shard="none", checkpoints=True,
)  # fmt: skip
GOES_ON = """
import os, pathlib, sys
steps = pathlib.Path("steps.txt")
with steps.open("a") as file:
    file.write("step\\n")
print("key of", len(os.environ["TUNES_KEY"]), "letters")
sys.exit(0 if steps.read_text().count("step") > 1 else 3)
"""
LONG = """
import signal, subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def told(*_):
    print("now I am told to end")
    END
signal.signal(signal.SIGTERM, told)
print(f"ready {child.pid}\\n", end="")  # in one piece, and at once
while True:
    threading.Event().wait(1)
"""


def options(**said: Any) -> notebook.Options:
    return notebook.Options.model_validate({"kind": "notebook", **said})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNES_KEY", raising=False)
    return tmp_path


def written(script: str = "", job: Job = JOB, **said: Any) -> Any:
    """The notebook that `start` leaves, read and validated by nbformat."""
    notebook.start(job, options(**said), script or beginning.text(job.facts()))
    found = nbformat.read(Path("exports") / f"{job.id}.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(found)
    return found


class Runtime(nbclient.NotebookClient):
    """Jupyter's own client with one kernel, which runs notebooks as by Run all."""

    watch: Callable[[str], None] = print

    def output(self, outs: Any, msg: Any, display_id: Any, cell_index: int) -> Any:
        self.watch(text(msg["content"]))
        return super().output(outs, msg, display_id, cell_index)

    def interrupt(self) -> None:
        os.kill(self.km.provisioner.pid, signal.SIGINT)

    def run_all(self, book: Any) -> dict[str, str]:
        """What each cell of code has said, up to the first that has failed."""
        self.nb = book
        with contextlib.suppress(nbclient.exceptions.CellExecutionError):
            for index, cell in enumerate(book.cells):
                self.execute_cell(cell, index)
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        return {cell.id: "".join(map(text, cell.outputs)) for cell in code}

    def run_one(self, source: str) -> str:
        """What a cell says."""
        cell = nbformat.v4.new_code_cell(source, id="one")
        return self.run_all(nbformat.v4.new_notebook(cells=[cell]))["one"]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Runtime]:
    client = Runtime(nbformat.v4.new_notebook(), timeout=60)
    with client.setup_kernel():
        yield client


@pytest.fixture
def runtime(kernel: Runtime, folder: Path) -> Runtime:
    """The same kernel, in the folder of the test and without a secret."""
    kernel.watch = lambda said: None
    kernel.run_one(f"import os; os.chdir({str(folder)!r}); os.environ.pop('TUNES_KEY', None)")
    return kernel


def text(output: Any) -> str:
    return str(output.get("text") or "\n".join(output.get("traceback", [])))


# What is written.


@pytest.mark.parametrize("service", ["colab", "kaggle", "jupyter"])
def test_it_is_a_small_notebook_of_format_4_5_without_outputs(service: str) -> None:
    book = written(service=service)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    assert all(not cell.outputs for cell in book.cells if cell.cell_type == "code")
    assert (Path("exports") / f"{JOB.id}.ipynb").stat().st_size < 50_000
    assert ("accelerator" in book.metadata) == (service == "colab")
    assert ("kaggle" in book.metadata) == (service == "kaggle")


def test_each_cell_of_code_stands_below_one_that_says_what_it_does() -> None:
    cells = written(end_runtime=True).cells
    assert [cell.id for cell in cells if cell.cell_type == "code"] == [
        "machine", "secrets", "program", "run", "end",
    ]  # fmt: skip
    for before, cell in itertools.pairwise(cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown"
            assert before.source.startswith("## ")


def test_the_program_stands_in_one_cell_as_it_is() -> None:
    script = beginning.text(JOB.facts())
    (cell,) = [cell for cell in written(script).cells if cell.id == "program"]
    assert cell.source == f"%%writefile tunesmith-{JOB.id}.py\n{script}"


def test_it_names_the_secrets_and_holds_none_that_this_machine_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "TUNES_KEY"):
        monkeypatch.setenv(name, TOKEN)
    written()
    content = (Path("exports") / f"{JOB.id}.ipynb").read_text(encoding="utf-8")
    assert "TUNES_KEY" in content
    assert TOKEN not in content


def test_a_job_with_a_secret_in_it_is_not_written() -> None:
    with pytest.raises(TunesmithError, match="a Hugging Face token in it") as refused:
        written(f"# {TOKEN}\n")
    assert TOKEN not in str(refused.value)
    assert list(Path("exports").glob("*")) == []


def test_it_says_what_to_do_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    written()
    said = capsys.readouterr().out
    assert f"exports/{JOB.id}.ipynb" in said
    assert "Upload notebook" in said
    assert "a GPU" in said
    assert "needs the secret TUNES_KEY" in said


def test_nobody_here_knows_whether_it_runs() -> None:
    assert notebook.BY_HAND
    written()
    assert notebook.state(JOB, options()) == UNKNOWN
    (Path("exports") / f"{JOB.id}.ipynb").unlink()  # it was uploaded, and is not needed here
    assert notebook.state(JOB, options()) == UNKNOWN
    assert notebook.said(JOB, options()) == ""


def test_to_stop_it_says_who_ends_the_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    notebook.stop(JOB, options(service="kaggle"))
    notebook.stop(JOB, options(service="kaggle"))
    assert "yours to end, in Kaggle: Stop Session" in capsys.readouterr().out


# What is refused.


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"nodes": 2}, "one machine"),
        ({"env_file": "x.env"}, "the service's own store"),
        ({"git": f"https://me:{TOKEN}@example.com/x.git"}, "name GIT_TOKEN"),
    ],
)
def test_an_entry_that_a_notebook_cannot_honour_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        options(**said)


def test_a_folder_as_the_remote_is_refused_where_the_service_cannot_reach_it() -> None:
    job, own = replace(JOB, remote={"name": "nas", "url": "/media/nas/x"}), {"git": JOB.git}
    with pytest.raises(TunesmithError, match="a folder of this machine: /media/nas/x"):
        notebook.require(job, options(**own))
    notebook.require(job, options(**own, service="jupyter"))
    notebook.require(job, options(**own, remote_url="/content/drive/MyDrive/x"))
    notebook.require(JOB, options(**own))


def test_only_colab_can_be_told_to_end_its_runtime() -> None:
    with pytest.raises(TunesmithError, match="end_runtime is of Colab alone"):
        notebook.require(JOB, options(git=JOB.git, service="kaggle", end_runtime=True))


@pytest.mark.parametrize(
    ("origin", "advice"),
    [
        ("git@example.com:me/tunes.git", "git: https://example.com/me/tunes.git"),
        ("ssh://git@example.com/me/tunes.git", "git: https://example.com/me/tunes.git"),
        ("../elsewhere", "git: https://HOST/PROJECT.git"),
        (f"https://me:{TOKEN}@example.com/x.git", "git: https://HOST/PROJECT.git"),
    ],
)
def test_an_origin_that_a_notebook_cannot_fetch_from_is_refused(origin: str, advice: str) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "remote", "add", "origin", origin], check=True)
    with pytest.raises(TunesmithError) as refused:
        notebook.require(JOB, options())
    assert advice in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_the_commit_is_fetched_from_what_git_says_else_from_origin() -> None:
    with pytest.raises(TunesmithError, match="There is no origin"):
        notebook.source(JOB, options())
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "remote", "add", "origin", JOB.git], check=True)
    assert notebook.source(JOB, options()) == JOB.git
    assert notebook.source(JOB, options(git="https://example.com/b")) == "https://example.com/b"


# What it does there.


def test_run_all_runs_the_job_and_again_goes_on(runtime: Runtime) -> None:
    runtime.run_one("os.environ['TUNES_KEY'] = '0123456789'")
    book = written(GOES_ON)
    first = runtime.run_all(book)
    assert "Python:" in first["machine"]
    assert "TUNES_KEY is set." in first["secrets"]
    assert "key of 10 letters" in first["run"]
    assert "exit code 3" in first["run"]
    assert f"tunesmith run --attach {JOB.id}" in first["run"]
    second = runtime.run_all(book)
    assert "key of 10 letters\nThe job has ended well. At home:" in second["run"]
    assert Path(f"tunesmith-{JOB.id}.py").read_text(encoding="utf-8") == GOES_ON
    assert "0123456789" not in nbformat.writes(book)


def test_without_a_secret_it_says_how_it_is_set_and_runs_nothing(runtime: Runtime) -> None:
    book = written(GOES_ON)
    said = runtime.run_all(book)
    assert "TUNES_KEY is missing" in said["secrets"]
    assert "set it in the environment that starts Jupyter" in said["secrets"]
    assert (said["program"], said["run"]) == ("", "")
    alone = runtime.run_one(next(cell.source for cell in book.cells if cell.id == "run"))
    assert "TUNES_KEY: run the cell of the secrets first" in alone
    assert not Path("steps.txt").exists()


def cell_of(end: str) -> str:
    """The cell that runs LONG, which does so when it is told to end."""
    Path("long.py").write_text(LONG.replace("END", end), encoding="utf-8")
    source = Path(running.__file__).read_text(encoding="utf-8")
    return f"{source}\nrun('long.py', [], 'one')"


def gone(said: str) -> bool:
    """Whether the process that LONG or its like has started ends, which was killed just now."""
    pid, until = int(said.split("ready ")[1].split()[0]), time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
    return False


def watched(runtime: Runtime, *words: str) -> list[str]:
    """An interrupt as soon as each of the words was said while the cell runs, in this order."""
    left, said = list(words), [""]

    def watch(piece: str) -> None:
        said[0] += piece
        if left and left[0] in said[0]:
            said.append(left.pop(0))
            runtime.interrupt()

    runtime.watch = watch
    return said


def test_an_interrupt_ends_the_job_and_what_it_has_started(runtime: Runtime) -> None:
    interrupted = watched(runtime, "ready")
    said = runtime.run_one(cell_of("sys.exit(4)"))
    assert interrupted[1:] == ["ready"]
    assert "Interrupted" in said
    assert "now I am told to end" in said.split("Interrupted")[1]
    assert "(exit code 4)" in said
    assert gone(said)


def test_a_second_interrupt_ends_at_once_a_job_that_will_not(runtime: Runtime) -> None:
    interrupted = watched(runtime, "ready", "now I am told to end")
    said = runtime.run_one(cell_of("pass"))
    assert interrupted[1:] == ["ready", "now I am told to end"]
    assert "KeyboardInterrupt" in said
    assert gone(said)


@pytest.mark.skipif(sys.platform != "linux", reason="no prctl")
def test_a_kernel_that_is_killed_takes_the_job_with_it() -> None:
    words = [sys.executable, "-c", cell_of("sys.exit(4)")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        said = one.stdout.readline()
        (job,) = [c for c in psutil.Process(one.pid).children() if "long.py" in c.cmdline()]
        one.kill()
    assert gone(f"ready {job.pid}"), said


def test_what_a_job_leaves_behind_neither_holds_the_cell_nor_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("leaves.py").write_text(
        "import subprocess, sys\n"
        "words = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "print('ready', subprocess.Popen(words).pid)\n",
        encoding="utf-8",
    )
    running.run("leaves.py", [], "one")
    said = capsys.readouterr().out
    assert "has ended well" in said
    assert gone(said)


def test_a_job_that_an_earlier_kernel_has_begun_is_left_to_it() -> None:
    Path("busy.py").write_text(f"raise SystemExit({beginning.BUSY})\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="at work on this machine already"):
        running.run("busy.py", [], "one")


def test_letters_that_come_in_two_pieces_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    Path("letters.py").write_text(
        "import os\nfor byte in 'a\\u00e9\\u2713'.encode(): os.write(1, bytes([byte]))\n",
        encoding="utf-8",
    )
    running.run("letters.py", [], "one")
    assert capsys.readouterr().out.startswith("aé✓")


def test_what_is_only_the_kernels_does_not_reach_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "of-the-kernel")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("TUNES_KEY", "x")
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    found = running.variables()
    assert not {"PYTHONPATH", "MPLBACKEND"} & set(found)
    assert found["TUNES_KEY"] == "x"
    assert found["PYTHONUNBUFFERED"], "what it says would come in lumps"


def service(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """A module as the service has it, whose errors are its own."""
    module = types.ModuleType(name)
    vars(module).update(content)
    parts = name.split(".")
    for end in range(1, len(parts)):
        above = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, above, types.ModuleType(above))
    monkeypatch.setitem(sys.modules, name, module)


def kept(secrets: dict[str, str], missing: type[Exception]) -> Callable[[str], str]:
    def get(name: str) -> str:
        if name not in secrets:
            raise missing(name)
        return secrets[name]

    return get


def test_colabs_secrets_are_read_where_colab_keeps_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = {
        name: type(name, (Exception,), {})
        for name in ("SecretNotFoundError", "NotebookAccessError", "TimeoutException")
    }
    get = kept({"TUNES_KEY": f"{TOKEN}\n"}, errors["NotebookAccessError"])
    service(monkeypatch, "google.colab.userdata", get=get, **errors)
    signing.fetch(["TUNES_KEY"])
    assert os.environ["TUNES_KEY"] == TOKEN
    assert TOKEN not in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"OTHER is missing \(NotebookAccessError\): .*`Notebook"):
        signing.fetch(["TUNES_KEY", "OTHER"])


def test_kaggles_secrets_are_read_where_kaggle_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {name: type(name, (Exception,), {}) for name in ("BackendError", "CredentialError")}
    get = kept({"TUNES_KEY": TOKEN}, ConnectionError)
    client = types.SimpleNamespace(get_secret=get)
    monkeypatch.setitem(sys.modules, "google.colab.userdata", None)
    service(monkeypatch, "kaggle_secrets", UserSecretsClient=lambda: client, **errors)
    signing.fetch(["TUNES_KEY"])
    assert os.environ["TUNES_KEY"] == TOKEN
    with pytest.raises(SystemExit, match=r"Add-ons > Secrets.*Internet must be on"):
        signing.fetch(["OTHER"])


def test_elsewhere_a_secret_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(signing.getpass, "getpass", lambda said: asked.append(said) or TOKEN)
    signing.fetch(["TUNES_KEY"])
    signing.fetch(["TUNES_KEY"])
    assert asked == ["TUNES_KEY: "]
    assert os.environ["TUNES_KEY"] == TOKEN


def test_a_machine_without_git_ends_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="no git here"):
        machine.look("~/not/there/yet")


def test_the_cells_are_python_3_9() -> None:
    for name in ("machine", "signing", "running"):
        source = (writing.HERE / f"{name}.py").read_text(encoding="utf-8")
        ast.parse(source, feature_version=(3, 9))
