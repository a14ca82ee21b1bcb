"""`hpsearch pause`: no trial of a study begins until `hpsearch resume`."""

from __future__ import annotations

from hpsearch.cli.options import StoreOption, StudyArgument, change_store, find_study


def pause(study: StudyArgument, store: StoreOption = None) -> None:
    """Let running trials end, and start no others until resume; the workers leave."""
    from hpsearch.watch.console import open_console

    console = open_console()
    with change_store(store) as opened:
        found = find_study(opened, study)
        with opened.reaching():
            is_new = opened.orders.pause(found.study_id, "paused with hpsearch pause")
    if not is_new:
        console.print(f"{study} is paused already: {found.paused}", soft_wrap=True)
        return
    console.print(f"{study} is paused: workers finish their current trials, then exit", soft_wrap=True)
    console.print(f"hpsearch resume {study} lets trials start again", soft_wrap=True)
