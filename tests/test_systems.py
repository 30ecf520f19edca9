"""The pages of the systems: a page for each, and every test and preset that they name exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "systems").glob("*.md"))
TEST = re.compile(r"(test_\w+\.py)(?:::(\w+))?")


def names_in(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_a_page_names_exists(page):
    named = TEST.findall(page.read_text(encoding="utf-8"))
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / "tests" / file).is_file()
        or (name and name not in names_in(ROOT / "tests" / file))
    ]
    assert not missing
    assert named or page.stem == "README"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_row_of_a_table_has_as_many_cells_as_its_head(page):
    width = 0
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line)))
        width = (width or cells) if line.startswith("|") else 0
        assert not width or cells == width, line


def test_the_index_links_a_page_for_each_system_and_names_every_preset():
    index = (ROOT / "docs" / "systems" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((\w+)\.md\)", index))
    assert linked == {page.stem for page in PAGES} - {"README"}
    assert len(linked) == 5
    for preset in (ROOT / "presets").glob("*.yaml"):
        assert f"`{preset.stem}`" in index
