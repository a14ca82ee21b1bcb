"""The callback that validates at the report steps and asks the worker whether to go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpsearch.bridge.protocol import Progress, Reported
from hpsearch.spec.evaluation import is_better
from hpsearch.train.channel import Channel
from hpsearch.trial import HistoryPoint, Outcome, Report

_SECONDS_BETWEEN_PROGRESS = 0.3


def report_steps(num_steps: int, num_reports: int) -> dict[int, int]:
    """Optimizer step → report number, evenly spaced and ending with the last step.

    With fewer steps than reports, a step carries the highest report number that falls on it.
    """
    return {math.ceil(num_steps * report / num_reports): report for report in range(1, num_reports + 1)}


class Reporter(TrainerCallback):
    """Validates at the report steps, asks the worker whether to go on, and saves what must survive a kill.

    It holds no trainer: a callback that did would keep the model alive in a cycle.
    """

    def __init__(
        self,
        channel: Channel,
        objective: str,
        num_reports: int,
        num_steps: int,
        note_host: Callable[[], None],
        save_best: Callable[[], None] | None,
        history: Path,
    ) -> None:
        self._channel = channel
        self._objective = objective
        self._num_reports = num_reports
        self._num_steps = num_steps
        self._steps = report_steps(self._num_steps, num_reports)
        self._note_host = note_host
        self._save_best = save_best
        self._history = history
        self._steps_before = 0
        self._reports_before: list[Report] = []
        self._last_progress = 0.0
        self._loss: float | None = None
        self.reports: list[Report] = []
        self.outcome = Outcome.COMPLETE
        self.step = 0

    def begin_stage(self, steps_before: int, reports_before: list[Report]) -> None:
        self._steps_before = self.step = steps_before
        self.reports = self._reports_before = reports_before

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Finds the reports again that were made before a checkpoint."""
        del args, control
        self.reports = [
            *self._reports_before,
            *(
                _report(self._steps[self._whole(entry["step"])], entry)
                for entry in state.log_history
                if "eval_loss" in entry and self._whole(entry["step"]) in self._steps
            ),
        ]
        self._send_progress(state)

    def _whole(self, step: int) -> int:
        """A stage's step, counted from the start of the whole run."""
        return self._steps_before + step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        del args
        if logs and "loss" in logs:
            self._loss = float(logs["loss"])
            point = HistoryPoint(
                step=self._whole(state.global_step), loss=self._loss, learning_rate=float(logs["learning_rate"])
            )
            with self._history.open("a") as history:
                history.write(point.model_dump_json() + "\n")
            if not math.isfinite(self._loss):
                upcoming = min((step for step in self._steps if step >= self._whole(state.global_step)), default=0)
                self._end(Outcome.DIVERGED, control)
                self.reports.append(Report(step=self._steps.get(upcoming, self._num_reports), loss=math.nan))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args
        self.step = self._whole(state.global_step)
        self._note_host()
        self._send_progress(state)
        control.should_evaluate = self._whole(state.global_step) in self._steps
        if self._channel.checkpoint_wanted and self._whole(state.global_step) < self._num_steps:
            # Behind a checkpoint of the last step transformers (5.23) trains on to the epoch's next step.
            control.should_save = state.global_step < state.max_steps
            self._end(Outcome.STOPPED, control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        del args
        assert metrics is not None
        at = self._whole(state.global_step)
        report = _report(self._steps[at], metrics)
        value = report.value(self._objective) if math.isfinite(report.loss) else None
        is_best = value is not None and not any(
            not is_better(self._objective, value, earlier.value(self._objective)) for earlier in self.reports
        )
        self.reports.append(report)
        if not math.isfinite(report.loss):
            self._end(Outcome.DIVERGED, control)
            return
        if is_best and self._save_best:
            self._save_best()
        control.should_save = state.global_step < state.max_steps
        goes_on = self._channel.report(
            Reported(step=report.step, num_reports=self._num_reports, loss=report.loss, metrics=report.metrics)
        )
        if not goes_on and at < self._num_steps:
            self._end(Outcome.PRUNED, control)

    def _end(self, outcome: Outcome, control: TrainerControl) -> None:
        self.outcome = outcome
        control.should_training_stop = True

    def _send_progress(self, state: TrainerState) -> None:
        now = time.monotonic()
        at = self._whole(state.global_step)
        if now - self._last_progress >= _SECONDS_BETWEEN_PROGRESS or at == self._num_steps:
            self._last_progress = now
            loss = self._loss if self._loss is not None and math.isfinite(self._loss) else None
            self._channel.send(Progress(step=at, num_steps=self._num_steps, loss=loss))


def _report(number: int, logged: dict[str, float]) -> Report:
    values = {name.removeprefix("eval_"): value for name, value in logged.items() if name.startswith("eval_")}
    return Report(step=number, loss=values.pop("loss"), metrics=values)
