"""Mistakes in study files, data and stores, through the whole command line: words, an exit code, nothing lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hpsearch.cli import main
from hpsearch.folders import StorageFolder
from hpsearch.spec import load_study
from hpsearch.store import Store, StoredStudy
from hpsearch.store.engine import parse_url
from hpsearch.study.open import open_study
from tests.unit.opening_fixtures import inspecting
from tests.unit.worker_fixtures import plays

FILE = """\
study: demo
task: vlm-sft
model: {base: "tiny:gemma3"}
data:
  source: rows.jsonl
  columns: {image: image, question: question, answer: answer}
lora: {r: 8}
training: {learning_rate: 2e-5}
search:
  trials: 2
  space:
    lora.alpha: [8, 16]
"""
NUM_ROWS = 20
Hpsearch = Callable[[str], tuple[object, str, str]]


@pytest.fixture
def folder(workplace: Path) -> Path:
    """A study file, and rows with an image each."""
    for number in range(NUM_ROWS):
        Image.new("RGB", (28, 28), (number, 0, 0)).save(workplace / f"{number}.png")
    rows = [{"image": f"{number}.png", "question": "Is it dark?", "answer": "yes"} for number in range(NUM_ROWS)]
    (workplace / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workplace / "study.yaml").write_text(FILE)
    return workplace


@pytest.fixture
def hpsearch(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Hpsearch:
    """`hpsearch` without a process of its own: exit code, stdout, stderr. Its trainer finds nothing to complain of."""
    monkeypatch.setattr("hpsearch.bridge.trainer_process.TrainerProcess", lambda *_: plays(inspecting())())
    assert Path.cwd() == folder

    def run(command: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *command.split()])
        with pytest.raises(SystemExit) as exited:
            main()
        said, complained = capfd.readouterr()
        assert "Traceback" not in said + complained
        return exited.value.code, said, complained

    return run


def stored_studies(folder: Path) -> list[StoredStudy]:
    """What is in the default store."""
    with Store(parse_url(f"sqlite:///{folder / 'storage' / 'hpsearch.db'}", from_argv=False)) as store:
        return store.studies.all()


def test_all_mistakes_of_a_file_are_reported_at_once(hpsearch: Hpsearch, folder: Path) -> None:
    wrong = FILE.replace("r: 8", "r: 0").replace("trials: 2", "sampler: tpee").replace("base:", "bass:")
    (folder / "study.yaml").write_text(wrong.replace("lora.alpha", "lora.alfa"))
    code, said, complained = hpsearch("run study.yaml")
    assert (code, said) == (2, "")
    headline, *mistakes = complained.splitlines()
    assert headline == "hpsearch: study.yaml: 5 mistakes"
    found = [tuple(mistake.strip().split(": ", 2)) for mistake in mistakes]
    assert found == [
        ("line 3", "model.base", "is missing"),
        ("line 3", "model.bass", "unknown key; did you mean 'base'?"),
        ("line 7", "lora.r", "must be at least 1, not 0"),
        ("line 10", "search.sampler", "there is no 'tpee'; did you mean 'tpe'?"),
        ("line 12", "search.space.lora.alfa", "there is no such field to search; did you mean 'lora.alpha'?"),
    ]
    assert not (folder / "storage").exists()


@pytest.mark.parametrize(
    ("override", "mistake"),
    [
        (
            "data.columns.answer=anser",
            "data.columns.answer: the data has no column 'anser' (did you mean 'answer'?); it",
        ),
        ("data.columns.group=patient", "data.columns.group: the data has no column 'patient'; it has: image, question"),
        ("data.source=gone.jsonl", "data.source: there is no file or folder gone.jsonl"),
        ("data.images=no/such/folder", "data.images: none of the 20 images is found, such as "),
    ],
)
def test_data_that_does_not_fit_is_reported_before_anything_is_stored(
    hpsearch: Hpsearch, folder: Path, override: str, mistake: str
) -> None:
    code, _, complained = hpsearch(f"run study.yaml --set {override}")
    assert code == 2
    assert complained.startswith("hpsearch: study.yaml: 1 mistake\n")
    assert f": {mistake}" in complained
    assert stored_studies(folder) == []


def test_broken_images_are_left_out_counted_and_named(hpsearch: Hpsearch, folder: Path) -> None:
    (folder / "3.png").write_text("no image")
    (folder / "7.png").write_bytes((folder / "8.png").read_bytes()[:50])
    code, said, _ = hpsearch("show study.yaml")
    assert code == 0
    assert "left out: 2 × image can't be decoded (rows.jsonl: lines 4, 8)\n" in said


def test_nothing_but_broken_images_is_a_mistake(hpsearch: Hpsearch, folder: Path) -> None:
    for file in folder.glob("*.png"):
        file.write_text("no image")
    code, _, complained = hpsearch("run study.yaml")
    assert (code, complained.splitlines()) == (
        2,
        ["hpsearch: study.yaml: 1 mistake", "  line 5: data.source: no rows are left: 20 × image can't be decoded"],
    )
    assert stored_studies(folder) == []


def test_a_file_that_changed_since_its_study_was_created_is_reported_with_the_choices(
    hpsearch: Hpsearch, folder: Path
) -> None:
    storage = StorageFolder(folder / "storage")
    storage.path.mkdir()
    with Store(parse_url(f"sqlite:///{storage.database}", from_argv=False)) as store:
        file = load_study(folder / "study.yaml")
        open_study(file, store, storage, plays(inspecting()), lambda *_: None, joins=False)
    before = stored_studies(folder)
    (folder / "study.yaml").write_text(FILE.replace("2e-5", "3e-5").replace("trials: 2", "trials: 9"))
    for verb in ("run", "worker"):
        code, _, complained = hpsearch(f"{verb} study.yaml")
        assert code == 2
        assert complained == (
            "hpsearch: study.yaml is not what study 'demo' was created with; it says now, or leaves to a default:\n"
            "  training.learning_rate: 2e-05 → 3e-05\n"
            "The trials so far ran with the old values. Either write the old values into it, "
            "or start another study: --set study=demo-2\n"
        )
    assert stored_studies(folder) == before


def test_too_few_trials_are_the_options_mistake_not_a_line_of_the_file(hpsearch: Hpsearch, folder: Path) -> None:
    storage = StorageFolder(folder / "storage")
    storage.path.mkdir()
    with Store(parse_url(f"sqlite:///{storage.database}", from_argv=False)) as store:
        file = load_study(folder / "study.yaml")
        study = open_study(file, store, storage, plays(inspecting()), lambda *_: None, joins=False)
        for _ in range(2):
            lease = store.leases.claim(study.study_id, "one:1:1.00", 60, [])
            assert lease is not None
            store.leases.close(lease)
    words = "2 trials have begun already: give 2 or more"
    assert hpsearch("run study.yaml --trials 1")[::2] == (2, f"hpsearch: --trials 1: {words}\n")
    code, _, complained = hpsearch("run study.yaml --set search.trials=1")
    assert (code, complained.splitlines()[1:]) == (2, [f"  in --set: search.trials: {words}"])


def test_what_is_not_in_the_file_is_told_apart_from_a_set(hpsearch: Hpsearch, folder: Path) -> None:
    (folder / "study.yaml").write_text(FILE.replace("task: vlm-sft\n", ""))
    code, _, complained = hpsearch("show study.yaml --set lora.r=-1")
    assert (code, complained.splitlines()[1:]) == (
        2,
        ["  not in the file: task: is missing", "  in --set: lora.r: must be at least 1, not -1"],
    )


@pytest.mark.parametrize(
    "store", ["postgresql+psycopg://me:hunter2@host/db", "mysql+pymysql://me@host/db?password=hunter2"]
)
@pytest.mark.parametrize("command", ["run study.yaml", "worker study.yaml", "best demo", "train demo", "dashboard"])
def test_a_password_on_the_command_line_is_refused_and_not_repeated(
    hpsearch: Hpsearch, folder: Path, command: str, store: str
) -> None:
    code, said, complained = hpsearch(f"{command} --store {store}")
    assert code == 2
    assert complained.startswith("hpsearch: --store: a password on the command line can be read by every user")
    for way in ("~/.pgpass", "HPSEARCH_STORE"):
        assert way in complained
    assert "hunter2" not in said + complained
    assert not (folder / "storage").exists()


@pytest.mark.parametrize("command", ["run study.yaml --wait-for-store 0", "best demo", "train demo", "dashboard"])
def test_a_store_out_of_reach_is_reported_and_nothing_begins(hpsearch: Hpsearch, folder: Path, command: str) -> None:
    url = "postgresql+psycopg://me@127.0.0.1:1/db"
    code, said, complained = hpsearch(f"{command} --store {url}")
    assert (code, said) == (1, "")
    assert complained.startswith(f"hpsearch: the store {url} can't be reached: ")
    assert "Connection refused" in complained
    assert not (folder / "storage").exists()
