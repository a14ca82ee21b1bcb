"""`hpsearch.open_study`: what a notebook reads of a study, and the error where there is nothing to read."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hpsearch
from hpsearch.api.frames import CURVES, TRIALS, _column
from hpsearch.bridge.protocol import Done, Event, Reported
from hpsearch.errors import InputError
from hpsearch.files import append_line
from hpsearch.folders import JobFolder
from hpsearch.results.best import as_yaml, choose
from hpsearch.spec import load_study
from hpsearch.trial import Outcome, Report, TrialResult
from tests.unit.picture_fixtures import training
from tests.unit.view_fixtures import reporting
from tests.unit.worker_fixtures import Demo, MakeDemo, Play, ScriptedTrainer, ledger, plays

KNOBS = ["training.learning_rate", "lora.r"]


@pytest.fixture
def opened(demo: Demo, workplace: Path) -> hpsearch.Study:
    """Three trials: one is complete, one pruned, one ran out of memory."""
    demo.run(
        plays(
            reporting(Outcome.COMPLETE, 3.0, 0.5, 2.0, ledger=ledger(2.5)),
            reporting(Outcome.PRUNED, 4.0),
            reporting(Outcome.OUT_OF_MEMORY, clean=False, reason="tried to allocate 9 GiB"),
        )
    )
    assert Path.cwd() == workplace
    return hpsearch.open_study("demo", store=url_of(demo), storage=demo.study.storage.path)


def url_of(demo: Demo) -> str:
    return demo.store.url.render_as_string()


def test_importing_hpsearch_loads_nothing() -> None:
    """Metrics files, which trainers run, contain `from hpsearch import metric`."""
    heavy = "{'pandas', 'numpy', 'optuna', 'sqlalchemy', 'pydantic', 'torch'}"
    code = (
        f"import sys, hpsearch; from hpsearch import metric; print(sorted({heavy} & set(sys.modules)), dir(hpsearch))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("[] ")
    assert all(f"'{name}'" in said for name in hpsearch.__all__)


def test_a_name_that_is_not_there_gives_pythons_own_error() -> None:
    with pytest.raises(AttributeError, match="module 'hpsearch' has no attribute 'open_studdy'"):
        hpsearch.open_studdy  # type: ignore[attr-defined]  # noqa: B018


def test_each_trial_is_a_row(opened: hpsearch.Study) -> None:
    trials = opened.trials
    assert list(trials) == [*list(TRIALS)[:3], *KNOBS, *list(TRIALS)[3:]]
    assert list(trials.number) == [0, 1, 2]
    assert list(trials.outcome) == ["complete", "pruned", "out of memory"]
    assert list(trials.value[:2]) == [0.5, 4.0]
    assert math.isnan(trials.value[2])
    assert list(trials.fits_memory) == [True, True, False]
    assert trials.reason[2] == "tried to allocate 9 GiB"
    assert (trials.peak_device_gib[0], trials.attempts[0], trials.ledger_closes[0]) == (2.5, 1, True)
    assert trials["lora.r"].isin([4, 8, 16]).all()
    assert (trials.value.dtype, trials.attempts.dtype) == ("float64", "Int64")
    assert trials.reason[0] is pd.NA


def test_each_report_is_a_row(opened: hpsearch.Study) -> None:
    curves = opened.curves
    assert list(curves) == list(CURVES)
    assert [tuple(row) for row in curves[["trial", "report", "loss"]].itertuples(index=False)] == [
        (0, 1, 3.0),
        (0, 2, 0.5),
        (0, 3, 2.0),
        (1, 1, 4.0),
    ]


def test_what_was_read_stays_and_what_is_read_again_is_new(make_demo: MakeDemo, workplace: Path) -> None:
    demo = make_demo(trials=2)
    study = hpsearch.open_study("demo", store=url_of(demo), storage=workplace)
    worker = demo.worker(plays(training(1.0), training(0.5)))
    worker.step()
    before = study.trials
    worker.step()
    assert (len(before), len(study.trials)) == (1, 2)


def test_the_best_trial_is_what_hpsearch_best_writes(opened: hpsearch.Study, demo: Demo, tmp_path: Path) -> None:
    best = opened.best
    assert (best.number, best.value, best.values) == (0, 0.5, {"loss": 0.5})
    assert list(best.params) == KNOBS
    assert best.yaml == as_yaml(choose(demo.view, None))
    file = best.save(tmp_path / "new" / "best.yaml")
    assert load_study(file).spec.search is None
    file.write_text(file.read_text() + "# mine\n")
    with pytest.raises(InputError, match="is there already, with other content"):
        best.save(file)
    assert best.save(file, overwrite=True).read_text() == best.yaml
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/best\.yaml: can't be written: File exists"):
        best.save(tmp_path / "file" / "best.yaml")


def measuring(loss: float, accuracy: float) -> Play:
    """A training with one report, of loss and accuracy."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        report = Report(step=1, loss=loss, metrics={"exact_match": accuracy})
        append_line(folder.journal, report)
        yield Reported(step=1, num_reports=1, loss=loss, metrics=report.metrics)
        folder.write_result(TrialResult(outcome=Outcome.COMPLETE, reports=[report], num_steps=7))
        yield Done(clean=True)

    return play


def test_several_objectives_are_columns_and_have_a_front(make_demo: MakeDemo, workplace: Path) -> None:
    demo = make_demo(spec={"objective": ["loss", "exact_match"], "budget": {"reports": 1}})
    demo.run(plays(measuring(1.0, 0.2), measuring(2.0, 0.9), measuring(3.0, 0.1)))
    study = hpsearch.open_study("demo", store=url_of(demo), storage=workplace)
    assert list(study.trials)[2:5] == ["value", "loss", "exact_match"]
    assert list(study.front[["number", "loss", "exact_match"]].itertuples(index=False)) == [(0, 1, 0.2), (1, 2, 0.9)]
    assert list(study.curves.exact_match) == [0.2, 0.9, 0.1]
    assert "trial 0, trial 1<" in study._repr_html_()


def test_lists_that_were_searched_can_be_counted(make_demo: MakeDemo, workplace: Path) -> None:
    demo = make_demo(space={"lora.target_modules": [["q_proj", "v_proj"], ["up_proj"]]})
    demo.run(plays(training(1.0)))
    trials = hpsearch.open_study("demo", store=url_of(demo), storage=workplace).trials
    assert trials.groupby("lora.target_modules").size().sum() == 3


def test_what_only_the_trials_folders_have_is_in_the_curves_too(make_demo: MakeDemo, workplace: Path) -> None:
    demo = make_demo(spec={"objective": "exact_match", "budget": {"reports": 1}})
    demo.run(plays(measuring(1.5, 0.25)))
    curves = hpsearch.open_study("demo", store=url_of(demo), storage=demo.study.storage.path).curves
    assert list(curves.iloc[0]) == [0, 1, 7, 1.5, 0.25]
    assert list(curves) == [*CURVES, "exact_match"]
    elsewhere = hpsearch.open_study("demo", store=url_of(demo), storage=workplace / "other").curves
    assert math.isnan(elsewhere.loss[0])
    assert elsewhere.exact_match[0] == 0.25


@pytest.mark.usefixtures("undrawn")
def test_the_report_is_shown_in_a_frame_and_saved(opened: hpsearch.Study, tmp_path: Path) -> None:
    report = opened.report()
    assert report.save(tmp_path / "report.html").read_text() == report.html
    assert report.html.lstrip().startswith("<!doctype html>")
    shown = report._repr_html_()
    assert shown.startswith('<iframe srcdoc="')
    assert shown.count("<") == 2  # the page is escaped: none of its tags is the notebook's
    with pytest.raises(InputError, match=r"it has no config\.json"):
        opened.report(tmp_path)


def test_reading_writes_nothing(opened: hpsearch.Study, demo: Demo) -> None:
    """SQLite counts what other connections commit. The file itself must not be read: store/engine.py says why."""
    database = Path(str(demo.store.url.database))
    with closing(sqlite3.connect(database)) as witness:

        def state() -> tuple[object, list[Path]]:
            return witness.execute("PRAGMA data_version").fetchone(), sorted(database.parent.iterdir())

        before = state()
        assert (opened.trials.empty, opened.curves.empty, opened.best.number) == (False, False, 0)
        assert (opened.status.state, opened.spec.study) == ("finished", "demo")
        assert state() == before
        demo.store.optuna.set_study_user_attr(demo.study.study_id, "seen", 1)
        assert state() != before


def test_a_study_file_names_its_study(opened: hpsearch.Study, demo: Demo, workplace: Path) -> None:
    opened.best.save(workplace / "demo.yaml")
    study = hpsearch.open_study(workplace / "demo.yaml", store=url_of(demo))
    assert study.trials.equals(opened.trials)


def test_a_notebook_may_go_to_another_folder(demo: Demo, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.run(plays(measuring(1.0, 0.5)))
    storage = demo.study.storage.path
    monkeypatch.chdir(storage.parent)
    study = hpsearch.open_study("demo", store=url_of(demo), storage=storage.name)
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    assert list(study.curves.exact_match) == [0.5, 0.5, 0.5]


def test_a_cell_shows_how_the_study_is(opened: hpsearch.Study, demo: Demo) -> None:
    shown = opened._repr_html_()
    for words in ("demo", "3 of 3", "validation loss 0.5000 (trial 0)", "tiny:qwen2"):
        assert words in shown
    assert "color" not in shown
    assert repr(opened) == f"Study('demo', store='{demo.store.name}')"
    assert "trial 0" in opened.best._repr_html_()
    gone = hpsearch.Study("<gone>", demo.store.url, None)._repr_html_()
    assert "has no study &#x27;&lt;gone&gt;&#x27;" in gone


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dem",), "has no study 'dem'; did you mean 'demo'"),
        (("demo.yaml",), "demo.yaml"),
    ],
)
def test_what_is_not_there_is_reported(demo: Demo, workplace: Path, arguments: Any, words: str) -> None:
    del workplace
    with pytest.raises(InputError, match=words):
        hpsearch.open_study(*arguments, store=url_of(demo))


def test_an_argument_is_reported_by_its_name_in_python(workplace: Path) -> None:
    del workplace
    with pytest.raises(InputError, match=r"^store: expected sqlite:///FILE"):
        hpsearch.open_study("demo", store="nonsense")
    with pytest.raises(InputError, match=r"hpsearch\.db"):
        hpsearch.open_study("demo")
    assert list(Path.cwd().iterdir()) == []


def test_there_is_no_best_trial_before_one_is_complete(demo: Demo, workplace: Path) -> None:
    study = hpsearch.open_study("demo", store=url_of(demo), storage=workplace)
    with pytest.raises(InputError, match=r"'demo' .*\(none begun\)"):
        _ = study.best
    assert (study.trials.empty, study.curves.empty, study.front.empty) == (True, True, True)
    assert isinstance(study.trials, pd.DataFrame)
    assert [study.trials.number.dtype, study.curves.report.dtype, study.curves.loss.dtype] == ["int64", "int64", float]
    assert "0 of" in study._repr_html_()


def test_a_metric_named_like_a_column_has_another_column() -> None:
    assert _column("step", CURVES) == "value_step"
    assert _column("loss", CURVES) == "loss"
    assert _column("accuracy", CURVES) == "accuracy"
