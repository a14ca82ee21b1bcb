"""Rules of this repository that no linter knows."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from tests.conftest import REPOSITORY

MOST_LINES = 300


def files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (REPOSITORY / folder).rglob("*.py"))


def test_no_file_is_long() -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in files("hpsearch", "tests", "bench")}
    assert len(lengths) > 400
    assert {str(file): lines for file, lines in lengths.items() if lines > MOST_LINES} == {}


def test_every_file_says_why_it_exists() -> None:
    there = files("hpsearch", "tests", "bench", "docs", "docker")
    silent = [str(file) for file in there if not ast.get_docstring(ast.parse(file.read_text()))]
    assert silent == [], "a file begins with a docstring"


def test_fixtures_are_found_by_pytest_and_not_imported() -> None:
    """Each importing file would have a fixture of its own: a server started for a session starts once per file."""
    trees = {file: ast.parse(file.read_text()) for file in files("tests")}
    fixtures = {(module(file), name) for file, tree in trees.items() for name in fixtures_of(tree)}
    assert ("tests.conftest", "workplace") in fixtures
    imported = [
        f"{file}: {alias.name}"
        for file, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, alias.name) in fixtures
    ]
    assert imported == []
    assert [str(file) for file, tree in trees.items() if "__all__" in assigned(tree)] == []


def module(file: Path) -> str:
    return ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)


def fixtures_of(tree: ast.Module) -> list[str]:
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        if any("pytest.fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]


def assigned(tree: ast.Module) -> set[str]:
    return {ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}


def test_every_package_is_in_the_contracts_on_imports() -> None:
    """The one on layers is exhaustive; the others list what they are about."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    sources = {contract["name"]: set(contract.get("source_modules", [])) for contract in contracts}
    inside = (REPOSITORY / "hpsearch").iterdir()
    rooms = {f"hpsearch.{path.stem}" for path in inside if path.suffix == ".py" or (path / "__init__.py").exists()}
    rooms -= {"hpsearch.__init__", "hpsearch.__main__"}
    assert sources["The training plane is a tower of its own: nobody imports it"] == rooms - {"hpsearch.train"}
    assert sources["Only the mirror speaks to a bucket"] == rooms - {"hpsearch.mirror"}
