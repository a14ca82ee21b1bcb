"""Trackers for real: MLflow without a server, W&B offline, TensorBoard: what they show of a run, and what is left."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpsearch.folders import JobFolder
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.trackers import MlflowTracker, TensorBoardTracker
from hpsearch.train.tracking import Tracking
from hpsearch.trial import Outcome, TrackingConfig, TrialConfig, TrialResult
from tests.integration.conftest import changed, followed, text_config
from tests.integration.inside import Inside

pytestmark = pytest.mark.storm
Rows = tuple[Path, Path]
BLOCK = 2**15
BUDGET = BudgetSpec(max_steps=4, reports=2)


@dataclass
class Trials:
    place: Path
    complete: TrialResult
    untracked: TrialResult
    pruned: TrialResult
    continued: list[TrialResult]

    def mlflow(self, number: int) -> Run:
        (run,) = (run for run in every_run(self.place) if run.info.run_name == f"demo/trial-{number:04d}")
        return run

    def scalars(self, number: int, name: str) -> list[tuple[int, float]]:
        return shown(self.place / "tensorboard" / f"trial-{number:04d}", name)

    def wandb(self, folder: str) -> list[dict[str, Any]]:
        (file,) = (self.place / folder).glob("wandb/offline-run-*/run-*.wandb")
        return list(records(file))


def shown(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(name)]


def address(place: Path) -> str:
    return f"sqlite:///{place}/mlflow.db"


def every_run(place: Path) -> list[Run]:
    client = mlflow.MlflowClient(address(place))
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def history(place: Path, run: Run, name: str) -> list[tuple[int, float]]:
    points = mlflow.MlflowClient(address(place)).get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in points]


def records(file: Path) -> Iterator[dict[str, Any]]:
    """What is in a run's file: wandb's records in LevelDB's log format, which wandb (0.31) has no Python reader for."""
    from google.protobuf.json_format import MessageToDict
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""  # after wandb's own header
    while at + 7 < len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        size, part = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(whole)
            yield MessageToDict(record, preserving_proto_field_name=True)
            whole = b""


def kind(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [record[name] for record in found if name in record]


@pytest.fixture(scope="module")
def trials(text_rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """Five runs of one warm process: without trackers; complete, pruned, stopped and continued, with all of them."""
    place, every = tmp_path_factory.mktemp("tracked"), ["tensorboard", "mlflow", "wandb"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", address(place))
        for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}.items():
            patched.setenv(name, value)
        patched.setenv("MLFLOW_EXPERIMENT_ID", "")  # mlflow sets it
        inside = Inside()

        def config(number: int) -> TrialConfig:
            return text_config(text_rows, budget=BUDGET, tracking=followed(place, number, every))

        untracked = inside.run(place / "untracked", text_config(text_rows, budget=BUDGET))
        complete = inside.run(place / "complete", config(7))
        pruned = inside.run(place / "pruned", config(8), goes_on=lambda _: False)
        here, there = (changed(config(9), model__revision=name) for name in ("here", "there"))  # as paths may differ
        stopped = inside.run(place / "attempt-1", here, stops_after=1)
        assert stopped.outcome is Outcome.STOPPED
        assert [run.info.status for run in every_run(place) if run.info.run_name == "demo/trial-0009"] == ["KILLED"]
        goes_on = inside.run(place / "attempt-2", changed(there, earlier=[place / "attempt-1"]))
        yield Trials(place, complete, untracked, pruned, [stopped, goes_on])


def test_a_trial_is_one_run_with_its_parameters_losses_and_outcome(trials: Trials) -> None:
    run = trials.mlflow(7)
    assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "complete")
    assert run.data.params["lora.r"] == "8"
    assert run.data.params["training.learning_rate"] == "0.001"
    assert not [name for name in run.data.params if "dir" in name or "rows" in name]
    losses = [report.loss for report in trials.complete.reports]
    assert history(trials.place, run, "eval_loss") == [(2, losses[0]), (4, losses[1])]
    assert [step for step, _ in history(trials.place, run, "loss")] == [1, 2, 3, 4]
    assert run.data.metrics["value_loss"] == min(losses)
    assert trials.scalars(7, "eval/loss") == [(2, pytest.approx(losses[0])), (4, pytest.approx(losses[1]))]
    assert [step for step, _ in trials.scalars(7, "train/loss")] == [1, 2, 3, 4]


def test_wandb_has_the_same_run(trials: Trials) -> None:
    found = trials.wandb("complete")
    (run,) = kind(found, "run")
    assert (run["run_id"], run["display_name"], run["run_group"]) == ("demo-1a-0007", "demo/trial-0007", "demo")
    assert run["project"] == "hpsearch"
    steps = [
        {item.get("key") or item["nested_key"][0]: json.loads(item["value_json"]) for item in row["item"]}
        for row in kind(found, "history")
    ]
    losses = [step["eval/loss"] for step in steps if "eval/loss" in step]
    assert losses == [report.loss for report in trials.complete.reports]
    told = json.dumps(kind(found, "summary"))
    assert '"outcome"' in told
    assert "complete" in told
    assert kind(found, "exit") == [{}] or kind(found, "exit")[-1].get("exit_code", 0) == 0


def test_a_pruned_trial_ends_as_such(trials: Trials) -> None:
    run = trials.mlflow(8)
    assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "pruned")
    assert run.data.tags["reason"] == trials.pruned.reason
    assert run.data.metrics["value_loss"] == trials.pruned.reports[-1].loss
    assert "pruned" in json.dumps(kind(trials.wandb("pruned"), "summary"))


def test_an_attempt_goes_on_with_the_run(trials: Trials) -> None:
    run = trials.mlflow(9)
    assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "complete")
    assert [step for step, _ in history(trials.place, run, "loss")] == [1, 2, 3, 4]
    assert [step for step, _ in trials.scalars(9, "train/loss")] == [1, 2, 3, 4]
    ids = {run["run_id"] for attempt in ("attempt-1", "attempt-2") for run in kind(trials.wandb(attempt), "run")}
    assert ids == {"demo-1a-0009"}


def killed_after_three_steps(tracker: type[TensorBoardTracker | MlflowTracker], place: Path) -> TrackingConfig:
    """A run of two attempts: the second one repeats the third step, which came after its checkpoint."""
    run = followed(place, 5, ["tensorboard"])
    for loss, steps in ((0.9, [1, 2, 3]), (0.4, [3, 4])):
        attempt = tracker()
        attempt.begin(run, {"lora.r": 8}, JobFolder(place))
        for step in steps:
            attempt.log(step, {"loss": loss})
        attempt.close()
        if mlflow.active_run():
            mlflow.end_run("KILLED")
    return run


def test_tensorboard_shows_repeated_steps_once(tmp_path: Path) -> None:
    run = killed_after_three_steps(TensorBoardTracker, tmp_path)
    assert [step for step, _ in shown(run.tensorboard, "train/loss")] == [1, 2, 3, 4]
    assert [value for _, value in shown(run.tensorboard, "train/loss")] == pytest.approx([0.9, 0.9, 0.4, 0.4])


def test_mlflow_is_sent_repeated_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address(tmp_path))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    killed_after_three_steps(MlflowTracker, tmp_path)
    (run,) = every_run(tmp_path)
    assert history(tmp_path, run, "loss") == [(1, 0.9), (2, 0.9), (3, 0.9), (4, 0.4)]


def test_trackers_leave_no_trace_in_a_warm_process(trials: Trials) -> None:
    tracked = [trials.complete, trials.pruned, *trials.continued]
    for result in [trials.untracked, *tracked]:
        assert result.ledger is not None
        assert result.ledger.closes, result.ledger.not_given_back
    assert trials.complete.reports == trials.untracked.reports, "bit for bit"
    assert not [each.name for each in threading.enumerate() if each.name.startswith(("tracker", "wandb", "Mlflow"))]
    assert mlflow.active_run() is None


@pytest.mark.parametrize(
    ("outcome", "status", "number"), [(Outcome.OUT_OF_MEMORY, "FAILED", 3), (Outcome.STOPPED, "KILLED", 4)]
)
def test_a_run_that_ended_before_its_first_step_is_there(
    outcome: Outcome, status: str, number: int, trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address(trials.place))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    config = text_config((tmp_path, tmp_path), tracking=followed(tmp_path, number, ["mlflow"]))
    result = TrialResult(outcome=outcome, reason="it needed 9.0 GiB")
    assert Tracking(config, JobFolder(tmp_path)).end(result) == []
    run = trials.mlflow(number)
    assert (run.info.status, run.data.tags["outcome"], run.data.tags["reason"]) == (
        status,
        outcome,
        "it needed 9.0 GiB",
    )
    assert "value_loss" not in run.data.metrics
