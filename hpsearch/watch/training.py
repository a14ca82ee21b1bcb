"""Watching the final training: a bar with the loss on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hpsearch.bridge.protocol import Phase, Reported
from hpsearch.bridge.protocol import Progress as StepProgress
from hpsearch.spec.metrics import LOSS, Metric
from hpsearch.watch.console import show_phase
from hpsearch.watch.words import format_metric

_LINES_PER_RUN = 20


class TrainingDisplay:
    """Use as a context manager; give `tell` and `watch` to the function that runs the training."""

    def __init__(self, console: Console, objectives: Sequence[Metric]) -> None:
        self._console = console
        self._objectives = [objective for objective in objectives if objective != LOSS]
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(40),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bar.add_task("starting", total=None, count="", note="")
        self._last_line = ""

    def tell(self, name: str, done: int, total: int) -> None:
        self._show(name, done, total, "")

    def watch(self, event: Phase | StepProgress | Reported) -> None:
        match event:
            case Phase(name=name, done=done, total=total):
                self.tell(name, done, total)
            case StepProgress(step=step, num_steps=num_steps, loss=loss):
                self._show("training", step, num_steps, f"loss {loss:.4f}" if loss is not None else "")
            case Reported(step=step, num_reports=num_reports, loss=loss, metrics=metrics):
                values = [f"{one.title} {format_metric(one, metrics.get(one.name))}" for one in self._objectives]
                self._console.print(f"validation {step}/{num_reports}: {', '.join([f'loss {loss:.4f}', *values])}")

    def _show(self, name: str, done: int, total: int, note: str) -> None:
        show_phase(self._bar, name, done, total, note)
        self._line(name, done, total, note)

    def _line(self, name: str, done: int, total: int, note: str) -> None:
        if self._console.is_terminal:
            return
        part = f"{name} {_LINES_PER_RUN * done // total if total else ''}"
        if part != self._last_line:
            self._last_line = part
            count = f" {done}/{total}" if total else ""
            self._console.print(f"{name}{count} {note}".rstrip())

    def __enter__(self) -> TrainingDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
