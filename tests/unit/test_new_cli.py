"""`hpsearch new` as a user sees it: exit codes, what is printed, and that nothing is overwritten without --force."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hpsearch.cli import main
from hpsearch.spec import load_study
from hpsearch.spec.load import _Loader
from hpsearch.spec.schema import SCHEMA_FILE
from tests.conftest import REPOSITORY
from tests.unit.new_fixtures import AXOLOTL, write

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command; returns its exit code."""

    def run_it(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["hpsearch", "new", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run_it


ALPACA = AXOLOTL | {"datasets": [{"path": "org/alpaca", "type": "alpaca", "split": "train[:9%]"}]}
"""Of a part of a split, which takes a script."""


def test_the_study_is_written_and_the_rest_is_reported(
    workplace: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workplace, ALPACA)
    assert run("--from", "their.yaml", "-o", "studies/mine.yaml") == 0
    said = capsys.readouterr().out
    assert load_study(workplace / "studies" / "mine.yaml").spec.study == "mine"
    compile((workplace / "studies" / "mine_data.py").read_text(), "mine_data.py", "exec")
    for words in (
        "a file of Axolotl",
        "not kept:",
        "- sample_packing: rows",
        "to do",
        "python studies/mine_data.py",
        "next:",
    ):
        assert words in said


def test_without_a_name_it_lands_in_this_folder(workplace: Path, run: Run) -> None:
    (workplace / "elsewhere").mkdir()
    write(workplace / "elsewhere", AXOLOTL)
    assert run("--from", "elsewhere/their.yaml") == 0
    assert {file.name for file in workplace.glob("*.*")} == {"their_study.yaml", SCHEMA_FILE}


def test_an_editor_finds_the_schema_beside_the_study(workplace: Path, run: Run) -> None:
    write(workplace, AXOLOTL)
    assert run("--from", "their.yaml", "-o", "studies/mine.yaml") == 0
    study = workplace / "studies" / "mine.yaml"
    named = study.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    schema = json.loads((study.parent / named).read_text())
    jsonschema.validate(yaml.load(study.read_text(), _Loader), schema)


@pytest.mark.parametrize("there", ["mine.yaml", "mine_data.py"])
def test_nothing_is_overwritten_without_force(
    workplace: Path, run: Run, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    write(workplace, ALPACA)
    (workplace / there).write_text("mine\n")
    assert run("--from", "their.yaml", "-o", "mine.yaml") == 2
    assert f"{there}: is there already" in capsys.readouterr().err
    assert sorted(file.name for file in workplace.iterdir()) == sorted(["their.yaml", there])
    assert (workplace / there).read_text() == "mine\n"
    assert run("--from", "their.yaml", "-o", "mine.yaml", "--force") == 0
    assert (workplace / there).read_text() != "mine\n"


def test_the_file_itself_is_never_overwritten(workplace: Path, run: Run) -> None:
    before = write(workplace, AXOLOTL).read_text()
    assert run("--from", "their.yaml", "-o", "their.yaml", "--force") == 2
    assert (workplace / "their.yaml").read_text() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rl": "grpo"}, "is reinforcement learning"),
        ({"base_model": ...}, "is neither"),
        ({"lora_dropout": 2}, "lora.dropout"),
    ],
)
def test_a_refusal_exits_with_2_and_writes_nothing(
    workplace: Path, run: Run, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    write(workplace, AXOLOTL, **changes)
    assert run("--from", "their.yaml", "-o", "mine.yaml") == 2
    assert words in capsys.readouterr().err
    assert [file.name for file in workplace.iterdir()] == ["their.yaml"]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_is_not_there_exits_with_2(
    workplace: Path, run: Run, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run("--from", name) == 2
    assert name in capsys.readouterr().err
    assert list(workplace.iterdir()) == []


def test_an_example_is_the_shipped_file(workplace: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--example", "quickstart") == 0
    assert "next: hpsearch run quickstart.yaml" in capsys.readouterr().out
    copy, shipped = (folder / "quickstart.yaml" for folder in (workplace, REPOSITORY / "studies"))
    assert load_study(copy).spec == load_study(shipped).spec
    assert SCHEMA_FILE in copy.read_text().splitlines()[0]
    assert run("--example", "quickstart") == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--example", "quickstrat"], "quickstart"),
        ([], "--data"),
        (["--example", "quickstart", "--data", "x.csv"], "one of --from FILE, --example NAME"),
        (["--example", "quickstart", "--from", "their.yaml"], "one of --from"),
    ],
)
def test_what_is_asked_for_must_be_there(
    workplace: Path, run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err
    assert list(workplace.iterdir()) == []


ROWS = "".join(json.dumps({"question": f"Q{n}", "answer": f"A{n}"}) + "\n" for n in range(40))


def test_a_study_in_another_folder_finds_its_rows_and_its_base(workplace: Path, run: Run) -> None:
    (workplace / "rows.jsonl").write_text(ROWS)
    (workplace / "base").mkdir()
    assert run("--data", "rows.jsonl", "--base", "base", "-o", "studies/mine.yaml") == 0
    spec = load_study(workplace / "studies" / "mine.yaml").spec
    assert (spec.data.source, spec.model.base) == ("../rows.jsonl", "../base")


def test_the_rows_are_never_overwritten(workplace: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "rows.jsonl").write_text(ROWS)
    assert run("--data", "rows.jsonl", "-o", "rows.jsonl", "--force") == 2
    assert "is the file to read from" in capsys.readouterr().err
    assert (workplace / "rows.jsonl").read_text() == ROWS


def test_a_study_that_is_there_is_told_before_any_question(
    workplace: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "rows.jsonl").write_text(ROWS)
    (workplace / "rows.yaml").write_text("mine")
    assert run("--data", "rows.jsonl") == 2
    said = capsys.readouterr()
    assert "rows.yaml: is there already" in said.err
    assert "text-sft" not in said.out


class Typed(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_who_stops_answering_has_written_nothing(
    workplace: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-D; Ctrl-C is the same exception of click's."""
    (workplace / "rows.jsonl").write_text(ROWS)
    monkeypatch.setattr(sys, "stdin", Typed("rows.jsonl\n"))
    assert run() == 130
    assert "no study was written" in capsys.readouterr().err
    assert [file.name for file in workplace.glob("*.*")] == ["rows.jsonl"]


def test_a_column_without_a_role_is_told(workplace: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"Q {n}", "answer": f"A {n}", "note": n} for n in range(60)]
    (workplace / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("--data", "rows.jsonl") == 0
    assert "careful: not used: note; --columns role=column gives one a role" in capsys.readouterr().out


def test_paths_of_a_study_in_another_folder(workplace: Path, run: Run) -> None:
    """Those that start at the working directory start at the study's folder; those that start nowhere stay."""
    (workplace / "data").mkdir()
    rows = [{"image": f"data/{n}.png", "question": f"Q {n}", "answer": f"A {n}"} for n in range(60)]
    (workplace / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workplace / "data" / "0.png").touch()
    assert run("--data", "data/rows.jsonl", "-o", "studies/mine.yaml") == 0
    spec = load_study(workplace / "studies" / "mine.yaml").spec
    assert (spec.data.source, spec.data.images) == ("../data/rows.jsonl", "..")
    whole = str(workplace / "data" / "rows.jsonl")
    assert run("--data", whole, "-o", "studies/other.yaml") == 0
    assert load_study(workplace / "studies" / "other.yaml").spec.data.source == whole
