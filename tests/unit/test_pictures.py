"""Where pictures land: beside a run, with the study, in the dashboard; and that none of them fails a run."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.exceptions import UpdateFinishedTrialError
from optuna_dashboard.artifact._backend import list_trial_artifacts

from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.trial import Outcome
from hpsearch.watch import pictures
from hpsearch.watch.pictures import draw_evaluation, draw_run, draw_study, study_pictures
from tests.unit.picture_fixtures import config, evaluation, history, result, training
from tests.unit.worker_fixtures import Demo, MakeDemo, ends, plays

DRAWN = ["learning-curves", "time", "timeline"]
FILES = [f"{name}.png" for name in DRAWN]


def silent(_name: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def run_folder(path: Path) -> JobFolder:
    folder = JobFolder(path)
    folder.prepare(config())
    folder.history.write_text("".join(f"{point.model_dump_json()}\n" for point in history(8)))
    folder.write_result(result(3.0, 2.0, num_steps=8))
    return folder


@pytest.mark.usefixtures("undrawn")
def test_a_run_has_its_picture_and_one_line_tells_of_it(workplace: Path) -> None:
    told = draw_run(run_folder(workplace / "run"), workplace / "run" / "plots")
    assert told == "plots: loss in run/plots"
    assert sorted(file.name for file in (workplace / "run" / "plots").iterdir()) == ["loss.png", "loss.svg"]


@pytest.mark.usefixtures("undrawn")
def test_an_evaluation_has_its_pictures_and_an_older_ones_go(workplace: Path) -> None:
    assert draw_evaluation(evaluation(), workplace) == "plots: scores, confusion, classes in ."
    assert len(list(workplace.iterdir())) == 6
    assert draw_evaluation(evaluation(has_classes=False), workplace) == "plots: scores in ."
    assert sorted(file.name for file in workplace.iterdir()) == ["scores.png", "scores.svg"]


def test_a_picture_that_can_not_be_drawn_fails_no_run(workplace: Path) -> None:
    folder = run_folder(workplace / "run")
    folder.config.write_text('{"job": "train", "na')
    told = draw_run(folder, workplace / "plots")
    assert told.startswith("plots: loss could not be drawn (UnreadableFile: ")
    assert "\n" not in told
    (workplace / "plots").write_text("a file where a folder should be")
    assert "could not be drawn" in draw_run(run_folder(workplace / "run"), workplace / "plots")


def attached(demo: Demo) -> dict[str, list[str]]:
    """What the stock dashboard shows: "study" or the trial's number → file names."""
    storage, study_id = demo.store.optuna, demo.study.study_id
    attributes = storage.get_study_system_attrs(study_id)
    study = optuna.load_study(study_name="demo", storage=storage)
    found = {"study": sorted(meta.filename for meta in get_all_artifact_meta(study, storage=storage))}
    for trial in demo.trials:
        metas = list_trial_artifacts(attributes, storage.get_trial_system_attrs(trial._trial_id), trial)
        found[str(trial.number)] = [meta["filename"] for meta in metas]
        for meta in metas:
            assert (demo.study.storage.artifacts / meta["artifact_id"]).read_bytes().startswith(b"\x89PNG")
            assert ArtifactMeta(**meta).mimetype == "image/png"
    return found


@pytest.fixture
def three(demo: Demo) -> Demo:
    """A complete trial, one that was pruned, and one that ran out of memory before its first step."""
    demo.run(
        plays(
            training(3.0, 2.0, 1.0),
            training(4.0, outcome=Outcome.PRUNED),
            ends(Outcome.OUT_OF_MEMORY, clean=False, reason="tried to allocate 9 GiB"),
        )
    )
    return demo


def test_what_was_drawn_is_in_the_dashboard_and_only_once(three: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = three.study.storage
    told = draw_study(three.store, three.view, storage, silent)
    assert told == f"plots: {', '.join(DRAWN)} in {storage.plots('demo')}; 2 trials in the dashboard"
    expected = {"study": FILES, "0": ["loss.png"], "1": ["loss.png"], "2": []}
    assert attached(three) == expected

    monkeypatch.setattr(pictures, "_trial_picture", lambda *_: None)
    monkeypatch.delattr("hpsearch.watch.plots.learning_curves_figure")
    assert draw_study(three.store, three.view, storage, silent) == ""
    assert attached(three) == expected


def test_the_studys_pictures_are_drawn_again_when_a_trial_has_ended(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=2)
    worker = demo.worker(plays(training(3.0, 2.0, 1.0), training(2.0, 1.5, 0.5)))
    worker.step()
    draw_study(demo.store, demo.view, demo.study.storage, silent)
    first = sorted(file.read_bytes() for file in demo.study.storage.artifacts.iterdir())
    worker.step()
    told = draw_study(demo.store, demo.view, demo.study.storage, silent)
    assert told.startswith("plots: learning-curves, importance, time, timeline in ")
    assert told.endswith("; 1 more trial in the dashboard")
    assert attached(demo)["study"] == ["importance.png", *FILES]
    second = sorted(file.read_bytes() for file in demo.study.storage.artifacts.iterdir())
    assert (len(first), len(second), len(set(first) & set(second))) == (4, 6, 1)


@pytest.mark.usefixtures("undrawn")
def test_a_picture_that_someone_took_away_stays_away(three: Demo) -> None:
    draw_study(three.store, three.view, three.study.storage, silent)
    attributes = three.store.optuna.get_study_system_attrs(three.study.study_id)
    key = next(name for name in attributes if name.startswith("dashboard:artifacts:"))
    three.store.optuna.set_study_system_attr(three.study.study_id, key, json.dumps(None))
    assert draw_study(three.store, three.view, three.study.storage, silent) == ""
    assert attached(three)["0"] == []


@pytest.mark.usefixtures("undrawn")
def test_trials_whose_folder_is_on_another_machine_are_left_alone(three: Demo, tmp_path: Path) -> None:
    elsewhere = StorageFolder(tmp_path / "elsewhere")
    assert draw_study(three.store, three.view, elsewhere, silent).endswith(f"in {elsewhere.plots('demo')}")
    assert attached_to_trials(three) == []


def attached_to_trials(demo: Demo) -> list[str]:
    attributes = demo.store.optuna.get_study_system_attrs(demo.study.study_id)
    return [name for name in attributes if name.startswith("dashboard:artifacts:")]


@pytest.mark.usefixtures("undrawn")
def test_what_a_stop_leaves_out_is_drawn_the_next_time(three: Demo) -> None:
    draw_study(three.store, three.view, three.study.storage, silent, lambda: True)
    assert attached_to_trials(three) == []
    assert draw_study(three.store, three.view, three.study.storage, silent) == "plots: 2 trials in the dashboard"


def test_optuna_gives_no_artifact_to_a_trial_that_has_ended(three: Demo, tmp_path: Path) -> None:
    """Why a trial's pictures are named in the study's attributes; if this passes one day, that is no longer needed."""
    (tmp_path / "loss.png").touch()
    with pytest.raises(UpdateFinishedTrialError):
        upload_artifact(
            artifact_store=FileSystemArtifactStore(tmp_path),
            file_path=str(tmp_path / "loss.png"),
            study_or_trial=three.trials[0],
            storage=three.store.optuna,
        )


@pytest.mark.usefixtures("undrawn")
def test_the_final_runs_pictures_are_attached_to_the_study(three: Demo) -> None:
    plots = three.study.storage.runs / "demo" / "plots"
    draw_run(run_folder(plots.parent), plots)
    draw_study(three.store, three.view, three.study.storage, silent)
    assert attached(three)["study"] == ["final-loss.png", *FILES]


@pytest.mark.usefixtures("undrawn")
def test_one_broken_trial_does_not_hide_the_others(three: Demo) -> None:
    three.folder.config.write_text("no JSON\n")
    told = draw_study(three.store, three.view, three.study.storage, silent)
    assert "; 1 trial in the dashboard; trial 0 could not be drawn (UnreadableFile: " in told
    assert attached(three) == {"study": FILES, "0": [], "1": ["loss.png"], "2": []}


@pytest.mark.usefixtures("undrawn")
def test_a_store_that_breaks_fails_no_run(three: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(three.store.optuna, "set_study_system_attr", broken)
    told = draw_study(three.store, three.view, three.study.storage, silent)
    assert told.endswith("; the study could not be drawn (OSError: the disk is full)")


def test_a_study_without_a_trial_has_no_picture(demo: Demo) -> None:
    assert draw_study(demo.store, demo.view, demo.study.storage, silent) == ""
    assert not demo.study.storage.plots("demo").exists()


def test_each_objective_has_curves_of_its_own_name(make_demo: MakeDemo) -> None:
    demo = make_demo(spec={"objective": ["loss", "exact_match"]}, pruner="none")
    names = [name for name in study_pictures(demo.store, demo.view) if "curves" in name]
    assert names == ["learning-curves", "learning-curves-exact_match"]
