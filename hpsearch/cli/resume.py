"""`hpsearch resume`: trials of a paused study begin again."""

from __future__ import annotations

from hpsearch.cli.options import StoreOption, StudyArgument
from hpsearch.opening.places import change_store, find_study


def resume(study: StudyArgument, store: StoreOption = None) -> None:
    """Let a paused study start trials again."""
    from hpsearch.search.view import read_view
    from hpsearch.watch.console import open_console

    console = open_console()
    with change_store(store) as opened:
        found = find_study(opened, study)
        num_failures = len(read_view(opened, found).failed)
        with opened.reaching():
            reason = opened.orders.resume(found.study_id, num_failures)
    if reason is None:
        console.print(f"{study} is not paused", soft_wrap=True)
        return
    console.print(f"{study} was paused: {reason}", soft_wrap=True)
    console.print("trials may start again; start workers with hpsearch run, worker or launch", soft_wrap=True)
