"""Completion as bash asks for it: verbs, options, names of studies and of final runs."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpsearch.cli.app import app
from hpsearch.folders import StorageFolder

_AS_BASH_DOES = """\
eval "$(hpsearch --show-completion bash)"
complete -p hpsearch > /dev/null || exit
COMP_WORDS=(hpsearch re) COMP_CWORD=1; _hpsearch_completion hpsearch; echo "${COMPREPLY[@]}"
COMP_WORDS=(hpsearch status "") COMP_CWORD=2; _hpsearch_completion hpsearch; echo "${COMPREPLY[@]}"
"""


@pytest.fixture
def place(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a command `hpsearch`, and a store in the storage folder that has two studies."""
    command = workplace / "bin" / "hpsearch"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom hpsearch.cli import main\nmain()\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # the shell is named: pytest is none
    storage = StorageFolder(workplace / "storage")
    (storage.runs / "digits").mkdir(parents=True)
    make_store(storage.database)
    return workplace


def make_store(file: Path, *names: str) -> None:
    with closing(sqlite3.connect(file)) as store:
        store.execute("CREATE TABLE hpsearch_studies (name TEXT, created_at REAL)")
        for place, name in enumerate(names or ("digits", "demo")):
            store.execute("INSERT INTO hpsearch_studies VALUES (?, ?)", (name, place))
        store.commit()


def complete(*words: str) -> list[str]:
    """What is offered where the last word is being typed."""
    asked = {"COMP_WORDS": " ".join(["hpsearch", *words]), "COMP_CWORD": str(len(words))}
    told = CliRunner().invoke(app, [], prog_name="hpsearch", env=asked | {"_HPSEARCH_COMPLETE": "complete_bash"})
    assert told.exit_code == 0, told.output
    return told.output.split()


@pytest.mark.usefixtures("place")
def test_bash_completes() -> None:
    bash = shutil.which("bash")
    assert bash
    ended = subprocess.run([bash, "--norc", "-c", _AS_BASH_DOES], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["resume", "retry", "report", "demo", "digits"]
    assert ended.stderr == ""


@pytest.mark.usefixtures("place")
def test_a_shell_completes_verbs_options_and_names() -> None:
    assert complete("store", "ba") == ["backup"]
    assert complete("run", "--work") == ["--workers", "--workers-per-device"]
    assert complete("status", "d") == ["demo", "digits"]  # the newest first
    assert complete("best", "di") == ["digits"]
    assert complete("predict", "") == ["digits"]
    assert complete("schema", "la") == ["launch"]
    assert complete("run", "") == []  # so that the shell offers files


@pytest.mark.usefixtures("place")
def test_the_store_that_is_named_is_asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(place / "other.db", "elsewhere")
    assert complete("status", "--store", "sqlite:///other.db", "") == ["elsewhere"]
    monkeypatch.setenv("HPSEARCH_STORE", "sqlite:///other.db")
    assert complete("status", "") == ["elsewhere"]
    monkeypatch.setenv("HPSEARCH_STORE", "postgresql+psycopg://nobody@nowhere/x")
    assert complete("status", "") == []


def test_without_a_store_or_with_a_broken_one_there_are_no_names(place: Path) -> None:
    database = StorageFolder(place / "storage").database
    database.write_bytes(b"no database " * 100)
    assert complete("status", "") == []
    database.unlink()
    assert complete("status", "") == []
    assert not database.exists()
