"""Following a study until it ends: a live screen on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live

from hpsearch.errors import StoreUnreachable
from hpsearch.search.view import StudyView, TrialView
from hpsearch.spec.metrics import LOSS
from hpsearch.watch.tables import format_others, study_panel
from hpsearch.watch.words import format_loss, format_metric, format_params, format_reason, format_time

_SECONDS_BETWEEN_LINES = 10.0
_FEWEST = 4
"""Trials on a live screen."""


class Follower:
    """Shows views as they change. Use as a context manager."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._told: set[int] = set()
        self._doing: dict[str, str] = {}
        """Worker → the last line about it: where nothing has changed, it is not repeated."""
        self._last_line_at = clock()
        self._is_first = True
        self._is_cut_off = False

    def look(self, read: Callable[[], StudyView]) -> None:
        """Shows what `read` returns. If the store can't be reached, says so once and keeps the last view."""
        try:
            self.show(read())
            self._is_cut_off = False
        except StoreUnreachable as error:
            if not self._is_cut_off:
                self._say(f"{error}; the workers continue")
            self._is_cut_off = True

    def show(self, view: StudyView) -> None:
        if self._live:
            self._live.update(self._panel(view), refresh=True)
        else:
            self._print_news(view)

    def _panel(self, view: StudyView) -> RenderableType:
        """With as many trials as there is room for: what a screen has no room for at its end, the workers, is cut off.
        A trial with many parameters takes several lines.
        """
        rows = max(_FEWEST, self._console.height - 8 - len(view.live_workers))
        panel = study_panel(view, rows=rows)
        while rows > _FEWEST and (over := len(self._console.render_lines(panel)) - self._console.height) > 0:
            rows = max(_FEWEST, rows - max(1, over // 2))
            panel = study_panel(view, rows=rows)
        return panel

    def _print_news(self, view: StudyView) -> None:
        finished = [trial for trial in view.trials if trial.is_finished]
        if self._is_first:  # a resumed study does not repeat its past
            self._told = {trial.number for trial in finished}
            self._is_first = False
        for trial in finished:
            if trial.number not in self._told:
                self._told.add(trial.number)
                self._say(_format_trial(trial, view))
        if self._clock() - self._last_line_at >= _SECONDS_BETWEEN_LINES:
            for worker in view.live_workers:
                doing = worker.activity
                count = f" {doing.done}/{doing.total}" if doing.total else ""
                trial_number = "" if doing.trial is None else f"trial {doing.trial}: "
                loss = f", loss {format_loss(doing.loss)}" if doing.loss is not None else ""
                line = f"  {trial_number}{doing.doing}{count}{loss}"
                if self._doing.get(worker.worker_id) != line:
                    self._doing[worker.worker_id] = line
                    self._say(line)

    def _say(self, line: str) -> None:
        self._last_line_at = self._clock()
        self._console.print(line, soft_wrap=True)

    def __enter__(self) -> Follower:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()


def _format_trial(trial: TrialView, view: StudyView) -> str:
    values = format_params(trial.params)
    value = format_metric(view.objective, trial.value)
    loss = f" {'loss' if view.objective == LOSS else view.objective.title} {value}" if value else ""
    titles = [objective.title for objective in view.study.spec.objectives[1:]]
    loss += "".join(
        f", {title} {words}" for title, words in zip(titles, format_others(view, trial), strict=True) if words
    )
    time_taken = f" in {format_time(trial.seconds)}" if trial.seconds else ""
    memory = trial.facts.get("ledger.peak_device_gib") or trial.facts.get("ledger.peak_host_gib")
    held = f", {memory:.2f} GiB" if memory else ""
    left = view.seconds_left()
    rest = f"; about {format_time(left)} left at this pace" if left is not None and not view.is_finished else ""
    reason = "" if trial.outcome == "complete" else format_reason(trial.facts)
    why = f": {reason}" if reason else ""
    best = " (best so far)" if view.best and view.best.number == trial.number else ""
    return (
        f"[{view.slots.finished}/{view.slots.wanted}] trial {trial.number} {trial.outcome}{loss}{best}"
        f"{time_taken}{held}{why} | {values}{rest}"
    )
