"""The images: what their locks, Dockerfiles and labels promise, and what the built one holds."""

import importlib.util
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from closure import imports
from packaging.requirements import Requirement

from stages.core import engine

ROOT = Path(__file__).parents[1]
KINDS = ("cpu", "cuda")
CUDA = re.compile(r"(cuda|nvidia)-.*|triton")


def _load(name):
    spec = importlib.util.spec_from_file_location(f"env_{name}", ROOT / "env" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pins(part):
    """Name -> version."""
    text = (ROOT / "env" / f"{part}.lock").read_text()
    return dict(line.split()[0].split("==") for line in text.splitlines())


def _hashes(part, package):
    text = (ROOT / "env" / f"{part}.lock").read_text()
    return set(re.findall(rf"^{package}==.*$", text, re.MULTILINE)[0].split()[1:])


def _steps(kind):
    """The Dockerfile's instructions, one joined line each, comments left out."""
    text = (ROOT / f"Dockerfile.{kind}").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.split(maxsplit=1) for line in lines]


def _last_stage(kind):
    steps = _steps(kind)
    start = max(i for i, (name, _) in enumerate(steps) if name == "FROM")
    return steps[start:]


def _copied(kind):
    """What a Dockerfile takes from the project's folder."""
    copies = [rest.split() for name, rest in _steps(kind) if name == "COPY"]
    return {source for words in copies if "--from" not in words[0] for source in words[:-1]}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_gets_the_versions_that_the_stages_depend_on(kind):
    known = _pins("data") | _pins("torch") | _pins("dev")
    found = _pins(kind)
    assert (_pins("data") | _pins("torch")).items() <= found.items()
    assert {n: v for n, v in found.items() if not CUDA.fullmatch(n)}.items() <= known.items()
    assert "dvc" not in found


@pytest.mark.parametrize("kind", KINDS)
def test_every_line_of_an_images_lock_has_a_version_and_hashes(kind):
    for line in (ROOT / "env" / f"{kind}.lock").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.a-z]+( --hash=sha256:[0-9a-f]{64})+", line), line


def test_an_image_holds_all_that_its_packages_need():
    locked = _pins("cpu")
    for package in locked:
        for need in map(Requirement, distribution(package).requires or []):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert _load("lock").name(need.name) in locked, f"{package} needs {need}"


def test_packages_with_machine_code_are_locked_for_both_processors_and_other_pythons():
    assert len(_hashes("cpu", "numpy")) == len(_hashes("cuda", "torch")) == 8
    assert len(_hashes("cpu", "bitsandbytes")) == len(_hashes("cpu", "xllamacpp")) == 2


def test_the_cpu_image_cannot_get_the_torch_that_needs_cuda_nor_the_other_way_round():
    assert _hashes("cpu", "torch")
    assert not _hashes("cpu", "torch") & _hashes("cuda", "torch")
    assert not [package for package in _pins("cpu") if CUDA.fullmatch(package)]
    assert {"triton", "nvidia-cudnn-cu13", "nvidia-nccl-cu13"} <= _pins("cuda").keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_dockerfile_starts_from_one_base_pinned_by_digest(kind):
    base = next(rest for name, rest in _steps(kind) if name == "ARG")
    assert re.fullmatch(r"BASE_IMAGE=python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)
    known = {"${BASE_IMAGE}"}
    for name, rest in _steps(kind):
        if name == "FROM":
            origin, _, stage = rest.partition(" AS ")
            assert origin in known
            known.add(stage)
    assert len(known) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_stage_runs_nothing_and_adds_one_folder_only(kind):
    for name, rest in _last_stage(kind):
        assert name in {"FROM", "COPY", "ENV", "ARG", "LABEL", "USER", "CMD"}
        if name == "COPY":
            assert rest.startswith("--from=")
            assert rest.split()[-1].startswith("/opt/tunesmith/")
    assert not [rest for name, rest in _last_stage(kind) if name == "ARG" and "PIP" in rest]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_runs_as_a_user_that_is_not_root(kind):
    users = [rest for name, rest in _last_stage(kind) if name == "USER"]
    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_installation_checks_hashes_and_takes_wheels_only(kind):
    installs = [rest for name, rest in _steps(kind) if name == "RUN" and "pip" in rest.split("/")]
    installs = [rest for rest in installs if " install " in rest and ".lock" in rest]
    assert len(installs) == 3
    for rest in installs:
        assert "--require-hashes --no-deps --only-binary :all:" in re.sub(r" +", " ", rest)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_address_nor_secret_stands_in_a_dockerfile(kind):
    text = (ROOT / f"Dockerfile.{kind}").read_text()
    assert not re.search(r"://|token|secret|passw|HF_|--(extra-)?index|find-links", text, re.I)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_of_the_lock_hold_every_line_once(kind, tmp_path):
    (split,) = [rest for name, rest in _steps(kind) if name == "RUN" and "grep" in rest]
    lock = (ROOT / "env" / f"{kind}.lock").read_text()
    (tmp_path / f"{kind}.lock").write_text(lock)
    subprocess.run(["sh", "-c", split.replace("/build", str(tmp_path))], check=True)
    parts = [p for p in tmp_path.glob("*.lock") if p.stem not in (kind, "tools")]
    lines = [line for part in parts for line in part.read_text().splitlines()]
    assert len(parts) == {"cpu": 2, "cuda": 3}[kind]
    assert sorted(lines) == sorted(lock.splitlines())


def test_the_engine_is_sent_only_the_files_that_the_dockerfiles_copy():
    first, *allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert first == "*"
    assert {line.removeprefix("!") for line in allowed} == _copied("cpu") | _copied("cuda")
    assert all(line.startswith("!") and (ROOT / line[1:]).is_file() for line in allowed)


def test_the_builder_of_the_llama_cpp_tools_has_every_module_that_they_import():
    found, todo = set(), ["stages/core/llamacpp.py"]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += imports(path)
    assert found == {path for path in _copied("cpu") if path.endswith(".py")}


@pytest.mark.parametrize("kind", KINDS)
def test_an_images_label_is_the_one_that_the_launcher_asks_for(kind):
    labels = _load("image").labels(kind)
    assert labels["PINS"] == engine.pins(kind, ROOT)
    assert labels["VERSION"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "version"
    ]  # fmt: skip
    text = (ROOT / f"Dockerfile.{kind}").read_text()
    assert f'{engine.LABEL}="${{PINS}}"' in text
    assert f'title="{engine.name(kind)}"' in text


def _make_image(folder, script, **variables):
    """Run `make image-cpu`'s program with one command on PATH beside git: a made-up engine."""
    if script:
        program = folder / "docker"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {"PATH": str(folder), "HF_TOKEN": "hf_planted", **variables}
    return subprocess.run(
        [sys.executable, str(ROOT / "env" / "image.py"), "cpu"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def only_git(tmp_path):
    """A folder for PATH that holds git alone."""
    found = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True)
    (tmp_path / "git").symlink_to(found.stdout.strip())
    return tmp_path


def test_without_an_engine_it_says_what_to_install(only_git):
    done = _make_image(only_git, "")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "docker is not installed."
    assert "apt install docker.io" in done.stderr
    assert "ENGINE=podman" in done.stderr


def test_with_an_engine_that_is_not_started_it_says_how_to_start_it(only_git):
    done = _make_image(only_git, "echo no daemon here >&2; exit 1")
    assert done.returncode == 1
    assert "docker does not answer: no daemon here" in done.stderr
    assert "systemctl start docker" in done.stderr


def test_the_engine_is_called_with_labels_base_and_options_and_with_no_secret(only_git):
    script = (
        '[ "$1" = build ] && { printf "%s " "$@" "$DOCKER_BUILDKIT"; exit 7; }; [ "$1" = info ]'
    )
    done = _make_image(
        only_git, script, BASE_IMAGE="own/base", BUILD_ARGS="--network=host --quiet"
    )  # fmt: skip
    assert done.returncode == 7
    words = shlex.split(done.stdout)
    assert words[:5] == ["build", "-f", "Dockerfile.cpu", "-t", "tunesmith-cpu"]
    assert words[-4:] == ["--network=host", "--quiet", ".", "0"]
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    assert given.keys() == {"VERSION", "REVISION", "PINS", "BASE_IMAGE"}
    assert given["BASE_IMAGE"] == "own/base"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", given["REVISION"])
    assert "hf_planted" not in done.stdout + done.stderr


def test_a_lock_gathers_the_hashes_of_every_machine_and_python(tmp_path):
    # a pip whose every answer names one wheel for that machine and Python, and one for all
    pip = tmp_path / "pip"
    pip.write_text(
        f"#!{sys.executable}\n"
        "import hashlib, json, sys\n"
        "given = [a for a in sys.argv if a.startswith(('--platform', '--python'))]\n"
        "def item(name, text):\n"
        "    digest = hashlib.sha256(text.encode()).hexdigest()\n"
        "    return {'metadata': {'name': name, 'version': '1.0+cpu'},\n"
        "        'download_info': {'archive_info': {'hashes': {'sha256': digest}}}}\n"
        "print(json.dumps({'install': [item('Pure.One', 'x'), item('code', str(given))]}))\n"
    )
    pip.chmod(0o755)
    lock = _load("lock")
    found = lock.everywhere(str(pip), ["code==1.0", "pure-one==1.0"])
    assert {pin: len(hashes) for pin, hashes in found.items()} == {
        "pure-one==1.0": 1, "code==1.0": len(lock.MACHINES) * len(lock.PYTHONS)
    }  # fmt: skip
    assert lock.lines({"b==1": {"2", "1"}, "a==1": {"3"}}) == [
        "a==1 --hash=sha256:3", "b==1 --hash=sha256:1 --hash=sha256:2"
    ]  # fmt: skip


# From here on: the image as built.

ENGINE = os.environ.get("ENGINE") or "docker"
NAME = engine.name("cpu")
LIMITS = "--rm --read-only --tmpfs /tmp --network none --cap-drop ALL --user 12345:12345"


def _inside(*command, options=""):
    """What a command prints in the image: another user, read-only, no network."""
    limits = [*LIMITS.split(), "--security-opt", "no-new-privileges", "-e", "HOME=/tmp"]
    done = subprocess.run(
        [ENGINE, "run", *limits, *shlex.split(options), NAME, *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _inspected(what):
    done = subprocess.run(
        [ENGINE, "image", "inspect", "--format", f"{{{{json {what}}}}}", NAME],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.container
def test_the_image_has_its_labels_and_a_user_that_is_not_root():
    labels = _inspected(".Config.Labels")
    assert labels[engine.LABEL] == engine.pins("cpu", ROOT)
    assert labels["org.opencontainers.image.version"] == _load("image").labels("cpu")["VERSION"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    done = subprocess.run(
        [ENGINE, "run", "--rm", "--network", "none", NAME, "id", "-u"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == int(_inspected(".Config.User").split(":")[0]) > 0


@pytest.mark.container
def test_nothing_that_builds_is_left_in_the_image():
    tools = "gcc g++ cc c++ clang make cmake ninja git"
    found = _inside(
        "sh", "-c", f"for t in {tools}; do command -v $t; done; ls /build 2>/dev/null; :"
    )
    assert found == ""


@pytest.mark.container
def test_the_image_names_neither_this_machines_registry_nor_its_folders_nor_its_token():
    # /opt/tunesmith is all that the image adds to its base: see the test of the last stage
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    keys = r"index.url|extra.index.url|find-links|trusted-host|proxy"
    values = re.findall(rf"(?:{keys})='(.*)'", listed)
    words = {str(ROOT / "env"), *(word for value in values for word in value.split())}
    words |= {os.environ.get("HF_TOKEN") or str(ROOT / "env")}  # CI plants one
    patterns = [part for word in sorted(words) for part in ("-e", word)]
    search = shlex.join(["grep", "-rlF", *patterns, "/opt/tunesmith"])
    assert _inside("sh", "-c", f"{search} || [ $? = 1 ]") == ""
    assert _inside("sh", "-c", "find /opt/tunesmith -name pip.conf -o -name direct_url.json") == ""
    command = [ENGINE, "history", "--no-trunc", "--format", "{{.CreatedBy}}", NAME]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told += json.dumps(_inspected(".Config"))
    assert not [word for word in words if word in told]


@pytest.mark.container
def test_any_user_can_read_all_of_the_image():
    assert _inside("sh", "-c", "find /opt/tunesmith ! -type l ! -perm -o=r") == ""
    assert _inside("sh", "-c", "find /opt/tunesmith -type d ! -perm -o=rx") == ""


@pytest.mark.container
def test_the_libraries_work_for_a_stranger_on_a_read_only_system_without_a_network():
    names = "torch, transformers, peft, trl, bitsandbytes, xllamacpp, datasets, pyarrow"
    said = _inside("python", "-c", f"import {names}; print((torch.ones(2) * 3).sum())")
    assert said == "tensor(6.)\n"
    assert "Usage: python -m stages" in _inside(
        "python", "-m", "stages", "--help", options=f"-v {ROOT}:{ROOT}:ro -w {ROOT}"
    )


@pytest.mark.container
def test_the_llama_cpp_tools_are_in_the_image_and_are_the_pinned_ones():
    program = (
        "import ctypes; from stages.core import llamacpp;"
        "libllama = ctypes.CDLL(str(llamacpp.library()));"
        "print(llamacpp.fetch(), libllama.llama_max_devices() > 0)"
    )
    said = _inside("python", "-c", program, options=f"-v {ROOT}:{ROOT}:ro -w {ROOT}")
    folder, works = said.split()
    assert folder.startswith("/opt/tunesmith/cache/llama.cpp-")
    assert works == "True"
    assert "--outtype" in _inside(
        "python", f"{folder}/convert_hf_to_gguf.py", "--help",
        options=f"-e PYTHONPATH={folder}/gguf-py",
    )  # fmt: skip


@pytest.mark.container
def test_starting_the_engine_again_changes_nothing():
    def bases():
        command = [ENGINE, "images", "--no-trunc", "--quiet", "tunesmith-standin"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    before = bases()
    if not before:
        pytest.skip("the images here are made from the real base")
    subprocess.run([ROOT / ".ci" / "engine", "start"], check=True, capture_output=True)
    assert bases() == before
