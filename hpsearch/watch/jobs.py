"""Showing launched workers: which of the engines' jobs wait, run or are gone, and why."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hpsearch.launch.launcher import JobState
from hpsearch.launch.roll import Called

_COLOURS = {
    JobState.PENDING: "yellow",
    JobState.RUNNING: "cyan",
    JobState.REQUEUED: "yellow",
    JobState.GONE: "bright_black",
    JobState.UNKNOWN: "magenta",
}


def jobs_parts(called: list[Called], *, is_finished: bool) -> list[RenderableType]:
    """Launches that still run; and the last one if it has ended before the study: it shows why."""
    shown = [each for each in called if not each.is_over]
    if not shown and called and not is_finished:
        shown = called[-1:]
    parts: list[RenderableType] = []
    if any(each.jobs for each in shown):
        parts += [Text(), _table(shown)]
    for each in shown:
        if each.silence is not None:
            line = f"{len(each.launch.jobs)} jobs on {each.launch.engine} can't be queried: {each.silence}"
            parts.append(Text(line, style="magenta"))
    return parts


def _table(called: list[Called]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("job", "on", "state", "node"):
        table.add_column(heading, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for each in called:
        for job in each.jobs:
            state = Text(job.state, style=_COLOURS[job.state])
            name = job.job_id.partition("@")[0]
            table.add_row(Text(name), each.launch.engine, state, Text(job.node), Text(job.reason))
    return table
