"""The trackers: how a run is opened in each, gone on with by a later attempt, and closed as it ended.

transformers' callbacks (5.24, integrations/integration_utils.py) send parameters and log lines. They are given a run
that is open already: theirs would be named after a folder, grouped with nothing, and another one for each attempt.
"""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any, Protocol, cast

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpsearch.folders import JobFolder
from hpsearch.trial import Outcome, TrackingConfig

_GOOD_ENDS = (Outcome.COMPLETE, Outcome.PRUNED)
_RUN = "hpsearch.run"
"""The tag that identifies an MLflow run: MLflow chooses the ids of its runs itself."""


class Tracker(Protocol):
    """For one run, called from one thread. A call that raises is repeated."""

    def begin(self, run: TrackingConfig, parameters: dict[str, Any], folder: JobFolder) -> None: ...

    def log(self, step: int, logs: dict[str, float]) -> None:
        """`step` counts the whole run's optimizer steps."""

    def end(self, outcome: Outcome, reason: str | None, values: dict[str, float]) -> None: ...

    def close(self) -> None:
        """Removes everything from this process, also for a run that never began."""


class TensorBoardTracker:
    def __init__(self) -> None:
        self._callback: TrainerCallback | None = None
        self._writer: Any = None
        self._has_logged = False

    def begin(self, run: TrackingConfig, parameters: dict[str, Any], folder: JobFolder) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations.integration_utils import TensorBoardCallback

        del folder
        self._writer = self._writer or SummaryWriter(log_dir=str(run.tensorboard))
        self._callback = TensorBoardCallback(self._writer)
        _begin(self._callback, run, parameters)

    def log(self, step: int, logs: dict[str, float]) -> None:
        """The first step drops what an attempt before logged after its last checkpoint: TensorBoard shows both
        otherwise. It is what `SummaryWriter(purge_step=…)` writes, which has to know the step before the run begins.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if not self._has_logged:
            start = SessionLog(status=SessionLog.START)
            self._writer.file_writer.add_event(Event(step=step, session_log=start))
            self._has_logged = True
        _log(self._callback, step, logs)

    def end(self, outcome: Outcome, reason: str | None, values: dict[str, float]) -> None:
        self._writer.add_text("outcome", f"{outcome}: {reason}" if reason else outcome)
        for name, value in values.items():
            self._writer.add_scalar(name, value)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MlflowTracker:
    def __init__(self) -> None:
        self._callback: TrainerCallback | None = None
        self._last_steps: dict[str, int] = {}

    def begin(self, run: TrackingConfig, parameters: dict[str, Any], folder: JobFolder) -> None:
        import mlflow
        from transformers.integrations.integration_utils import MLflowCallback

        del folder
        # Otherwise it prints a run's address, including the password (3.17, tracking/_tracking_service/client.py,
        # `_log_url`).
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        if mlflow.active_run() is None:
            experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", run.group))
            where = [experiment.experiment_id]
            found = mlflow.MlflowClient().search_runs(where, f"tags.`{_RUN}` = '{run.id}'", max_results=1)
            known = found[0].info.run_id if found else None
            self._last_steps = _last_steps(found[0]) if found else {}
            mlflow.start_run(run_id=known, run_name=run.name, tags={_RUN: run.id, "study": run.group})
        callback = MLflowCallback()
        callback._ml_flow = cast(Any, _Synchronous(mlflow, self._last_steps))
        self._callback = callback
        _begin(self._callback, run, parameters)

    def log(self, step: int, logs: dict[str, float]) -> None:
        _log(self._callback, step, logs)

    def end(self, outcome: Outcome, reason: str | None, values: dict[str, float]) -> None:
        import mlflow

        mlflow.log_metrics(values)
        mlflow.set_tags({"outcome": str(outcome)} | ({"reason": reason[:_LONGEST_TAG]} if reason else {}))
        status = "FINISHED" if outcome in _GOOD_ENDS else "KILLED" if outcome is Outcome.STOPPED else "FAILED"
        mlflow.end_run(status)

    def close(self) -> None:
        """A run that could not be ended belongs to this thread, and is forgotten with it."""


_LONGEST_TAG = 500


def _last_steps(run: Any) -> dict[str, int]:
    """The last step of each metric that an attempt before has sent."""
    import mlflow

    client = mlflow.MlflowClient()
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: max(point.step for point in points) for name, points in histories.items() if points}


class _Synchronous:
    """mlflow with synchronous calls.

    The callback makes asynchronous calls, on threads of mlflow's own that outlive the run; their errors are reported
    nowhere (mlflow 3.17, utils/async_logging/async_logging_queue.py).

    `last_steps`: an attempt repeats the steps after its checkpoint, with the same values. They are not sent again:
    MLflow would draw both lines.
    """

    def __init__(self, mlflow: Any, last_steps: dict[str, int]) -> None:
        self._mlflow = mlflow
        self._last_steps = last_steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mlflow, name)

    def log_params(self, params: dict[str, Any], synchronous: bool = True) -> None:
        """Those that the run has not: MLflow refuses another value, and paths differ where another machine goes on."""
        del synchronous
        known = self._mlflow.active_run().data.params
        if new := {name: value for name, value in params.items() if name not in known}:
            self._mlflow.log_params(new, synchronous=True)

    def log_metrics(self, metrics: dict[str, float], step: int, synchronous: bool = True) -> None:
        del synchronous
        if new := {name: value for name, value in metrics.items() if step > self._last_steps.get(name, -1)}:
            self._mlflow.log_metrics(new, step=step, synchronous=True)


class WandbTracker:
    def __init__(self) -> None:
        self._callback: TrainerCallback | None = None
        self._is_loaded = False

    def begin(self, run: TrackingConfig, parameters: dict[str, Any], folder: JobFolder) -> None:
        import wandb
        from transformers.integrations.integration_utils import WandbCallback

        self._is_loaded = True
        if wandb.run is None:
            wandb.init(
                project=os.environ.get("WANDB_PROJECT", "hpsearch"),
                id=run.id,
                name=run.name,
                group=run.group,
                resume="allow",
                dir=os.environ.get("WANDB_DIR", str(folder.path)),
            )
        self._callback = WandbCallback()
        _begin(self._callback, run, parameters)

    def log(self, step: int, logs: dict[str, float]) -> None:
        _log(self._callback, step, logs)

    def end(self, outcome: Outcome, reason: str | None, values: dict[str, float]) -> None:
        import wandb

        assert wandb.run is not None
        wandb.run.summary.update(values | {"outcome": str(outcome)} | ({"reason": reason} if reason else {}))
        if outcome is Outcome.STOPPED:
            wandb.run.mark_preempting()  # W&B then shows it as preempted
        wandb.finish(exit_code=0 if outcome in _GOOD_ENDS else 1)

    def close(self) -> None:
        """Also ends the process that wandb starts, and the threads that communicate with it."""
        if self._is_loaded:
            import wandb

            wandb.teardown()


def _begin(callback: TrainerCallback, run: TrackingConfig, parameters: dict[str, Any]) -> None:
    """Callbacks log a trainer's arguments as parameters: this replaces transformers' own hundred, which say little
    about a trial and contain this machine's paths.
    """
    arguments = SimpleNamespace(
        run_name=run.name,
        output_dir="",
        to_dict=lambda: parameters,
        to_json_string=lambda: json.dumps(parameters, indent=2),
    )
    callback.on_train_begin(cast(TrainingArguments, arguments), TrainerState(), TrainerControl())


def _log(callback: TrainerCallback | None, step: int, logs: dict[str, float]) -> None:
    assert callback is not None, "begun before anything is logged"
    callback.on_log(cast(Any, None), TrainerState(global_step=step), TrainerControl(), logs=logs)
