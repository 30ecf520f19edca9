"""A sweep: every point once, each in its own workspace, and one table, whatever ends it."""

import json
import os
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
import yaml

from stages import commands
from stages.commands.sweep import dividing, grid, places, point, store
from stages.core import graph, repository, settings
from stages.core.errors import TunesmithError
from tests import small_project
from tests.small_project import BIN, Plain, git

MODEL = "wzrdbrain"
RANK, RATE = f"models.{MODEL}.lora.r", f"models.{MODEL}.train.learning_rate"

DVC_YAML = """
stages:
  base:
    foreach: ${bases}
    do:
      cmd: python -m stages base ${key}
      params: ["bases.${key}"]
      outs: ["models/base/${key}"]
  convert:
    foreach: ${datasets}
    do:
      cmd: python -m stages convert ${key}
      deps: ["${item.source}"]
      params: ["datasets.${key}.options"]
      outs: ["data/chat/${key}"]
  train:
    foreach: ${models}
    do:
      cmd: python -m stages train ${key}
      deps: ["data/chat/${item.dataset}", "${item.base}"]
      params:
        - models.${key}.base
        - models.${key}.method
        - models.${key}.lora
        - models.${key}.train
      outs: ["models/adapter/${key}"]
      metrics: ["reports/${key}/train/summary.json"]
  gguf:
    foreach: ${gguf}
    do:
      cmd: python -m stages gguf ${key}
      deps: ["models/adapter/${item.model}"]
      params: ["gguf.${key}.quant"]
      outs: ["models/gguf/${item.model}/${key}.gguf"]
  evaluate:
    foreach: ${models}
    do:
      cmd: python -m stages evaluate ${key}
      deps: ["models/adapter/${key}"]
      params: ["models.${key}.gates"]
      metrics: ["reports/${key}/evaluate/metrics.json"]
  release:
    foreach: ${models}
    do:
      cmd: python -m stages release ${key}
      deps: ["models/gguf/${key}", "reports/${key}/evaluate/metrics.json"]
      outs: ["models/release/${key}"]
"""

# Each output is made of what the stage reads. Lines of `hold` in the main checkout name stages that
# say that they are there, and wait in a pipe until the test has done what it is to do.
STUB = """
import hashlib, json, os, sys
from pathlib import Path
import yaml
stage, key = sys.argv[1:]
address, main = f"{stage}@{key}", Path(os.environ["DVC_ROOT"])
with (main / "ran.txt").open("a") as log:
    log.write(f"{address} {Path.cwd().name}\\n")
for line in (main / "hold").read_text().splitlines() if (main / "hold").exists() else ():
    if line == address or line == f"{address} {Path.cwd().name}":
        with (main / "there").open("w") as there:
            there.write(f"{os.getpid()}\\n")
        (main / "go").open().read()
params, graph = (yaml.load(Path(name).read_text(), yaml.CSafeLoader)
                 for name in ("params.yaml", "dvc.yaml"))
entry = graph["stages"][stage]["do"]
section = {"base": "bases", "convert": "datasets", "gguf": "gguf"}.get(stage, "models")
item = params[section][key]
def text(of):
    of = of.replace("${key}", key)
    for name in ("dataset", "base", "model", "source"):
        of = of.replace("${item.%s}" % name, str(item.get(name)))
    return of
seen = hashlib.sha256()
for dep in map(text, entry.get("deps", ())):
    path = Path(dep)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        seen.update(file.read_bytes() if file.is_file() else b"")
for name in map(text, entry.get("params", ())):
    value = params
    for part in name.split("."):
        value = value[part]
    seen.update(json.dumps(value, sort_keys=True).encode())
rank = params["models"]["wzrdbrain"]["lora"]["r"]
if stage == "train" and rank == 13:
    sys.exit("Traceback: no such rank")
if stage == "release" and rank == 7:
    sys.exit("\\nerror: 1 of 4 gates of 'wzrdbrain' did not pass.\\n  why   A release is "
             "a promise; these say that it would not be kept: fused: parse")
for out in map(text, [*entry.get("outs", ()), *entry.get("metrics", ())]):
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    if out.endswith("summary.json"):
        path.write_text(json.dumps({"loss": {"last": 1 / rank, "valid_last": 2 / rank}}))
    elif out.endswith("metrics.json"):
        number = int(seen.hexdigest()[:4], 16) / 0xffff
        path.write_text(json.dumps({"tuned_greedy": {"parse": number, "distinct": 0.5}}))
    elif path.suffix:
        path.write_text(seen.hexdigest())
    else:
        path.mkdir(exist_ok=True)
        (path / "file").write_text(seen.hexdigest())
"""


def make(folder: Path) -> Path:
    """A project with the settings of a real one and six stages that do nothing but hash."""
    folder.mkdir()
    params = small_project.params()
    params["datasets"][MODEL]["source"] = "data/raw/notes"
    params["gguf"].popitem()
    files = {
        "params.yaml": "# What everything is made of.\n" + yaml.dump(params, Dumper=Plain),
        "dvc.yaml": DVC_YAML,
        "stages/__init__.py": "",
        "stages/__main__.py": STUB,
        "data/raw/notes/one.txt": "one",
        ".gitignore": "/data/chat/\n/models/\n/reports/\n/.tunesmith/\n/local.env\n__pycache__/\n"
        "/ran.txt\n/hold\n/there\n/go\n",
        ".dvcignore": (small_project.ROOT / ".dvcignore").read_text(),
        ".dvc/config": (small_project.ROOT / ".dvc/config").read_text(),
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "A project of stubs"]):
        git(folder, *words)
    return folder


def sweep(folder: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    """`tunesmith sweep <words>` in a project, in a process group of its own."""
    return subprocess.Popen(
        [str(BIN / "tunesmith"), "sweep", *words], cwd=folder, start_new_session=True, text=True,
        env=small_project.environment(**env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def done(folder: Path, *words: str, **env: str) -> tuple[int, str]:
    """The exit code of a sweep that has ended, and what it printed."""
    process = sweep(folder, *words, **env)
    text, _ = process.communicate()
    return process.returncode, text


def ran(folder: Path) -> list[str]:
    """The stages that ran, each with the point that ran it."""
    log = folder / "ran.txt"
    return sorted(log.read_text().splitlines()) if log.exists() else []


def trainings(folder: Path) -> list[str]:
    return [line for line in ran(folder) if line.startswith("train@")]


def table(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of a sweep's table by their headings."""
    lines = (folder / ".tunesmith/sweeps" / name / "table.tsv").read_text().splitlines()
    head, *rows = (line.split("\t") for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def experiments(folder: Path) -> list[str]:
    """The experiments that DVC knows."""
    listed = git(folder, "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/**")
    return sorted(name for name in listed.splitlines() if name)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, str]:
    """A project after a sweep of two points at once, and what the sweep printed."""
    folder = make(tmp_path_factory.mktemp("swept") / "project")
    edited = (folder / "params.yaml").read_text().replace("alpha: 32.0", "alpha: 16.0")
    (folder / "params.yaml").write_text(edited)
    (folder / "data/raw/notes/one.txt").write_text("two")  # as long as before, in the same second
    code, text = done(folder, "-S", f"{RANK}=7,8", "--at-once", "2", "--name", "two")
    assert code == 1, text
    return folder, text


@pytest.mark.slow
def test_each_point_becomes_a_row_and_an_experiment_whether_or_not_its_gates_passed(swept):
    folder, text = swept
    rows = table(folder, "two")

    assert [(r["experiment"], r["r"], r["state"]) for r in rows] == [
        ("two-1", "7", "gate failed"), ("two-2", "8", "done")
    ]  # fmt: skip
    assert rows[1]["valid loss"] == "0.25"
    assert rows[1]["parse"]
    assert rows[0]["reason"].endswith("did not pass. fused: parse")
    assert experiments(folder) == ["two-1", "two-2"]
    assert "dvc exp apply two-2" in text


@pytest.mark.slow
def test_points_that_need_the_same_stage_wait_until_one_of_them_has_made_it(swept):
    folder, _ = swept

    stages = [line.split()[0] for line in ran(folder)]
    assert stages.count("convert@wzrdbrain") == stages.count("base@tiny") == 1
    assert stages.count("train@wzrdbrain") == 2


@pytest.mark.slow
def test_edits_that_are_not_committed_are_part_of_every_point(swept):
    folder, _ = swept

    text = shown(folder, "two-2")
    assert yaml.safe_load(text)["models"][MODEL]["lora"] | {"targets": []} == {
        "r": 8, "alpha": 16.0, "dropout": 0.0, "targets": [], "layers": 0
    }  # fmt: skip
    assert text.startswith("# What everything is made of.")
    assert shown(folder, "two-2", "data/raw/notes/one.txt") == "two"


def shown(folder: Path, name: str, path: str = "params.yaml") -> str:
    """A file of an experiment."""
    commit = git(folder, "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").strip()
    return git(folder, "show", f"{commit}:{path}")


@pytest.mark.slow
def test_nothing_is_left_but_what_a_sweep_is_for(swept):
    folder, _ = swept

    assert list((folder / ".tunesmith/sweeps/two/work").iterdir()) == []
    assert git(folder, "worktree", "list").count("\n") == 1
    assert git(folder, "for-each-ref", "refs/tunesmith") == ""
    assert git(folder, "status", "--porcelain") == (" M data/raw/notes/one.txt\n M params.yaml\n")


@pytest.mark.slow
def test_the_same_again_prints_the_table_and_runs_nothing(swept, monkeypatch, capsys):
    folder, _ = swept
    before = ran(folder)
    monkeypatch.chdir(folder)

    with pytest.raises(SystemExit, match="1"):
        commands.sweep.run([f"{RANK}=7,8"], [], commands.sweep.Request("two"))

    assert ran(folder) == before
    assert "two-2" in capsys.readouterr().out


@pytest.mark.slow
def test_a_name_is_not_taken_for_other_settings_nor_an_old_result_for_a_new_one(swept, monkeypatch):
    folder, _ = swept
    monkeypatch.chdir(folder)

    with pytest.raises(TunesmithError, match="'two' has other settings"):
        commands.sweep.run([f"{RANK}=7,9"], [], commands.sweep.Request("two"))
    (folder / "dvc.yaml").write_text(DVC_YAML + "\n# edited\n")
    with pytest.raises(TunesmithError, match="the project has changed since"):
        commands.sweep.run([f"{RANK}=7,8"], [], commands.sweep.Request("two"))
    (folder / "dvc.yaml").write_text(DVC_YAML)
    head = git(folder, "rev-parse", "HEAD").strip()
    with pytest.raises(TunesmithError, match="an experiment 'two-2' already"):
        commands.sweep.require_free(folder, head, [store.Point("two-2", {}, "")])


@pytest.mark.parametrize("name", ["../x", "a..b", "a/b", "-x", "Night", "a b"])
def test_a_name_that_is_none_for_a_folder_and_for_git_is_refused(name):
    with pytest.raises(TunesmithError, match="no name for a sweep"):
        commands.sweep.require_name(name)


@pytest.mark.slow
def test_experiments_shows_what_differs_and_the_scores_that_matter(swept, monkeypatch, capsys):
    folder, _ = swept
    monkeypatch.chdir(folder)
    commands.experiments.run("", True)
    head, own, seven, eight = json.loads(capsys.readouterr().out)

    assert (head["name"], own["name"], seven["name"]) == ("HEAD", "workspace", "two-1")
    assert eight["params"] == {RANK: 8, f"models.{MODEL}.lora.alpha": 16.0}
    assert eight["metrics"]["valid loss"] == 0.25
    commands.experiments.run(MODEL, False)
    assert "valid loss" in capsys.readouterr().out


def test_differences_are_against_head():
    def row(name: str, loss: float, rank: int) -> commands.experiments.Row:
        files = {f"reports/{MODEL}/train/summary.json": {"loss": {"last": loss}}}
        return commands.experiments.Row(name, {RANK: rank}, files, {})

    found = commands.experiments.compared(
        [row("HEAD", 0.5, 8), row("workspace", 0.5, 8), row("one", 0.25, 16)], {MODEL: []}
    )
    head, rows = commands.experiments.table(found)

    assert head == ["experiment", "r", "loss", "note"]
    assert rows == [["HEAD", "", "0.5", ""], ["one", "16", "0.25 (-0.25)", ""]]


@pytest.mark.slow
def test_the_plot_says_in_words_what_it_draws_and_needs_nothing_from_elsewhere(swept):
    folder, _ = swept
    root = ElementTree.parse(folder / ".tunesmith/sweeps/two/plot.svg").getroot()
    words = root.find("{http://www.w3.org/2000/svg}desc")

    assert words is not None
    assert "valid loss: r=7 0.2857, r=8 0.25" in (words.text or "")
    assert "href" not in ElementTree.tostring(root, encoding="unicode")


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("a.b=1e-5,3e-3", (1e-5, 3e-3)),
        ("a.b=[x,y],[x]", (["x", "y"], ["x"])),
        ("a.b=lora,dora", ("lora", "dora")),
        ("a.b='one, two',three", ("one, two", "three")),
        ("a.b=range(1,4)", (1, 2, 3)),
        ("params.yaml:a.b=true", (True,)),
        ("+a.b={beta:0.1}", ({"beta": 0.1},)),
    ],
)
def test_settings_are_read_as_dvc_exp_run_reads_them(typed, values):
    (found,) = grid.parse([typed])

    assert (found.key, found.values) == ("a.b", values)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["a.b"], "cannot be read"),
        (["a.b=1,"], "cannot be read"),
        (["a.b=1,null"], "has an empty value"),
        (["a.b=range(1,0)"], "has an empty value"),
        (["~a.b"], "takes a setting away"),
        (["a.b=8,8"], "names a value twice"),
        (["a.b=8", "a.b=16"], "a.b is set twice"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(typed, said):
    with pytest.raises(TunesmithError, match=said):
        grid.parse(typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (f"models.{MODEL}.lora.rank=8", "(?s)no models.wzrdbrain.lora.rank.*Known: .*r, targets"),
        ("models.wzrdbrian.lora.r=8", "(?s)no models.wzrdbrian.*Did you mean 'wzrdbrain'"),
        (f"{RANK}=8,0", "r=0: models.wzrdbrain.lora.r: Input should be greater"),
        (f"models.{MODEL}.method=lora,lorra", "method=lorra: .*Input should be 'lora'"),
        (f"{RANK}.x=8", "There is no models.wzrdbrain.lora.r.x"),
    ],
)
def test_every_value_is_checked_before_anything_runs(typed, said):
    source = yaml.dump(small_project.params(), Dumper=Plain)

    with pytest.raises(TunesmithError, match=said):
        grid.texts(source, grid.parse([typed]))


def test_a_grid_of_too_many_points_is_refused_before_any_is_written():
    with pytest.raises(TunesmithError, match="a grid of 49,999 points"):
        grid.texts("", grid.parse([f"{RATE}=range(1,50000)"]))
    with pytest.raises(TunesmithError, match="cannot be read"):
        grid.parse([f"{RATE}=range(1,2,0)"])


def test_what_a_point_changes_stands_in_its_params_and_nothing_else_does():
    source = (small_project.ROOT / "params.yaml").read_text(encoding="utf-8")
    lists = grid.parse([f"models.{MODEL}.lora.targets=[q_proj]", f"{RATE}=1e-5"])

    (text,) = grid.texts(source, lists)

    changed = [(a, b) for a, b in zip(source.splitlines(), text.splitlines(), strict=True)
               if a.split() != b.split()]  # fmt: skip
    assert [new.strip().split(": ", 1) for _, new in changed] == [
        ["lora", "{r: 32, alpha: 32.0, dropout: 0.0, targets: [q_proj], layers: 0}"],
        ["learning_rate", "1.0e-05"],
    ]


@pytest.mark.parametrize(
    ("key", "targets", "not_before"),
    [
        (RATE, [f"release@{MODEL}"], "train"),
        (f"models.{MODEL}.method", [f"release@{MODEL}"], "tokenise"),
        (f"models.{MODEL}.base", [f"release@{MODEL}"], "tokenise"),
        (f"gguf.{MODEL}-q8_0.quant", [f"release@{MODEL}"], "gguf"),
        (f"datasets.{MODEL}.options.rules", [f"release@{MODEL}"], "convert"),
        ("samples.sibyl.options.games", ["release@sibyl"], "sample"),
    ],
)
def test_what_a_key_shapes_is_built_and_what_comes_before_is_shared(key, targets, not_before):
    params, stages = settings.load(), graph.load()

    assert places.targets([key], params) == targets
    needed = places.needed(stages, targets)
    affected = places.affecting(stages, [key])
    assert needed[-1] == targets[0]
    first = next(address for address in needed if affected[address])
    assert first.split("@")[0] == not_before


def test_a_point_that_was_killed_for_memory_says_so():
    log = "Running stage 'train@x':\n> python -m stages train x\n  step 3\n"
    log += "ERROR: failed to reproduce 'train@x': failed to run: python, exited with 137\n"

    assert point.why(log) == (
        "train@x", "it was killed, most likely because the memory was full"
    )  # fmt: skip


def test_a_points_reason_is_not_what_a_job_says_of_what_it_has_sent():
    log = "Running stage 'train@x':\n> python -m stages train x\nValueError: no\n"
    failed = "ERROR: failed to reproduce 'train@x': unable to open a file\n  sent 4 files\n"

    assert point.why(log + failed) == ("train@x", "ValueError: no")
    bare = log.replace("ValueError: no\n", "") + failed
    assert point.why(bare) == (
        "train@x", "failed to reproduce 'train@x': unable to open a file"
    )  # fmt: skip


def test_the_machine_is_divided_between_the_points(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(dividing.machine, "cores", lambda: 8)
    monkeypatch.setattr(dividing, "visible_gpus", lambda: ["0", "1"])

    assert [dividing.environment(3, slot) for slot in range(3)] == [
        {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": gpu} for gpu in "010"
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert dividing.environment(1, 0) == {}


def test_an_untracked_file_beside_tracked_ones_is_named(tmp_path):
    for name in ("data/raw/a.txt", "data/raw/b.txt", "other/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "data/raw/a.txt")

    assert repository.left_out(tmp_path, ["data/raw", "other"]) == ["data/raw/b.txt"]


def grid_of_eight(name: str) -> tuple[str, ...]:
    return ("-S", f"{RANK}=8,16", "-S", f"{RATE}=1e-5,1e-4,1e-3,1e-2", "--at-once", "2",
            "--name", name)  # fmt: skip


class Held:
    """A stage that says when it is there, and goes on when it is let."""

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder = folder
        for name in ("there", "go"):
            os.mkfifo(folder / name)
        (folder / "hold").write_text(stage)

    def wait(self) -> psutil.Process:
        """Wait until it is there; its process."""
        return psutil.Process(int((self.folder / "there").read_text()))

    def no_more(self) -> None:
        """Hold no stage from now on."""
        (self.folder / "hold").unlink()
        for name in ("there", "go"):
            (self.folder / name).unlink()


def gone(*processes: psutil.Process) -> bool:
    """Whether all have ended, waiting for it."""
    return not psutil.wait_procs(processes, timeout=60)[1]


def check_eight(folder: Path, name: str) -> None:
    rows = table(folder, name)
    assert [row["state"] for row in rows] == ["done"] * 8
    assert len({row["parse"] for row in rows}) == 8
    assert [e for e in experiments(folder) if e.startswith(f"{name}-")] == [
        f"{name}-{n}" for n in range(1, 9)
    ]


@pytest.mark.slow
def test_a_grid_of_eight_ends_three_times_in_a_row_though_it_was_killed_half_way(tmp_path):
    folder = make(tmp_path / "project")
    for number, kill in enumerate((None, "sweep", "group")):
        name = f"grid{number}"
        lines = (folder / "data/raw/notes/one.txt").read_text()
        (folder / "data/raw/notes/one.txt").write_text(f"{lines}{number}")  # nothing is cached
        (folder / "ran.txt").unlink(missing_ok=True)
        if kill:
            held = Held(folder, f"train@wzrdbrain {name}-5")
            process = sweep(folder, *grid_of_eight(name))
            stage = held.wait()
            below = psutil.Process(process.pid).children(recursive=True)
            (os.kill if kill == "sweep" else os.killpg)(process.pid, signal.SIGKILL)
            process.communicate()
            assert gone(stage, *below), "what a killed sweep has started ends with it"
            held.no_more()
            ended = len(list((folder / ".tunesmith/sweeps" / name / "points").glob("*.json")))
            assert 0 < ended < 8
        code, text = done(folder, *grid_of_eight(name))

        assert code == 0, text
        check_eight(folder, name)
        again = {f"train@wzrdbrain {name}-5"} if kill else set()
        once = [line for line in trainings(folder) if line not in again]
        assert len(once) == len(set(once)), "no finished training is repeated"
        assert [line for line in ran(folder) if line.startswith("convert@")] == [
            f"convert@wzrdbrain {name}-1"
        ]
    git(folder, "checkout", "-q", ".")
    applied = small_project.dvc(folder, "exp", "apply", "grid2-3")
    assert applied.returncode == 0, applied.stderr
    assert "up to date" in small_project.dvc(folder, "status").stdout


@pytest.mark.slow
def test_what_a_killed_sweep_has_left_running_is_ended_before_its_point_is_built_again(tmp_path):
    folder = make(tmp_path / "project")
    held = Held(folder, "train@wzrdbrain")
    words = ("-S", f"{RANK}=8", "--name", "left")
    process = sweep(folder, *words)
    stage = held.wait()
    process.send_signal(signal.SIGSTOP)
    for below in psutil.Process(process.pid).children(recursive=True):
        if below != stage:  # DVC, before it can end the stage
            below.kill()
    process.kill()
    process.communicate()
    assert stage.is_running()
    held.no_more()

    code, text = done(folder, *words)

    assert code == 0, text
    assert gone(stage)
    assert trainings(folder) == ["train@wzrdbrain left-1"] * 2


@pytest.mark.slow
def test_ctrl_c_ends_the_points_and_says_how_to_go_on(tmp_path):
    folder = make(tmp_path / "project")
    held = Held(folder, "train@wzrdbrain")
    process = sweep(folder, "-S", f"{RANK}=8,13", "--at-once", "2", "--name", "night")
    stage = held.wait()
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate()

    assert process.returncode == 130
    assert "tunesmith sweep --name night" in text
    assert "Traceback" not in text
    assert gone(stage, *below)
    held.no_more()
    assert experiments(folder) == []

    code, text = done(folder, "--name", "night")  # a point that fails does not stop the other

    assert code == 1
    assert [(row["state"], row["reason"]) for row in table(folder, "night")] == [
        ("done", ""), ("failed", "train@wzrdbrain: Traceback: no such rank")
    ]  # fmt: skip
    assert experiments(folder) == ["night-1"]


@pytest.mark.slow
def test_two_sweeps_of_one_name_do_not_run_at_once(tmp_path):
    folder = make(tmp_path / "project")
    held = Held(folder, "base@tiny")
    words = ("-S", f"{RANK}=8", "--name", "once")
    process = sweep(folder, *words)
    stage = held.wait()

    code, text = done(folder, *words)

    assert code == 2
    assert "'once' runs already" in text
    held.no_more()
    stage.kill()
    process.communicate()


KINDS = [
    (f"{RATE}=1e-5", {"train", "gguf", "evaluate", "release"}),
    (f"{RANK}=8", {"train", "gguf", "evaluate", "release"}),
    (f"models.{MODEL}.lora.targets=[q_proj]", {"train", "gguf", "evaluate", "release"}),
    (f"models.{MODEL}.method=dora", {"train", "gguf", "evaluate", "release"}),
    (f"models.{MODEL}.base=models/base/other", {"base", "train", "gguf", "evaluate", "release"}),
    (f"gguf.{MODEL}-f16.quant=q8_0", {"gguf", "release"}),
    (f"datasets.{MODEL}.options.rules=11", {"convert", "train", "gguf", "evaluate", "release"}),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A project that was built, committed, with raw data that git does not have."""
    folder = make(tmp_path_factory.mktemp("built") / "project")
    text = (folder / "params.yaml").read_text()
    params = yaml.safe_load(text)
    params["bases"]["other"] = params["bases"]["tiny"] | {"seed": 8}
    (folder / "params.yaml").write_text(yaml.dump(params, Dumper=Plain))
    git(folder, "rm", "-q", "--cached", "-r", "data")
    with (folder / ".gitignore").open("a") as ignored:
        ignored.write("/data/\n")
    built = small_project.dvc(folder, "repro", "-q", "release")
    assert built.returncode == 0, built.stderr
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Built")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "stages"), KINDS)
def test_only_what_depends_on_what_is_swept_runs_again(built, setting, stages):
    (built / "ran.txt").unlink(missing_ok=True)

    code, text = done(built, "-S", setting)

    assert code == 0, text
    assert {line.split("@")[0] for line in ran(built)} == stages
