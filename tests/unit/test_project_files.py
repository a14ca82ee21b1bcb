"""A public host's CI and a contributor's git hooks run the same as `.ci/run` and `make check`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import check_jsonschema
import pytest
import yaml
from click.testing import CliRunner

from hpsearch import __version__
from hpsearch.convert.shipped import EXAMPLES
from tests.conftest import REPOSITORY

GITHUB = REPOSITORY / ".github"
MAKEFILE = (REPOSITORY / "Makefile").read_text()
CI_RUN = (REPOSITORY / ".ci" / "run").read_text()
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text()


def rule(target: str) -> tuple[list[str], list[str]]:
    """What a target of the Makefile needs, and its commands."""
    found = re.search(rf"^{target}:(.*)\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
    assert found, target
    return found[1].split(), [line.strip() for line in found[2].splitlines()]


def test_the_quickstart_ends_with_how_the_command_is_found() -> None:
    assert "activate" in rule("run")[1][-1], "its last verb names commands that are not on PATH yet"


def the_job() -> dict[str, Any]:
    (job,) = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())["jobs"].values()
    return dict(job)


def test_the_workflow_runs_the_steps_of_ci_run() -> None:
    job = the_job()
    packages, make = [step["run"] for step in job["steps"] if "run" in step]
    assert f"    {packages}\n" in CI_RUN
    targets = re.findall(r"^make (\S+)", CI_RUN, re.MULTILINE)
    assert targets == ["check", "test-all"]
    assert job["strategy"]["matrix"]["target"] == ["check", *rule("test-all")[0]]
    assert make == 'make ${{ matrix.target }} PYTEST_ARGS="--no-skips"'
    assert 'make test-all PYTEST_ARGS="--no-skips"\n' in CI_RUN


def test_the_workflow_keeps_the_folder_that_pip_caches_in() -> None:
    """A container's HOME there belongs to another user, so that pip as root caches nothing below it."""
    (kept,) = [step["with"]["path"] for step in the_job()["steps"] if "cache" in step.get("uses", "")]
    assert kept == "${{ env.PIP_CACHE_DIR }}"
    assert the_job()["env"]["PIP_CACHE_DIR"].startswith("/root/")


def test_the_workflow_runs_on_the_versions_that_the_project_names() -> None:
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert the_job()["strategy"]["matrix"]["python"] == named
    assert len(named) == 2


def test_pre_commit_runs_what_make_check_runs() -> None:
    (repo,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    *checks, subject = repo["hooks"]
    assert [hook["entry"].replace(".venv/bin", "$(BIN)") for hook in checks] == rule("check")[1]
    assert not any(hook["pass_filenames"] for hook in checks)
    assert subject["stages"] == ["commit-msg"]


@pytest.mark.parametrize(("length", "code"), [(72, 0), (73, 1)])
def test_a_commit_s_subject_is_short(length: int, code: int, tmp_path: Path) -> None:
    (repo,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    hook = repo["hooks"][-1]
    message = tmp_path / "COMMIT_EDITMSG"
    message.write_text("é" * length + "\n\n" + "why " * 30 + "\n")
    _, *words = shlex.split(hook["entry"])
    ended = subprocess.run([sys.executable, *words, message], stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (code, "it has 73\n" if code else "")


FILES = [
    ("vendor.github-workflows", GITHUB / "workflows" / "ci.yml"),
    ("vendor.github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml"),
    ("vendor.github-issue-forms", GITHUB / "ISSUE_TEMPLATE" / "bug.yml"),
    ("vendor.github-issue-forms", GITHUB / "ISSUE_TEMPLATE" / "feature.yml"),
]


def test_every_file_of_the_host_is_checked() -> None:
    assert {file for _, file in FILES} == set(GITHUB.rglob("*.yml"))


@pytest.mark.parametrize(("schema", "file"), FILES, ids=lambda value: getattr(value, "name", ""))
def test_files_of_the_host_are_as_it_reads_them(schema: str, file: Path) -> None:
    ended = CliRunner().invoke(check_jsonschema.main, ["--builtin-schema", schema, str(file)])
    assert ended.exit_code == 0, ended.output


def test_there_is_one_way_to_tell_the_maintainers_in_private() -> None:
    """And no address: where the project is hosted is nowhere in it."""
    button = '"Report a vulnerability"'
    assert button in (REPOSITORY / "SECURITY.md").read_text().partition("## How to report")[2]
    assert button in (GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    for page in ("CODE_OF_CONDUCT.md", "CONTRIBUTING.md"):
        assert "(SECURITY.md#how-to-report)" in (REPOSITORY / page).read_text(), page


def test_the_version_is_the_same_everywhere() -> None:
    newest = re.search(r"^## (\S+) \(\d{4}-\d\d-\d\d\)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__
    files = [*(REPOSITORY / "docker").rglob("*.yaml"), *(REPOSITORY / "docs").rglob("*.md")]
    tags = [tag for file in files for tag in re.findall(r"hpsearch:(\d\S*?)-", file.read_text())]
    assert tags
    assert set(tags) == {__version__}


def test_examples_go_into_wheel_sdist_and_image() -> None:
    for name in EXAMPLES:
        file = f"studies/{name}.yaml"
        assert f'"{file}" = "hpsearch/{file}"\n' in PYPROJECT
        assert f'    "{file}",\n' in PYPROJECT
    assert len(re.findall(r'= "hpsearch/studies/', PYPROJECT)) == len(EXAMPLES)


def test_the_contributors_page_names_files_and_tables_that_there_are() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text()
    files = set(re.findall(r"(?:hpsearch|tests|docs)/[\w/-]+\.(?:py|md)", page)) - {"hpsearch/launch/NAME.py"}
    files -= {"hpsearch/train/tasks/NAME.py"}
    assert len(files) > 15
    assert [file for file in sorted(files) if not (REPOSITORY / file).exists()] == []
    tables = re.findall(r"`((?:hpsearch|tests)/[\w/]+\.py)`, `(\w+)`", page)
    assert len(tables) >= 4
    for file, table in tables:
        assert re.search(rf"^{table}\b.* = ", (REPOSITORY / file).read_text(), re.MULTILINE), f"{file}: {table}"
    for target in re.findall(r"(?:`|\$ )make ([\w-]+)", page):
        assert rule(target)
