"""Tables for the terminal: a study's trials, what its workers do, and all studies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from hpsearch.jobs import Check
from hpsearch.search.facts import STARTED_OVER
from hpsearch.search.sharing import sharing
from hpsearch.search.view import StudyView, TrialView
from hpsearch.spec.metrics import LOSS
from hpsearch.store import StoredWorker
from hpsearch.trial import GIB
from hpsearch.watch.closing import format_usage
from hpsearch.watch.fitting import Fitting
from hpsearch.watch.words import format_loss, format_metric, format_params, format_reason, format_time, format_value

_COLOURS = {
    "complete": "green",
    "pruned": "yellow",
    "diverged": "magenta",
    "out of memory": "magenta",
    "failed": "red",
    "running": "cyan",
    "waiting": "bright_black",
}
_BLOCKS = "▁▂▃▄▅▆▇█"
_SHOWN_TRIALS = 24
_SHOWN_LOSSES = 3
_MORE = ("reports", "time", "memory")
"""Columns of the trials' table that a narrow terminal leaves out, the last ones first."""
_MORE_OF_STUDIES = ("workers", "running")
_SHORTEST_BAR = 20
"""Characters of a bar with its numbers."""
_FOLDED = {"worker": 6, "job": 6, "device": 5, "doing": 8, "progress": 8}
"""Columns of the workers table that a narrow terminal folds before others are cut, and their smallest width."""


def study_panel(view: StudyView, *, rows: int = _SHOWN_TRIALS) -> RenderableType:
    """One study: a progress bar, its trials (the latest, and always the best one), and its workers."""
    parts: list[RenderableType] = [Headline(view), *_standing(view)]
    parts.append(Fitting(_MORE, lambda without: trials_table(view, rows, without)))
    if view.live_workers:
        parts += [Text(), workers_table(view.live_workers)]
    return Group(*parts)


def _standing(view: StudyView) -> list[RenderableType]:
    """What a person should know before the table of trials."""
    lines: list[RenderableType] = []
    if view.study.paused is not None:
        lines.append(
            Text(f"paused: {view.study.paused}; hpsearch resume {view.study.name} continues it", style="yellow")
        )
    if view.reached_limit:
        lines.append(Text(f"no more trials start: {view.reached_limit}", style="yellow"))
    elif used := format_usage(view):
        lines.append(Text(used))
    if not view.is_finished and (shared := sharing(view)):
        lines.append(Text(shared))
    lines += [Text(line, style="yellow") for line in _started_over(view)]
    failed = [trial for trial in view.trials if trial.outcome == "failed" and "reason" in trial.facts]
    lines += [Text(f"trial {trial.number} failed: {format_reason(trial.facts)}", style="red") for trial in failed[-1:]]
    refused = {error for worker in view.live_workers for error in worker.activity.device_errors}
    lines += [Text(f"the driver refuses a card: {error}", style="yellow") for error in sorted(refused)]
    aside = {f"{worker.device} is set aside: {worker.aside}" for worker in view.workers if worker.aside}
    return [*lines, *(Text(line, style="red") for line in sorted(aside))]


def _started_over(view: StudyView) -> list[str]:
    lines = [
        f"trial {trial.number}, {trial.facts[STARTED_OVER]}" for trial in view.trials if STARTED_OVER in trial.facts
    ]
    more = [f"and {len(lines) - _SHOWN_LOSSES} more trials started over"] if len(lines) > _SHOWN_LOSSES else []
    return [*lines[-_SHOWN_LOSSES:], *more]


@dataclass(frozen=True)
class Headline:
    """A bar, and what there is to say of the whole study beside it, or below it where a line has no room for both."""

    view: StudyView

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        note, name = self._note(), self.view.study.name
        is_beside = len(name) + _SHORTEST_BAR + len(note) <= options.max_width
        bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        slots = self.view.slots
        bar.add_task(name, total=slots.wanted, completed=slots.finished, note=note if is_beside else "")
        yield bar
        if not is_beside:
            yield Text(note)

    def _note(self) -> str:
        view, left = self.view, self.view.seconds_left()
        parts = ["finished"] if view.is_finished else []
        parts += [f"about {format_time(left)} left at this pace"] if left is not None and not parts else []
        if view.best:
            parts.append(f"best {format_metric(view.objective, view.best.value)} (trial {view.best.number})")
        return "   ".join(parts)


def trials_table(view: StudyView, rows: int = _SHOWN_TRIALS, without: Collection[str] = ()) -> Table:
    """`without`: which of the columns in `_MORE` to leave out."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    value = "loss" if view.objective == LOSS else view.objective.title
    others = [objective.title for objective in view.study.spec.objectives[1:]]
    more = [name for name in _MORE if name not in without]
    for heading in ("trial", "outcome", value, *others, *more):
        table.add_column(heading, justify="left" if heading in ("outcome", "reports") else "right", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    begun = [trial for trial in view.trials if trial.has_begun]
    shown = begun[-rows:]
    if view.best and view.best not in shown:
        shown = [view.best, *shown[1:]]
    for trial in shown:
        table.add_row(*_trial_cells(view, trial, more))
    return table


def _trial_cells(view: StudyView, trial: TrialView, more: Collection[str]) -> list[RenderableType]:
    colour = _COLOURS.get(trial.outcome, "white")
    best = view.best is not None and trial.number == view.best.number
    texts = {
        "reports": sparkline(list(trial.reports.values())),
        "time": format_time(trial.seconds) if trial.seconds else "",
        "memory": _format_memory(trial),
    }
    return [
        Text(f"{'★ ' if best else ''}{trial.number}", style="bold" if best else ""),
        Text(trial.outcome, style=colour),
        Text(format_metric(view.objective, trial.value), style="bold" if best else ""),
        *(Text(words) for words in format_others(view, trial)),
        *(Text(texts[name]) for name in more),
        Text(format_params(trial.params)),
    ]


def format_others(view: StudyView, trial: TrialView) -> list[str]:
    """The values of the objectives after the first one; empty unless the trial is complete."""
    others = view.study.spec.objectives[1:]
    values = trial.values[1:] or (None,) * len(others)
    return [format_metric(objective, value) for objective, value in zip(others, values, strict=True)]


def _format_memory(trial: TrialView) -> str:
    device = trial.facts.get("ledger.peak_device_gib") or trial.facts.get("ledger.peak_host_gib")
    if device is None:
        return ""
    closes = "" if trial.facts.get("ledger.closes") else " leak"
    return f"{device:.2f} GiB{closes}"


def sparkline(values: list[float]) -> str:
    """Losses as a row of block characters, high to low."""
    finite = [value for value in values if abs(value) < float("inf")]
    if not finite:
        return "✗" if values else ""
    low, high = min(finite), max(finite)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0
    return "".join(_BLOCKS[round((value - low) * scale)] if abs(value) < float("inf") else "✗" for value in values)


def workers_table(workers: list[StoredWorker]) -> Table:
    has_jobs = any(worker.job for worker in workers)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("worker", *(["job"] if has_jobs else []), "device", "doing", "progress", "loss", "memory"):
        table.add_column(heading, no_wrap=heading not in _FOLDED, min_width=_FOLDED.get(heading), overflow="fold")
    for worker in workers:
        doing = worker.activity
        trial = "" if doing.trial is None else f"trial {doing.trial}: "
        memory = doing.device_bytes or doing.host_bytes
        table.add_row(
            ":".join(worker.worker_id.split(":")[:2]),
            *([(worker.job or "").partition("@")[0]] if has_jobs else []),
            worker.device,
            f"{trial}{doing.doing}",
            _bar(doing.done, doing.total),
            format_loss(doing.loss),
            f"{memory / GIB:.2f} GiB" if memory else "",
        )
    return table


def _bar(done: int, total: int, width: int = 10) -> str:
    if not total:
        return ""
    filled = round(width * done / total)
    return f"{'━' * filled}{'╌' * (width - filled)} {done}/{total}"


def studies_table(views: list[StudyView]) -> RenderableType:
    """One line for each; their descriptions below, which need the whole width."""
    table = Fitting(_MORE_OF_STUDIES, lambda without: _studies(views, without))
    described = [view.study for view in views if view.study.spec.description]
    lines = [Text(f"{study.name}: {study.spec.description}") for study in described]
    return Group(table, *([Text()] if lines else []), *lines)


def _studies(views: list[StudyView], without: Collection[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    headings = [name for name in ("study", "trials", "best", "workers", "running", "base") if name not in without]
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "base", overflow="fold")
    for view in views:
        best = f"{format_metric(view.objective, view.best.value)} (trial {view.best.number})" if view.best else ""
        texts = {
            "study": view.study.name,
            "trials": f"{view.slots.finished}/{view.slots.wanted}",
            "best": best,
            "workers": str(len(view.live_workers)),
            "running": str(sum(trial.outcome == "running" for trial in view.trials)),
            "base": view.study.spec.model.base,
        }
        table.add_row(*(texts[heading] for heading in headings))
    return table


def best_table(view: StudyView, trial: TrialView, values: dict[str, Any], defaults: dict[str, Any]) -> Table:
    """Each searched parameter: the best value beside the study file's own."""
    found = format_metric(view.objective, trial.value)
    title = f"trial {trial.number}, {view.objective.title} {found}" if found else f"trial {trial.number}"
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("parameter")
    table.add_column("best", justify="right", style="bold")
    table.add_column("in the study file", justify="right", style="bright_black")
    for knob, value in values.items():
        table.add_row(knob, format_value(value), format_value(defaults.get(knob)))
    return table


def front_table(view: StudyView) -> Table:
    """The trials on the Pareto front, for a choice when there are several objectives."""
    title = f"{len(view.front)} trials on the Pareto front: no other is better in every objective"
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("trial", justify="right")
    for objective in view.study.spec.objectives:
        table.add_column(objective.title, justify="right")
    table.add_column("parameters", overflow="fold")
    for trial in view.front:
        pairs = zip(view.study.spec.objectives, trial.values, strict=True)
        table.add_row(str(trial.number), *(format_metric(*pair) for pair in pairs), format_params(trial.params))
    return table


_VERDICTS = {"works": ("✓", "green"), "limited": ("!", "yellow"), "fails": ("✗", "red")}


def checks_table(checks: list[Check]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for most in (None, 20, None):
        table.add_column(max_width=most)
    for check in checks:
        sign, colour = _VERDICTS[check.verdict]
        table.add_row(Text(sign, style=colour), Text(check.name, style="bold"), Text(check.found))
        if check.fix:
            table.add_row("", "", Text(f"→ {check.fix}", style=colour))
    return table
