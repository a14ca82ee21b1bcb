"""Configs, results and the folder that they are in."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hpsearch.files import write_text
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.jobs import DiagnosisConfig, EvaluationConfig, InspectionConfig, JobFailure, Variant
from hpsearch.spec.metrics import LOSS, METRICS
from hpsearch.spec.model import ModelSpec
from hpsearch.study.configs import rows_config
from hpsearch.study.open import OpenStudy
from hpsearch.trial import (
    AnswersConfig,
    MemoryLedger,
    MemorySnapshot,
    Outcome,
    Report,
    RowsConfig,
    TrialConfig,
    TrialResult,
)
from tests.unit.worker_fixtures import MANIFEST, study_spec


def trial_config(**values: Any) -> TrialConfig:
    folder = Path("/rows")
    paths = (folder / "train", folder / "validation", StorageFolder(folder), folder)
    study = OpenStudy(study_spec(), 1, "demo-1", MANIFEST, *paths)
    return study.trial_config(7, {name.replace("__", "."): value for name, value in values.items()})


def test_a_trials_config_is_the_study_with_its_values() -> None:
    config = trial_config(training__learning_rate=3e-5, lora__r=8)
    assert (config.name, config.is_final) == ("demo trial 7", False)
    assert (config.training.learning_rate, config.lora.r) == (3e-5, 8)
    spec = study_spec()
    assert config.training.batch_size == spec.training.batch_size
    assert (config.budget, config.rows) == (spec.budget, rows_config(spec))


@pytest.mark.parametrize("knob", ["model__dtype=float32", "model__quantization=none", "model__attention=eager"])
def test_what_accelerate_fixes_once_changes_the_process_key(knob: str) -> None:
    name, value = knob.split("=")
    assert trial_config(**{name: value}).process_key != trial_config().process_key


def test_what_a_warm_process_can_change_leaves_the_process_key() -> None:
    changed = trial_config(training__learning_rate=1.0, lora__r=4, training__optimizer="sgd", model__base="other")
    assert changed.process_key == trial_config().process_key


@pytest.mark.parametrize(
    ("optimizer", "taints"),
    [
        ("paged_adamw_8bit", True),
        ("paged_adamw_32bit", True),
        ("paged_lion_8bit", True),
        ("adamw_8bit", False),
        ("adamw_torch", False),
    ],
)
def test_paged_optimizers_taint_their_process(optimizer: str, taints: bool) -> None:
    assert trial_config(training__optimizer=optimizer).taints_process is taints


def test_a_result_survives_its_file_with_its_numbers_that_are_none(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    held = MemorySnapshot(
        host_rss_bytes=2**40,
        device_allocated_bytes=0,
        live_tensors=1,
        threads=1,
        file_descriptors=3,
        base_fingerprint="f00",
    )
    ledger = MemoryLedger(before=held, after=held, peak_host_bytes=1, peak_device_bytes=2, not_given_back=["a hook"])
    reports = [Report(step=1, loss=0.1), Report(step=2, loss=math.inf), Report(step=3, loss=math.nan)]
    result = TrialResult(outcome=Outcome.DIVERGED, reports=reports, reason="“NaN”\n", ledger=ledger)
    folder.write_result(result)
    read = folder.read(TrialResult)
    assert read.ledger == ledger
    assert not ledger.closes
    assert (read.outcome, read.reason) == (Outcome.DIVERGED, "“NaN”\n")
    assert [report.loss for report in read.reports][:2] == [0.1, math.inf]
    assert math.isnan(TrialResult.model_validate_json(result.model_dump_json()).reports[2].loss)


def test_the_best_report_of_a_complete_result_counts_and_the_last_of_any_other() -> None:
    losses, accuracies = [1.0, 0.5, 0.5, 2.0], [0.7, 0.8, 0.8, 0.9]
    reports = [
        Report(step=step, loss=loss, metrics={"accuracy": accuracy})
        for step, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), start=1)
    ]
    complete = TrialResult(outcome=Outcome.COMPLETE, reports=reports)
    assert complete.report_that_counts(LOSS) is reports[1], "the first of the best"
    assert complete.report_that_counts(METRICS["accuracy"]) is reports[3]
    assert TrialResult(outcome=Outcome.PRUNED, reports=reports).report_that_counts(LOSS) is reports[3]
    assert TrialResult(outcome=Outcome.FAILED).report_that_counts(LOSS) is None


def test_the_share_of_trainable_parameters_is_a_percentage() -> None:
    assert TrialResult(outcome=Outcome.COMPLETE, trainable_parameters=1, total_parameters=200).trainable_percent == 0.5
    assert TrialResult(outcome=Outcome.FAILED).trainable_percent == 0.0


def test_a_result_of_a_newer_hpsearch_is_refused() -> None:
    with pytest.raises(ValidationError):
        TrialResult.model_validate({"outcome": "complete", "mood": "good"})


ROWS = RowsConfig(row_format="messages", image_size=(28, 28), system_prompt=None, max_tokens=9)
MODEL = ModelSpec(base="tiny:qwen2")
ANSWERS: dict[str, Any] = {
    "adapter": Path("/a"),
    "test_rows": Path("/t"),
    "answers": AnswersConfig(max_new_tokens=2),
    "variants": [Variant(model="tuned", prompt="static")],
}


@pytest.mark.parametrize(
    "job",
    [
        trial_config(),
        InspectionConfig(task="vlm-sft", models=[MODEL], rows=ROWS, candidate_rows=Path("/c")),
        EvaluationConfig(task="vlm-sft", model=MODEL, rows=ROWS, batch_size=1, rules=2, **ANSWERS),
        DiagnosisConfig(),
    ],
    ids=lambda job: job.job,
)
def test_a_folder_gives_its_job_back(tmp_path: Path, job: Any) -> None:
    folder = JobFolder(tmp_path / "not" / "there" / "yet")
    folder.prepare(job)
    assert folder.job() == job


def test_a_failure_is_distinguished_from_a_result(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert folder.failure() is None
    folder.write_result(TrialResult(outcome=Outcome.COMPLETE, reason='"failed": true'))
    assert folder.failure() is None
    failure = JobFailure(reason="why", traceback="where")
    folder.write_result(failure)
    assert folder.failure() == failure


def test_a_new_job_has_no_result_yet(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    folder.write_result(TrialResult(outcome=Outcome.COMPLETE))
    folder.prepare(DiagnosisConfig())
    assert not folder.result.exists()


def test_a_folder_names_its_places_relative_to_itself(tmp_path: Path) -> None:
    """Storage that is mounted elsewhere, or moved, is the same storage."""
    here, there = tmp_path / "here", tmp_path / "there"
    rows = {"train_rows": here / "data" / "train", "validation_rows": here / "data" / "validation"}
    earlier = here / "trials" / "7" / "0000" / "attempt-1"
    config = trial_config().model_copy(update={**rows, "earlier": [earlier]})
    folder = JobFolder(earlier.with_name("attempt-2"))
    folder.prepare(config)
    assert str(here) not in folder.config.read_text()
    here.rename(there)
    read = JobFolder(there / "trials" / "7" / "0000" / "attempt-2").job()
    assert isinstance(read, TrialConfig)
    assert read.train_rows == there / "data" / "train"
    assert read.earlier == [there / "trials" / "7" / "0000" / "attempt-1"]


def test_trials_of_a_study_have_folders_that_sort(tmp_path: Path) -> None:
    storage = StorageFolder(tmp_path)
    folders = [storage.trial("demo", number).path for number in (2, 10, 999)]
    assert folders == sorted(folders)
    assert len({*folders, storage.trial("other", 2).path}) == 4


def test_every_inspection_has_a_folder_of_its_own(tmp_path: Path) -> None:
    storage = StorageFolder(tmp_path / "not" / "there" / "yet")
    folders = {storage.new_inspection("demo").path for _ in range(3)}
    assert len(folders) == 3
    assert all(path.is_dir() for path in folders)


def test_writing_leaves_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for words in ("old", "näw"):
        write_text(file, words)
        assert file.read_text() == words
        assert list(tmp_path.iterdir()) == [file]


def test_a_reader_never_sees_half_of_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.json"
    write_text(file, "old")
    seen: list[tuple[str, str]] = []
    replace = os.replace

    def look_and_replace(source: Path, target: Path) -> None:
        seen.append((Path(source).read_text(), file.read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_and_replace)
    write_text(file, "new")
    assert seen == [("new", "old")]


def test_nothing_that_crosses_the_border_can_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        trial_config().name = "another"  # type: ignore[misc]


def test_a_trials_config_is_json_that_other_tools_read(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    folder.prepare(trial_config(training__learning_rate=3e-5))
    assert json.loads(folder.config.read_text())["training"]["learning_rate"] == 3e-5
