"""The callback that reports at the report steps, asks the worker whether to go on, and says when to save.

a report    checkpoint ─► validation ─► journal ─► the worker is asked ─► on, or out
a stop      looked at after each step, between validation batches and after each answer: out with a checkpoint
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpsearch.bridge.protocol import Began, Progress, Reported
from hpsearch.files import append_line, write_lines
from hpsearch.folders import JobFolder
from hpsearch.spec.metrics import LOSS, Metric
from hpsearch.train.channel import Channel
from hpsearch.train.stopwatch import Stopwatch
from hpsearch.trial import HistoryPoint, Outcome, Report, best_report

SECONDS_BETWEEN_CHECKPOINTS = 600.0
_SECONDS_BETWEEN_PROGRESS = 0.3


def report_steps(num_steps: int, num_reports: int) -> dict[int, int]:
    """Optimizer step → report number, evenly spaced and ending with the last step.

    With fewer steps than reports, a step gets the highest report number that falls on it.
    """
    return {math.ceil(num_steps * report / num_reports): report for report in range(1, num_reports + 1)}


class Reporter(TrainerCallback):
    """Exchanges a run's messages with the worker, and writes what must survive a kill: journal and history.
    transformers calls it at each step, log line and validation; it answers through `TrainerControl` whether to
    validate, save or stop.

    One for a whole run. Its stages count their steps from zero, and `begin_stage` says how many came before:

    begin ─► for each stage: begin_stage ─► (at a checkpoint: resume, ask_again) ─► on_train_begin … on_evaluate

    Afterwards `outcome`, `reports` and `step` hold its result. It has no reference to a trainer, which would keep the
    model alive in a cycle.

    Raises:
        OSError: a line of the journal or the history can't be written. Without its journal a report would be lost.
    """

    def __init__(
        self,
        channel: Channel,
        folder: JobFolder,
        objective: Metric,
        num_reports: int,
        num_steps: int,
        note_host: Callable[[], None],
        save_best: Callable[[], None] | None,
        clock: Callable[[], float] = time.monotonic,
        watch: Stopwatch | None = None,
    ) -> None:
        self._channel = channel
        self._folder = folder
        self._objective = objective
        self._num_reports = num_reports
        self._num_steps = num_steps
        self._steps = report_steps(num_steps, num_reports)
        self._note_host = note_host
        self._save_best = save_best
        self.watch = watch or Stopwatch()
        """The time between two laps is not part of a step: here, a stage's beginning and the worker's answers."""
        self._clock = clock
        self._saved_at = clock()
        self._steps_before = 0
        self._last_told = -math.inf
        self._loss: float | None = None
        self.reports: list[Report] = []
        self.outcome = Outcome.COMPLETE
        self.step = 0
        """Optimizer steps of the whole run."""

    def begin(self, reports: list[Report]) -> None:
        """`reports` were made before the checkpoint that training continues from. Called once, before any stage."""
        self.reports = reports
        write_lines(self._folder.journal, reports)
        self._channel.send(Began(reports=reports))

    def begin_stage(self, steps_before: int) -> None:
        self._steps_before = self.step = steps_before

    def resume(self, step: int) -> bool:
        """At a checkpoint of the stage; returns whether a report is due there."""
        self.step = self._whole(step)
        return self.step in self._steps

    def _whole(self, step: int) -> int:
        """A stage's step, counted from the start of the whole run."""
        return self._steps_before + step

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, control
        self._send_progress(state)
        self.watch.begin_lap()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        del args
        loss = (logs or {}).get("loss")
        if logs and loss is not None:
            self.watch.end_lap("step_s")
            self._loss = float(loss)
            at = self._whole(state.global_step)
            point = HistoryPoint(step=at, loss=self._loss, learning_rate=float(logs["learning_rate"]))
            with self._folder.history.open("ab") as history:
                history.write(point.model_dump_json().encode() + b"\n")
            self._send_progress(state)  # transformers logs a step after its `on_step_end`: before, the loss is unknown
            if not math.isfinite(self._loss):
                upcoming = min((step for step in self._steps if step >= at), default=0)
                control.should_evaluate = control.should_save = False
                self._note(Report(step=self._steps.get(upcoming, self._num_reports), loss=math.nan))
                self._end(Outcome.DIVERGED, control)

    def fitting(self) -> None:
        self._channel.tell("trying how many rows fit", 0, 0)
        self.watch.begin_lap()

    def alive(self, state: TrainerState) -> None:
        """A sign of life between micro-batches: a step of many may take minutes."""
        self._send_progress(state)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, state, control
        self._channel.doing = "training"

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The optimizer makes its state in its first step. Fewer rows at once would not help: theirs is freed."""
        del args, state, control
        self._channel.doing = "updating the weights"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args
        self.step = self._whole(state.global_step)
        self._note_host()
        control.should_evaluate = self.step in self._steps
        control.should_save = self._clock() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS
        if self._channel.stop_wanted:
            control.should_evaluate, control.should_save = False, True
            self._end(Outcome.STOPPED, control)

    def saving(self) -> None:
        """A checkpoint is about to be written."""
        self._channel.tell("saving a checkpoint", 0, 0)
        self.watch.begin_lap()
        self._saved_at = self._clock()

    def validating(self, done: int, total: int, doing: str = "validating") -> bool:
        """Called between validation batches, and between rows of a person's own metric; returns whether to continue."""
        if self._channel.stop_wanted:
            self.outcome = Outcome.STOPPED
            return False
        if self._is_time_to_tell() or done == 0:
            self._channel.tell(doing, done, total)
        return True

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
        # transformers' `log` has added the epoch to them
        values = {name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")}
        report = Report(step=self._steps[at], loss=values.pop(LOSS.name), metrics=values)
        if self._save_best and self._is_best(report):
            self._save_best()
        self._note(report)
        if math.isfinite(report.loss):
            self._ask(report, at, control)
        else:
            self._end(Outcome.DIVERGED, control)
        self.watch.begin_lap()

    def ask_again(self, report: Report, control: TrainerControl) -> None:
        """Repeats a report that was made at exactly the checkpoint's step, before a kill."""
        self._note(report)
        self._ask(report, self.step, control)

    def _is_best(self, report: Report) -> bool:
        if not math.isfinite(report.loss):
            return False
        return best_report([*self.reports, report], self._objective) is report

    def _note(self, report: Report) -> None:
        self.reports.append(report)
        append_line(self._folder.journal, report)

    def _ask(self, report: Report, at: int, control: TrainerControl) -> None:
        goes_on = self._channel.report(
            Reported(step=report.step, num_reports=self._num_reports, loss=report.loss, metrics=report.metrics)
        )
        if at == self._num_steps:
            return
        if not goes_on:
            self._end(Outcome.PRUNED, control)
        elif self._channel.stop_wanted:
            self._end(Outcome.STOPPED, control)

    def _end(self, outcome: Outcome, control: TrainerControl) -> None:
        self.outcome = outcome
        control.should_training_stop = True

    def _is_time_to_tell(self) -> bool:
        now = time.monotonic()
        is_time = now - self._last_told >= _SECONDS_BETWEEN_PROGRESS
        if is_time:
            self._last_told = now
        return is_time

    def _send_progress(self, state: TrainerState) -> None:
        at = self._whole(state.global_step)
        if self._is_time_to_tell() or at == self._num_steps:
            loss = self._loss if self._loss is not None and math.isfinite(self._loss) else None
            self._channel.send(Progress(step=at, num_steps=self._num_steps, loss=loss))
