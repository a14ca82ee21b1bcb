"""How long a study will take and what it will need: a table, the words below it, and one line of the same."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpsearch.data.split import subset
from hpsearch.spec import StudySpec
from hpsearch.spec.search import NoPruner
from hpsearch.study.estimate import Estimate, Training, num_steps
from hpsearch.study.open import num_trials
from hpsearch.study.prepare import PreparedStudy
from hpsearch.watch.words import format_bytes, format_count, format_num_steps, format_time, format_trials


def estimate_table(spec: StudySpec, found: Estimate, storage: Path) -> RenderableType:
    table = Table(title=f"{spec.study}: estimate", title_justify="left", box=None, header_style="bold")
    trial, final = found.trial, found.final
    times = format_time(trial.seconds), f"up to about {format_time(found.search_s)}", format_time(final.seconds)
    table.add_column("")
    for heading, time in zip(("a trial", format_trials(found.trials), "the final training"), times, strict=True):
        table.add_column(heading, justify="right", min_width=len(time))
    for name, of_trial, of_final in (
        (f"optimizer steps (batch size {spec.training.batch_size})", trial.steps, final.steps),
        ("rows", trial.rows, final.rows),
        ("tokens", trial.tokens, final.tokens),
    ):
        table.add_row(name, *map(format_count, (of_trial, of_trial * found.trials, of_final)))
    table.add_row("time", times[0], Text(times[1], style="bold"), times[2])
    return Group(table, *(Text(line) for line in _below(spec, found, storage)), Text())


def estimate_line(found: Estimate) -> str:
    trial, final = _time(found.trial), _time(found.final)
    return (
        f"how long: a trial {trial}, {format_trials(found.trials)} up to about {format_time(found.search_s)} on "
        f"{_devices(found.devices)}, the final training {final}, both with loading; {_needs(found)} ({_source(found)})"
    )


def steps_line(spec: StudySpec, prepared: PreparedStudy) -> str:
    """What is known before any measurement."""
    steps, _ = num_steps(spec, spec.budget, subset(prepared.splits["train"], spec.budget.train_fraction))
    return (
        f"how long: {format_trials(num_trials(spec))} of {format_num_steps(steps)}; their time is measured on a few "
        "of them when hpsearch run begins, or now with hpsearch show --measure"
    )


def _time(training: Training) -> str:
    return f"{format_time(training.seconds)} ({format_num_steps(training.steps)})"


def _below(spec: StudySpec, found: Estimate, storage: Path) -> list[str]:
    loading = format_time(found.measured.start_s + found.measured.fit_s)
    lines = [f"on {_devices(found.devices)}; {_needs(found)}", _source(found)]
    lines.append(f"the last two times include {loading} to start the trainer and load the base")
    if found.matters:
        lines.append(f"other values of {', '.join(found.matters)} make a trial shorter or longer")
    if not isinstance(spec.searched.pruner, NoPruner):
        lines.append("this assumes that no trial is pruned: pruning makes it shorter")
    free = shutil.disk_usage(storage).free
    if free < found.disk_bytes:
        lines.append(
            f"careful: {storage} has {format_bytes(free)} free, which is less than the {format_bytes(found.disk_bytes)}"
            " of disk that this takes: make room, or set HPSEARCH_STORAGE to a folder on a larger disk"
        )
    return lines


def _needs(found: Estimate) -> str:
    return f"{format_bytes(found.measured.memory_bytes)} of memory a trial, {format_bytes(found.disk_bytes)} of disk"


def _source(found: Estimate) -> str:
    measured = found.measured
    what = f"{format_num_steps(measured.num_steps)} with the file's own values"
    return f"measured in {format_time(measured.took_s)} on {measured.device}: {what}"


def _devices(number: int) -> str:
    return f"{number} device{'' if number == 1 else 's'}"
