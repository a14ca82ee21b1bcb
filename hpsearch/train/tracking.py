"""Following a run in TensorBoard, MLflow or Weights & Biases, through transformers' own callbacks.

Training never waits for a tracker: each has a thread that is given what the run says and sends it on. A tracker that
doesn't answer gets one line in the job's log and asked again every few seconds; of a slow one, log lines are left
out. Only the end of a run waits for its trackers, for a limited time. The thread is there for one run alone, so that a
warm process holds nothing of it afterwards.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpsearch.folders import JobFolder
from hpsearch.spec.study import flat
from hpsearch.spec.tracking import TrackerName
from hpsearch.train.trackers import MlflowTracker, TensorBoardTracker, Tracker, WandbTracker
from hpsearch.trial import Outcome, TrialConfig, TrialResult

RETRY_S = 10.0
_LAST_WORDS_S = 60.0
"""How long a run that has ended waits for all of its trackers to receive the rest."""
_STOPPED_S = 5.0
"""The same for a run that was stopped, or whose worker is asked to leave: its machine may be taken away."""
_LOOK_EVERY_S = 1.0
_MOST_WAITING = 10_000
"""Log lines that wait for a tracker."""
_NOT_A_STUDY_S = ("MLFLOW_RUN_ID", "MLFLOW_NESTED_RUN", "WANDB_RUN_ID", "WANDB_LOG_MODEL", "WANDB_WATCH")
"""Variables of the trackers that a trainer removes: they name a single run, or upload the model."""
TRACKERS: dict[TrackerName, Callable[[], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MlflowTracker,
    "wandb": WandbTracker,
}


class Tracking(TrainerCallback):
    """One run's trackers, through all of its stages: start ─► for each stage: begin_stage, on_log … ─► end.

    It keeps no reference to a trainer or a model, and never raises.
    """

    def __init__(self, config: TrialConfig, folder: JobFolder) -> None:
        self._config = config
        self._folder = folder
        self._steps_before = 0
        self._lines: list[_Line] = []

    def start(self) -> None:
        """Called once the memory ledger is open: the trackers' memory counts as the run's."""
        run = self._config.tracking
        if run is None or self._lines:
            return
        for name in _NOT_A_STUDY_S:
            os.environ.pop(name, None)
        self._lines = [_Line(name, TRACKERS[name]()) for name in dict.fromkeys(run.trackers)]
        parameters = parameters_of(self._config)
        for line in self._lines:
            line.begin(lambda tracker: tracker.begin(run, parameters, self._folder))

    def begin_stage(self, steps_before: int) -> None:
        self._steps_before = steps_before

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        del args, control
        step, values = self._steps_before + state.global_step, dict(logs or {})
        for line in self._lines:
            line.log(lambda tracker: tracker.log(step, values))

    def end(self, result: TrialResult, is_urgent: Callable[[str], bool] = lambda _: False) -> list[str]:
        """Reports the run's end; returns what could not be ended, for the memory ledger.

        `is_urgent` is called about once a second with what is waited for, and says whether the worker shall leave.
        """
        self.start()  # a run that ended before its base was loaded is reported too
        values = values_of(self._config, result)
        for line in self._lines:
            line.end(lambda tracker: tracker.end(result.outcome, result.reason, values))
        left = self._wait(lambda what: is_urgent(what) or result.outcome is Outcome.STOPPED)
        self._lines = []
        return [f"the thread of {line.name}" for line in left]

    def _wait(self, is_urgent: Callable[[str], bool]) -> list[_Line]:
        """For all of them together; returns those that did not end in time."""
        began = time.monotonic()
        while left := [line for line in self._lines if not line.is_over(0.0)]:
            hurries = is_urgent(f"waiting for {', '.join(line.name for line in left)}")
            rest_s = began + (_STOPPED_S if hurries else _LAST_WORDS_S) - time.monotonic()
            if rest_s <= 0:
                break
            left[0].is_over(min(_LOOK_EVERY_S, rest_s))
        return left


class _Line:
    """One tracker, and the thread that calls it."""

    def __init__(self, name: TrackerName, tracker: Tracker) -> None:
        self.name = name
        self._tracker = tracker
        self._told: SimpleQueue[Callable[[Tracker], None] | None] = SimpleQueue()
        self._is_ending = Event()
        self._has_complained = False
        self._is_given_up = False
        self._is_behind = False
        self._thread = Thread(target=self._work, name=f"tracker-{name}", daemon=True)

    def begin(self, call: Callable[[Tracker], None]) -> None:
        self.tell(call)
        self._thread.start()

    def tell(self, call: Callable[[Tracker], None]) -> None:
        self._told.put(call)

    def log(self, call: Callable[[Tracker], None]) -> None:
        if self._told.qsize() < _MOST_WAITING:
            self.tell(call)
        elif not self._is_behind:
            self._is_behind = True
            print(f"{self.name} is {_MOST_WAITING} log lines behind: lines are left out of it", flush=True)

    def end(self, call: Callable[[Tracker], None]) -> None:
        self.tell(call)
        self._told.put(None)
        self._is_ending.set()

    def is_over(self, patience_s: float) -> bool:
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._told.get()) is not None:
            while not self._is_given_up and not self._is_done(lambda: call(self._tracker)):
                self._is_given_up = self._is_ending.wait(RETRY_S)
        self._is_done(self._tracker.close)

    def _is_done(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as error:
            if not self._has_complained:
                self._has_complained = True
                print(f"{self.name} can't be told of this run, which goes on without: {_in_words(error)}", flush=True)
            return False
        return True


def parameters_of(config: TrialConfig) -> dict[str, Any]:
    """Dotted name → value, as in a study file."""
    sections = config.model_dump(mode="json", include={"task", "model", "lora", "training", "budget", "curriculum"})
    return {name: value for name, value in flat(sections).items() if value not in (None, [])}


def values_of(config: TrialConfig, result: TrialResult) -> dict[str, float]:
    """The run's values of the objectives, by name; empty where it never reported."""
    report = result.report_that_counts(config.objectives[0])
    return {f"value_{each.name}": report.value(each) for each in config.objectives} if report else {}


def _in_words(error: Exception) -> str:
    """One line without secrets: connection errors contain their address, and that may hold a password."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and re.search("KEY|TOKEN|PASSWORD|SECRET", name.upper()):
            text = text.replace(value, "…")
    return re.sub(r"//[^/\s@]*@", "//…@", text)[:_LONGEST]


_SHORTEST_SECRET = 6
_LONGEST = 500
