"""The pages say what there is: every file of the tree, every verb and flag of its commands, every picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from hpsearch.cli.app import app
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / name for name in ("README.md", "studies/README.md", "storage/README.md")]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
COMMAND = re.compile(r"(?<![\w/.-])hpsearch ([a-z]+)((?: +(?![ #&|])[^\s`#]+)*)")


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def tree_of_the_page() -> set[str]:
    """The paths of the block that begins with hpsearch/, by their indentation."""
    tree = next(block for block in blocks(ARCHITECTURE) if block.startswith("hpsearch/"))
    folders: list[str] = []
    paths = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, phrase = line.strip().partition(" ")
        assert phrase.strip() or depth == 0, f"{name} has no phrase"
        folders = [*folders[:depth], name.rstrip("/")]
        paths.add("/".join(folders))
    return paths


def test_the_tree_is_the_real_one() -> None:
    there = {file.relative_to(REPOSITORY) for file in (REPOSITORY / "hpsearch").rglob("*.py")}
    there = {file for file in there if file.name != "__init__.py" and "versions" not in file.parts}
    assert len(there) > 100
    folders = {parent for file in there for parent in file.parents if parent.parts}
    assert tree_of_the_page() == {str(path) for path in there | folders}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_has_a_verb_and_flags_that_exist(page: Path) -> None:
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = COMMAND.findall("\n".join(re.findall(r"`[^`\n]+`|^    .*$", prose, re.MULTILINE)))
    if page == PAGES[0]:
        assert {verb for verb, _ in found} >= set(verbs) - {"new"}
    for verb, rest in found:
        assert verb in verbs, f"hpsearch {verb}"
        flags = {option for parameter in verbs[verb].params for option in parameter.opts}
        for flag in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest):
            assert flag in flags, f"hpsearch {verb} {flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_study_file_is_on_the_recipes_page() -> None:
    files = sorted((REPOSITORY / "studies").glob("*.yaml"))
    assert len(files) >= 10
    page = PAGES[1].read_text()
    for file in files:
        assert f"`{file.name}`" in page
