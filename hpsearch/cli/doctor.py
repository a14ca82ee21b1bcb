"""`hpsearch doctor`: what works on this machine and what doesn't."""

from __future__ import annotations

import typer

from hpsearch.cli.options import StoreOption, telling
from hpsearch.opening.places import open_mirror, open_store, storage_folder
from hpsearch.opening.trainers import plain_starter


def doctor(store: StoreOption = None) -> None:
    """Check what works on this machine, and show how to fix what doesn't."""
    from hpsearch.results.doctor import examine
    from hpsearch.watch.console import open_console
    from hpsearch.watch.tables import checks_table

    console = open_console()
    with telling(console) as tell:
        checks = examine(storage_folder(), lambda: open_store(store), open_mirror, plain_starter("doctor"), tell)
    console.print(checks_table(checks))
    if any(check.verdict == "fails" for check in checks):
        raise typer.Exit(1)
