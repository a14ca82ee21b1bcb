"""`hpsearch stop`: every worker of a study, on whatever machine, saves its trial and leaves."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.options import StoreOption, StudyArgument
from hpsearch.opening.places import change_store, find_study


def stop(
    study: StudyArgument,
    now: Annotated[bool, typer.Option("--now", help="exit without saving; keep the last checkpoint")] = False,
    store: StoreOption = None,
) -> None:
    """Ask all workers of a study, on every machine, to save their trials and leave."""
    from hpsearch.launch.roll import call_roll, dismiss
    from hpsearch.search.view import read_view
    from hpsearch.watch.console import open_console

    console = open_console()
    with change_store(store) as opened:
        found = find_study(opened, study)
        num_workers = len(read_view(opened, found).live_workers)
        num_jobs = sum(len(called.there) for called in call_roll(opened, found.study_id))
        with opened.reaching():
            opened.orders.stop(found.study_id, now=now)
        for silence in dismiss(opened, found.study_id, now=now):
            console.print(f"jobs that could not be asked: {silence}", soft_wrap=True)
    if num_jobs:
        jobs = "1 job is" if num_jobs == 1 else f"{num_jobs} jobs are"
        console.print(f"{jobs} ended: waiting jobs now, running jobs when their worker exits", soft_wrap=True)
    if not num_workers:
        console.print(f"{study} has no worker now", soft_wrap=True)
        return
    workers = "1 worker is" if num_workers == 1 else f"{num_workers} workers are"
    console.print(f"{workers} asked to {'exit at once' if now else 'save and leave'}", soft_wrap=True)
    console.print(f"hpsearch status {study} shows who is still there; no trial is lost", soft_wrap=True)
