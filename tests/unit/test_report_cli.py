"""`hpsearch report`: what it finds, what it writes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.results.final import RunFolder
from hpsearch.spec import dump_study
from hpsearch.store import Store
from tests.unit.picture_fixtures import config, evaluation, result, training
from tests.unit.worker_fixtures import MANIFEST, Demo, plays, study_spec

Main = Callable[..., tuple[object, str, str]]


def make_run(folder: RunFolder, **changes: Any) -> RunFolder:
    """A final run as `train_final` leaves it."""
    folder.path.mkdir(parents=True)
    folder.manifest.write_bytes(MANIFEST.to_bytes())
    folder.study.write_text(dump_study(study_spec(spec=changes).model_copy(update={"search": None})))
    folder.prepare(config())
    folder.write_result(result(1.0, 0.5, num_steps=4))
    return folder


@pytest.mark.usefixtures("undrawn")
def test_the_verb_writes_what_there_is(main: Main, demo: Demo) -> None:
    demo.run(plays(training(3.0, 2.0, 1.0)))
    code, said, _ = main("report", "demo")
    assert (code, Path("demo-report.html").exists()) == (0, True)
    assert "demo-report.html: the search; it has no final run yet (hpsearch train)" in said
    assert "3 trials in the dashboard" in said

    run = make_run(RunFolder(demo.study.storage.runs / "demo"))
    _, said, _ = main("report", "demo", "-o", "new/report.html")
    assert "new/report.html: the search and the final training; it is not evaluated yet" in said
    assert "hpsearch evaluate" in Path("new/report.html").read_text()

    run.scores.mkdir()
    (run.scores / "scores.json").write_text(evaluation().model_dump_json())
    _, said, _ = main("report", "demo", "-o", "new/report.html")
    assert "new/report.html: the search, the final training and its evaluation" in said


def test_a_run_of_one_trial_is_found_too(main: Main, demo: Demo) -> None:
    demo.run(plays(training(3.0, 2.0, 1.0)))
    make_run(RunFolder(demo.study.storage.runs / "demo-trial-0"))
    assert "the search and the final training" in main("report", "demo")[1]


@pytest.mark.usefixtures("undrawn")
def test_of_several_runs_one_must_be_named_unless_one_is_the_best_trials(main: Main, demo: Demo) -> None:
    demo.run(plays(training(3.0, 2.0, 1.0)))
    runs = demo.study.storage.runs
    for number in (8, 9):
        make_run(RunFolder(runs / f"demo-trial-{number}"))
    code, _, complained = main("report", "demo")
    assert (code, "demo-trial-9; --run names one" in complained) == (2, True)
    make_run(RunFolder(runs / "demo-trial-0"))
    assert "the search and the final training" in main("report", "demo")[1]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("night", "night.html"),
        ("new/", "new/demo-report.html"),
        ("there", "there/demo-report.html"),
        ("page.htm", "page.htm"),
    ],
)
def test_a_page_has_an_ending_also_in_a_folder(main: Main, demo: Demo, given: str, written: str) -> None:
    demo.run(plays(training(3.0)))
    Path("there").mkdir()
    assert f"{written}: the search" in main("report", "demo", "-o", given)[1]
    assert Path(written).is_file()


def test_a_store_that_is_not_there_is_not_made(main: Main) -> None:
    code, _, complained = main("report", "demo", "--store", "sqlite:///none.db")
    assert (code, Path("none.db").exists()) == (2, False), complained


def test_what_is_no_run_of_this_study_is_refused(main: Main, tmp_path: Path) -> None:
    make_run(RunFolder(tmp_path / "other"), study="another")
    assert main("report", "demo", "--run", str(tmp_path / "other"))[::2] == (
        2,
        f"hpsearch: {tmp_path / 'other'} is a run of study 'another', not of 'demo'\n",
    )
    code, _, complained = main("report", "demo", "--run", str(tmp_path))
    assert (code, "is not a run folder" in complained) == (2, True)


def test_where_it_can_not_write_it_says_so(main: Main) -> None:
    Path("file.txt").touch()
    code, _, complained = main("report", "demo", "-o", "file.txt/report.html")
    assert (code, complained) == (2, "hpsearch: file.txt/report.html: can't be written: File exists\n")


def test_a_study_that_is_not_there_has_no_report(main: Main, empty_store: Store) -> None:
    code, _, complained = main("report", "nothing")
    assert code == 2
    assert f"{empty_store.name} has no study 'nothing'" in complained
