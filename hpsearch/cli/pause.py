"""`hpsearch pause`: no trial of a study begins until `hpsearch resume`."""

from __future__ import annotations

from hpsearch.cli.options import StoreOption, StudyArgument
from hpsearch.opening.places import change_store, find_study


def pause(study: StudyArgument, store: StoreOption = None) -> None:
    """Let running trials end, and start no others until resume; the workers leave."""
    from hpsearch.search.view import read_view
    from hpsearch.watch.console import open_console

    console = open_console()
    with change_store(store) as opened:
        found = find_study(opened, study)
        view = read_view(opened, found)
        has_workers = bool(view.live_workers)
        with opened.reaching():
            is_new = opened.orders.pause(found.study_id, "by hpsearch pause")
    if not is_new:
        console.print(f"{study} is paused already: {found.paused}", soft_wrap=True)
        return
    if view.is_finished:
        console.print(f"{study} is finished; trials that are added to it will not begin", soft_wrap=True)
    workers = ": workers finish their current trials, then exit" if has_workers else "; it has no worker now"
    console.print(f"{study} is paused{workers}", soft_wrap=True)
    console.print(f"hpsearch resume {study} lets trials start again", soft_wrap=True)
