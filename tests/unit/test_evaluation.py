"""Evaluating a final run: on the test rows, which nobody has seen before, and once only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from hpsearch.errors import HpsearchError, StudyFileErrors
from hpsearch.folders import TrialFolder
from hpsearch.jobs import EvaluationConfig, EvaluationResult, JobFailure, ModelScore
from hpsearch.protocol import Done, Event
from hpsearch.results.evaluate import evaluate_run
from hpsearch.results.final import RunFolder, train_final
from hpsearch.trial import Outcome
from hpsearch.worker.opening import StartTrainer
from hpsearch.worker.stopping import StopFlag
from tests.unit.opening_fixtures import Desk, desk, inspecting
from tests.unit.worker_fixtures import ScriptedTrainer, empty_store, nobody, open_store, plays, steadily

__all__ = ["desk", "empty_store", "open_store"]

SCORES = EvaluationResult(
    base=ModelScore(loss=2.0, exact_match=0.1), tuned=ModelScore(loss=1.0, exact_match=0.9), rows=[]
)


def trained(desk: Desk, *overrides: str) -> RunFolder:
    file, folder = desk.file("search=null", *overrides), RunFolder(desk.storage.runs / "demo")
    start = plays(inspecting(), steadily(0.7))
    flags: dict[str, Any] = {"resume": False, "restart": False}
    result = train_final(file, folder, desk.storage, start, StopFlag(), desk.tell, lambda _: None, **flags)
    assert result.outcome is Outcome.COMPLETE
    return folder


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    return trained(desk, f"data.source={desk.folder / 'rows.jsonl'}")


def evaluated(desk: Desk, folder: RunFolder, start: StartTrainer, max_new_tokens: int = 25) -> EvaluationResult:
    return evaluate_run(folder, desk.storage, start, max_new_tokens, desk.tell)


def scoring(_: ScriptedTrainer, folder: TrialFolder) -> Iterator[Event | None]:
    folder.write_result(SCORES)
    yield Done(clean=True)


def failing(_: ScriptedTrainer, folder: TrialFolder) -> Iterator[Event | None]:
    folder.write_result(JobFailure(reason="OutOfMemoryError: 2 GiB", traceback="Traceback …"))
    yield Done(clean=False)


def test_an_evaluation_is_of_the_adapter_on_the_test_rows(desk: Desk, folder: RunFolder) -> None:
    assert not list(desk.storage.path.rglob("test"))
    assert evaluated(desk, folder, plays(scoring)) == SCORES
    config = folder.evaluation.job()
    assert isinstance(config, EvaluationConfig)
    assert (config.adapter, config.max_new_tokens) == (folder.adapter, 25)
    manifest = folder.load()[1]
    assert datasets.load_from_disk(str(config.test_rows))["id"] == [row_id for row_id, _ in manifest.splits["test"]]


def test_an_evaluation_is_made_once_for_each_question(desk: Desk, folder: RunFolder) -> None:
    evaluated(desk, folder, plays(scoring))
    assert evaluated(desk, folder, nobody) == SCORES
    again = plays(scoring)
    evaluated(desk, folder, again, max_new_tokens=50)
    assert len(again.trainers) == 1


def test_an_evaluation_of_changed_rows_is_refused(desk: Desk, folder: RunFolder) -> None:
    desk.write_rows([{"q": "another question", "a": "another answer"}])
    with pytest.raises(StudyFileErrors, match="the data is not what it was"):
        evaluated(desk, folder, nobody)


def test_a_failed_evaluation_says_why(desk: Desk, folder: RunFolder) -> None:
    with pytest.raises(HpsearchError, match="OutOfMemoryError: 2 GiB") as raised:
        evaluated(desk, folder, plays(failing))
    assert str(folder.evaluation.log) in str(raised.value)


def test_a_failed_evaluation_is_made_again(desk: Desk, folder: RunFolder) -> None:
    with pytest.raises(HpsearchError):
        evaluated(desk, folder, plays(failing))
    assert evaluated(desk, folder, plays(scoring)) == SCORES


def test_a_run_from_a_file_with_a_relative_source_can_be_evaluated(desk: Desk) -> None:
    assert not Path(desk.file().spec.data.source).is_absolute()
    assert evaluated(desk, trained(desk), plays(scoring)) == SCORES
