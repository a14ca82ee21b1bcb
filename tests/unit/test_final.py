"""The final training: when it trains, when it continues, when it refuses, and what its folder holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpsearch.bridge.protocol import Continue, Event, Phase, Progress, Reported, Run, Stop
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.checkpoints import last_checkpoint, written_whole
from hpsearch.errors import InputError, StudyFileErrors, TrainerDied, TrainingFailed
from hpsearch.folders import JobFolder
from hpsearch.results.final import RunFolder, train_final
from hpsearch.spec import StudyFile, load_study
from hpsearch.spec.tasks import SECTIONS
from hpsearch.trial import Outcome, TrackingConfig, TrialConfig, TrialResult
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.worker_fixtures import ScriptedTrainer, ending, nobody, plays, report

NO_SEARCH = "search=null"


class FinalRun:
    """A final run of the desk's study file, in its usual folder, and what was watched of it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.folder = RunFolder(desk.storage.runs / "demo")
        self.stop = StopFlag()
        self.watched: list[Phase | Progress | Reported] = []

    def file(self, *overrides: str) -> StudyFile:
        return self.desk.file(f"data.source={self.desk.folder / 'rows.jsonl'}", *overrides)

    def train(self, start: StartTrainer, *overrides: str, **more: Any) -> TrialResult:
        return train_final(
            self.file(NO_SEARCH, *overrides),
            self.folder,
            self.desk.storage,
            start,
            self.stop,
            self.desk.tell,
            self.watched.append,
            **{"resume": False, "restart": False, **more},
        )


@pytest.fixture
def run(desk: Desk) -> FinalRun:
    return FinalRun(desk)


def training(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
    yield Phase(name="loading")
    yield Progress(step=1, num_steps=9)
    yield report(1, 0.7)
    yield from ending(folder, Outcome.COMPLETE, 0.7)


def stopped(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
    """The training of a run that a person stopped at step 7."""
    with written_whole(folder.checkpoints / "checkpoint-7") as checkpoint:
        (checkpoint / "trainer_state.json").touch()
    yield from ending(folder, Outcome.STOPPED)


def test_the_final_training_leaves_a_folder_that_says_everything(run: FinalRun) -> None:
    start = plays(inspecting(), training)
    result = run.train(start)
    assert (result.outcome, [report.loss for report in result.reports]) == (Outcome.COMPLETE, [0.7])
    assert [type(event) for event in run.watched] == [Phase, Progress, Reported]
    (trainer,) = start.trainers
    assert trainer.told[1:] == [Run(folder=run.folder.path), Continue()], "the trainer that looked at the rows is used"
    assert trainer.ended
    file, manifest, config = run.folder.load()
    spec = run.file(NO_SEARCH).spec
    assert file.spec == spec
    assert len(manifest.splits["train"]) == 16
    assert (config.name, config.is_final, config.budget) == ("demo final", True, spec.final)
    assert (config.training, config.lora, config.model) == (spec.training, spec.lora, spec.model)
    assert config.train_rows.is_dir()
    assert config.validation_rows.is_dir()
    assert not config.train_rows.with_name("test").exists()


def test_a_run_that_is_trained_is_not_trained_again(run: FinalRun) -> None:
    first = run.train(plays(inspecting(), training))
    assert run.train(nobody) == run.train(nobody, resume=True) == first


def test_a_run_of_an_earlier_hpsearch_is_read_in_todays_terms(run: FinalRun) -> None:
    """In this old run batch_size was the rows per forward, in its config too."""
    settings = "training.batch_size=16", "training.micro_batch=4", "training.evaluation_batch_size=8"
    first = run.train(plays(inspecting(), training), *settings)
    study, config = yaml.safe_load(run.folder.study.read_text()), json.loads(run.folder.config.read_text())
    for kept in (study, config):
        del kept["training"]["micro_batch"]
        kept["training"] |= {"batch_size": 4, "gradient_accumulation_steps": 4}
    run.folder.study.write_text(yaml.safe_dump(study))
    run.folder.config.write_text(json.dumps(config))
    file, _, resolved = run.folder.load()
    assert file.spec.training == resolved.training == run.file(*settings).spec.training
    assert run.train(nobody, *settings) == first, "it is the same run"


def test_a_run_whose_file_has_the_sections_of_other_tasks_is_the_same_run(run: FinalRun) -> None:
    """Earlier versions wrote every section."""
    first = run.train(plays(inspecting(), training))
    study = yaml.safe_load(run.folder.study.read_text())
    assert study.keys().isdisjoint(SECTIONS)
    whole = run.file(NO_SEARCH).spec.model_dump(mode="json", include=set(SECTIONS))
    run.folder.study.write_text(yaml.safe_dump(study | whole))
    assert run.train(nobody) == first


def test_a_study_file_with_a_search_is_the_same_run_without_it(run: FinalRun) -> None:
    run.train(plays(inspecting(), training))
    with_search = run.file()
    run.file = lambda *_: with_search  # type: ignore[method-assign]
    assert run.train(nobody).outcome is Outcome.COMPLETE


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("last", [training, stopped])
def test_another_run_in_the_folder_is_left_alone(run: FinalRun, last: Any, resume: bool) -> None:
    run.train(plays(inspecting(), last))
    words = r"runs/demo holds another run; .* differs from it in:\n  training.seed: 42 → 7\nRestore the old"
    with pytest.raises(InputError, match=words):
        run.train(nobody, "training.seed=7", resume=resume)


def test_of_a_studys_best_trial_there_is_no_file_to_restore(run: FinalRun) -> None:
    run.train(plays(inspecting(), training))
    of_trial = replace(run.file(NO_SEARCH, "training.seed=7"), path=Path("trial 3 of demo"))
    run.file = lambda *_: of_trial  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"seed: 42 → 7\nChoose another folder with --out"):
        run.train(nobody)


def test_an_interrupted_run_asks_for_resume_or_restart(run: FinalRun) -> None:
    assert run.train(plays(inspecting(), stopped)).outcome is Outcome.STOPPED
    with pytest.raises(InputError, match=r"was interrupted at step 7: continue with --resume, or --restart"):
        run.train(nobody)


def test_resume_continues_from_the_checkpoint(run: FinalRun) -> None:
    run.train(plays(inspecting(), stopped))
    start = plays(training)
    assert run.train(start, resume=True).outcome is Outcome.COMPLETE
    assert start.trainers[0].told[0] == Run(folder=run.folder.path)
    assert last_checkpoint(run.folder) is not None


def test_restart_throws_the_old_run_away(run: FinalRun) -> None:
    run.train(plays(inspecting(), stopped))
    assert run.train(plays(training), "training.seed=7", restart=True).outcome is Outcome.COMPLETE
    assert last_checkpoint(run.folder) is None
    assert run.folder.load()[2].training.seed == 7


@pytest.mark.parametrize("restart", [True, False])
def test_a_run_that_another_process_trains_is_left_alone(run: FinalRun, restart: bool) -> None:
    def twice(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        with pytest.raises(InputError, match=r"another process trains .*demo: wait for its end, or choose --out"):
            run.train(plays(), resume=not restart, restart=restart)
        yield from training(trainer, folder)

    assert run.train(plays(inspecting(), twice)).outcome is Outcome.COMPLETE


def test_a_run_that_died_before_its_first_checkpoint_just_begins_again(run: FinalRun) -> None:
    def dies(*_: object) -> Iterator[Event | None]:
        yield Phase(name="loading")

    start = plays(inspecting(), dies)
    with pytest.raises(TrainerDied):
        run.train(start)
    assert start.trainers[0].ended
    assert run.train(plays(training)).outcome is Outcome.COMPLETE


def test_a_stale_result_is_not_taken_for_the_new_one(run: FinalRun) -> None:
    run.train(plays(inspecting(), stopped))

    def dies(*_: object) -> Iterator[Event | None]:
        assert not run.folder.result.exists()
        yield None

    with pytest.raises(TrainerDied):
        run.train(plays(dies), resume=True)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.DIVERGED])
def test_a_failed_training_says_why_and_where_to_look(run: FinalRun, outcome: Outcome) -> None:
    def fails(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        return ending(folder, outcome, reason="tried to allocate 2 GiB", clean=False)

    with pytest.raises(TrainingFailed) as raised:
        run.train(plays(inspecting(), fails))
    assert str(raised.value).startswith(f"{outcome}: tried to allocate 2 GiB\n")
    assert str(run.folder.log) in str(raised.value)


def test_rows_that_are_not_the_studys_are_refused(run: FinalRun) -> None:
    with pytest.raises(StudyFileErrors, match=r"these rows split to \w{12}…, not to 0123456789ab… as in the study"):
        run.train(plays(inspecting()), "data.manifest=0123456789abcdef")
    assert not run.folder.config.exists()


def test_a_stop_saves_the_run(run: FinalRun) -> None:
    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        run.stop.ask()
        yield None
        yield None
        assert trainer.told[1:] == [Run(folder=folder.path), Stop()]
        yield from stopped(trainer, folder)

    assert run.train(plays(inspecting(), play)).outcome is Outcome.STOPPED


def test_a_second_stop_does_not_wait(run: FinalRun) -> None:
    def play(*_: object) -> Iterator[Event | None]:
        run.stop.ask()
        run.stop.ask()
        yield None
        pytest.fail("nobody waits for this event")

    start = plays(inspecting(), play)
    assert run.train(start).outcome is Outcome.STOPPED
    assert start.trainers[0].ended


@pytest.mark.parametrize("missing", ["config.json", "study.yaml", "manifest.json.gz"])
def test_a_folder_that_is_no_run_is_refused_with_what_it_lacks(run: FinalRun, missing: str) -> None:
    run.train(plays(inspecting(), training))
    (run.folder.path / missing).unlink()
    with pytest.raises(InputError, match=rf"runs/demo is not a run folder: it has no {missing} \(hpsearch train makes"):
        run.folder.load()


def test_a_run_that_is_not_complete_can_not_be_used_yet(run: FinalRun) -> None:
    run.train(plays(inspecting(), stopped))
    with pytest.raises(InputError, match=r"its training is not complete; continue it with hpsearch train --resume"):
        run.folder.load()


def test_a_folders_study_file_says_the_same_again(run: FinalRun) -> None:
    run.train(plays(inspecting(), training), "lora.dropout=1e-5")
    spec = load_study(run.folder.study).spec
    assert spec == run.file(NO_SEARCH, "lora.dropout=1e-5").spec
    assert "null" not in run.folder.study.read_text()


@pytest.mark.parametrize("theirs", ["thesis.tex", "study.yaml", "config.json", "result.json"])
@pytest.mark.parametrize("restart", [True, False])
def test_a_folder_that_is_not_a_runs_is_left_alone(run: FinalRun, theirs: str, restart: bool) -> None:
    run.folder.path.mkdir(parents=True)
    file = run.folder.path / theirs
    file.write_text("{}")
    assert not run.folder.is_trained()
    with pytest.raises(InputError, match="holds something that is not a run: choose another folder with --out"):
        run.train(nobody, restart=restart)
    assert [file] == list(run.folder.path.iterdir())
    assert file.read_text() == "{}"


def test_a_file_is_no_run_folder(run: FinalRun) -> None:
    run.folder.path.parent.mkdir(parents=True)
    run.folder.path.touch()
    with pytest.raises(InputError, match="holds something that is not a run"):
        run.train(nobody, restart=True)


def test_a_run_that_was_killed_before_it_began_just_begins(run: FinalRun) -> None:
    run.folder.path.mkdir(parents=True)
    run.folder.manifest.write_bytes(b"half of i")
    assert run.train(plays(inspecting(), training)).outcome is Outcome.COMPLETE


def test_a_final_run_is_followed_too_and_a_continued_one_is_the_same_run(run: FinalRun) -> None:
    run.train(plays(inspecting(), stopped), "tracking=[mlflow]")
    began = tracked(run)
    assert (began.name, began.group, began.trackers) == ("demo/final", "demo", ["tensorboard", "mlflow"])
    assert began.tensorboard == run.folder.tensorboard
    run.train(plays(training), "tracking=[]", resume=True)
    assert tracked(run) == began.model_copy(update={"trackers": ["tensorboard"]}), "where it is followed may change"


def tracked(run: FinalRun) -> TrackingConfig:
    config = run.folder.job()
    assert isinstance(config, TrialConfig)
    assert config.tracking is not None
    return config.tracking
