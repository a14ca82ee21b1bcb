"""Trackers that don't answer: the run is trained anyway, its log says so once, and shows no secret."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpsearch.bridge import trainer_process
from hpsearch.folders import JobFolder
from hpsearch.train import tracking
from hpsearch.train.tracking import Tracking
from hpsearch.trial import Outcome, TrackingConfig, TrialResult
from tests.integration.conftest import followed, text_config


@pytest.mark.parametrize("name", ["mlflow", pytest.param("wandb", marks=pytest.mark.storm)])
def test_a_server_out_of_reach_is_reported_and_leaves_no_thread(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B needs twenty seconds to notice."""
    for variable, value in trainer_process._DEFAULTS.items():
        if variable.startswith(("MLFLOW_", "WANDB_")):
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:geheim1@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "geheim22" * 5)
    monkeypatch.setenv("WANDB_MODE", "online")
    config = text_config((tmp_path, tmp_path), tracking=followed(tmp_path, 3, [name]))
    assert Tracking(config, JobFolder(tmp_path)).end(TrialResult(outcome=Outcome.COMPLETE)) == []
    captured = capsys.readouterr()
    assert captured.out.count(f"{name} can't be told of this run") == 1
    assert "geheim" not in captured.out + captured.err
    assert not [each.name for each in threading.enumerate() if each.name.startswith(("tracker", "wandb", "Mlflow"))]


class Moody:
    """A tracker that does not answer `num_failures` times, and writes down what reaches it."""

    def __init__(self, num_failures: float) -> None:
        self.num_failures = num_failures
        self.heard: list[Any] = []
        self.failed = threading.Event()
        self.released = threading.Event()

    def _hear(self, what: Any) -> None:
        if self.num_failures > 0:
            self.num_failures -= 1
            self.failed.set()
            raise OSError(f"no route to https://me:geheim1@tracker:1/api, key {os.environ['WANDB_API_KEY']}")
        self.heard.append(what)

    def begin(self, run: TrackingConfig, parameters: dict[str, Any], folder: JobFolder) -> None:
        del parameters, folder
        self._hear(run.name)

    def log(self, step: int, logs: dict[str, float]) -> None:
        self._hear((step, logs["loss"]))

    def end(self, outcome: Outcome, reason: str | None, values: dict[str, float]) -> None:
        del reason, values
        self._hear(outcome)

    def close(self) -> None:
        self.heard.append("closed")


def say(moody: Moody, folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """A run of two log lines, in its second stage."""
    from transformers import TrainerControl, TrainerState

    patch.setitem(tracking.TRACKERS, "wandb", lambda: moody)
    patch.setenv("WANDB_API_KEY", "geheim22")
    config = text_config((folder, folder), tracking=followed(folder, 3, ["wandb"]))
    run = Tracking(config, JobFolder(folder))
    run.start()
    if moody.num_failures:
        assert moody.failed.wait(60)
    run.begin_stage(10)
    for step in (1, 2):
        run.on_log(None, TrainerState(global_step=step), TrainerControl(), logs={"loss": 0.5})  # type: ignore[arg-type]
    return run.end(TrialResult(outcome=Outcome.COMPLETE))


def test_an_outage_that_passes_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "RETRY_S", 0.0)
    moody = Moody(3)
    # what is waited for is the end: an Event that is never set keeps the thread asking
    monkeypatch.setattr(tracking._Line, "end", lambda line, call: (line.tell(call), line._told.put(None)))
    assert say(moody, tmp_path, monkeypatch) == []
    assert moody.heard == ["demo/trial-0003", (11, 0.5), (12, 0.5), Outcome.COMPLETE, "closed"]
    said = capsys.readouterr().out
    assert said.count("can't be told") == 1


def test_a_tracker_that_never_answers_is_reported_once_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moody = Moody(float("inf"))
    assert say(moody, tmp_path, monkeypatch) == []
    assert moody.heard == ["closed"]
    said = capsys.readouterr().out
    assert said.count("can't be told") == 1
    assert "no route to https://…@tracker:1/api" in said
    assert "geheim" not in said


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Moody]]:
    """Two trackers that don't return from their first call before the test is over, or `released` is set."""
    found = {name: Moody(0) for name in ("mlflow", "wandb")}
    for name, moody in found.items():
        moody.begin = lambda *_, moody=moody: (moody.failed.set(), moody.released.wait(60))  # type: ignore[assignment,method-assign,misc]
        monkeypatch.setitem(tracking.TRACKERS, name, lambda moody=moody: moody)  # type: ignore[misc]
    yield found
    for moody in found.values():
        moody.released.set()


def begun(folder: Path, hanging: dict[str, Moody]) -> Tracking:
    run = Tracking(text_config((folder, folder), tracking=followed(folder, 3, [*hanging])), JobFolder(folder))
    run.start()
    assert all(moody.failed.wait(60) for moody in hanging.values())
    return run


def test_a_worker_that_must_leave_is_not_kept_by_trackers_and_hears_of_the_wait(
    hanging: dict[str, Moody], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_LAST_WORDS_S", 500.0)
    monkeypatch.setattr(tracking, "_STOPPED_S", 0.0)
    monkeypatch.setattr(tracking, "_LOOK_EVERY_S", 0.01)
    heard: list[str] = []

    def is_urgent(doing: str) -> bool:
        heard.append(doing)
        return len(heard) == 3

    left = begun(tmp_path, hanging).end(TrialResult(outcome=Outcome.COMPLETE), is_urgent)
    assert left == ["the thread of mlflow", "the thread of wandb"]
    assert heard == ["waiting for mlflow, wandb"] * 3


def test_lines_for_a_tracker_that_is_too_slow_fill_no_memory(
    hanging: dict[str, Moody], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import TrainerControl, TrainerState

    monkeypatch.setattr(tracking, "_MOST_WAITING", 3)
    del hanging["wandb"]
    run = begun(tmp_path, hanging)
    for step in range(9):
        run.on_log(None, TrainerState(global_step=step), TrainerControl(), logs={"loss": 0.5})  # type: ignore[arg-type]
    hanging["mlflow"].released.set()
    assert run.end(TrialResult(outcome=Outcome.COMPLETE)) == []
    assert hanging["mlflow"].heard == [(0, 0.5), (1, 0.5), (2, 0.5), Outcome.COMPLETE, "closed"]
    assert capsys.readouterr().out.count("mlflow is 3 log lines behind") == 1


def test_a_tracker_that_hangs_shows_in_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    moody = Moody(0)
    moody.begin = lambda *_: released.wait(60)  # type: ignore[assignment,method-assign,return-value]
    monkeypatch.setattr(tracking, "_LAST_WORDS_S", 0.0)
    assert say(moody, tmp_path, monkeypatch) == ["the thread of wandb"]
    released.set()
