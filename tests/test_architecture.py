"""The shape of the project: imports point one way, modules stay small, nothing is machine-bound."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py"))
STAGES = [path for path in MODULES if path.count("/") == 1 and "__" not in path]
SHELVES = ("recipes", "backends", "bases", "makers", "places", "targets")


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The dotted name of everything that these nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> str:
    """door, stage, core, commands or the shelf of a dotted module name or a path."""
    parts = name.removesuffix(".py").replace("/", ".").split(".")
    if parts[1] in ("__main__", "doors"):
        return "door"
    return parts[1] if parts[1] in ("core", "commands", *SHELVES) else "stage"


# Who may import whom; `plugins.load` and the backend's name are how a stage reaches a shelf.
ALLOWED = {
    "door": {"door", "core", "commands"},
    "commands": {"core", "commands"},
    "stage": {"core"},
    "core": {"core"},
    **{shelf: {"core", shelf} for shelf in SHELVES},
}


@pytest.mark.parametrize("path", [path for path in MODULES if path != "stages/__init__.py"])
def test_imports_point_one_way(path: str) -> None:
    mine = layer(path)
    for name in imported(ast.walk(tree(path))):
        if name.split(".")[0] == "stages":
            assert layer(name) in ALLOWED[mine], f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if layer(p) in SHELVES])
def test_a_plugin_imports_only_core_and_itself(path: str) -> None:
    shelf, plugin = path.removesuffix(".py").split("/")[1:3]
    for name in imported(ast.walk(tree(path))):
        parts = name.split(".")
        if parts[0] == "stages" and parts[1] != "core":
            assert parts[1:3] == [shelf, plugin], f"{path} imports {name}"


def test_only_the_package_of_a_recipe_is_on_its_shelf() -> None:
    for shelf in ("recipes", "bases", "makers"):
        loose = [path.name for path in (ROOT / "stages" / shelf).glob("*.py")]
        assert loose in ([], ["__init__.py"]), f"stages/{shelf}: DVC depends on folders"


@pytest.mark.parametrize("path", MODULES)
def test_a_module_has_at_most_300_lines_and_a_docstring(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    if text.strip():
        assert ast.get_docstring(tree(path)), "its first line says what goes in and what comes out"


@pytest.mark.parametrize("path", STAGES)
def test_a_stage_has_at_most_60_lines_and_runs_by_its_key(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8").count("\n") <= 60
    run = next(n for n in tree(path).body if isinstance(n, ast.FunctionDef) and n.name == "run")
    assert ast.unparse(run.args) == "key: str"
    assert ast.unparse(run.returns or ast.Constant(0)) == "None"


@pytest.mark.parametrize("path", MODULES)
def test_a_function_has_at_most_40_lines(path: str) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40, f"{path}: {node.name}"


@pytest.mark.parametrize("path", MODULES)
def test_no_error_is_swallowed(path: str) -> None:
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else "everything"
        assert caught not in ("Exception", "everything"), f"{path}:{node.lineno}: catches {caught}"
        if "BaseException" in caught:
            last = node.body[-1]
            assert isinstance(last, ast.Raise), f"{path}:{node.lineno}: must raise again"
            assert last.exc is None, f"{path}:{node.lineno}: must raise again"


def banned() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tidy = settings["tool"]["ruff"]["lint"]["flake8-tidy-imports"]
    return set(tidy["banned-module-level-imports"])


def test_the_heavy_packages_are_banned_at_module_level() -> None:
    heavy = {
        "torch",
        "transformers",
        "peft",
        "trl",
        "datasets",
        "mlx",
        "mlx_lm",
        "xllamacpp",
        "gguf",
    }
    assert heavy <= banned()


@pytest.mark.parametrize("path", MODULES)
def test_no_heavy_package_is_imported_at_module_level(path: str) -> None:
    found = {name.split(".")[0] for name in imported(at_module_level(tree(path)))}
    assert not found & banned(), "import it inside the function that needs it"


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported; those of functions do not."""
    for child in ast.iter_child_nodes(node):
        types_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not types_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from at_module_level(child)


def tracked() -> list[Path]:
    """The text files that git holds or would take in."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=ROOT, text=True)
    paths = [ROOT / name for name in names.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:1000]]


MACHINE = re.compile(
    # a home or work folder of one machine, or a package registry's host
    r"(?<![\w.~$}])/(?:home|Users|root|work|mnt|opt/homebrew)/[\w.]"
    r"|[A-Z]:\\\\?Users"
    r"|(?:p[y]pi|files|download)\.(?:org|python[h]osted\.org|py[t]orch\.org)"
    r"|--(?:extra-)?index-url|\bindex-url\b"
)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git clone")
def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    mine = Path(__file__).resolve()
    found = [
        f"{path.relative_to(ROOT)}:{number}: {hit.group()}"
        for path in tracked()
        if path != mine
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (hit := MACHINE.search(text))
    ]
    assert not found


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("cd /ho*me/someone/project", True),
        ("/ro*ot/.cache", True),
        ("https://py*pi.org/simple", True),
        ("https://download.pyto*rch.org/whl/cpu", True),
        ("pip install --index-url x", True),
        ("stages/core/files.py", False),
        ("models/work/x", False),
        ("$HOME/work/x", False),
        ("https://huggingface.co/Qwen", False),
    ],
)
def test_the_search_for_machines_finds_what_it_should(text: str, bound: bool) -> None:
    # The star keeps the text itself from being what the search looks for.
    assert bool(MACHINE.search(text.replace("*", ""))) is bound


@pytest.mark.parametrize("path", MODULES)
def test_text_is_read_and_written_as_utf_8_whatever_the_locale(path: str) -> None:
    for node in ast.walk(tree(path)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, words = node.func.attr, {keyword.arg for keyword in node.keywords}
        given = [a.value for a in node.args if isinstance(a, ast.Constant)]
        text = name == "open" and not any("b" in str(mode) for mode in given)
        if ast.unparse(node.func) in ("os.open", "tarfile.open"):  # no text is read here
            continue
        if text or (name == "read_text" and not given) or name == "write_text":
            assert "encoding" in words, f"{path}:{node.lineno}: {name} without encoding"
