"""`hpsearch store`: look the store through, copy it, bring its tables up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.options import StoreOption, Verb
from hpsearch.opening.places import storage_folder, store_url

store = typer.Typer(no_args_is_help=True, help="Check, copy and upgrade the store.")


@store.command("check", cls=Verb)
def check(store: StoreOption = None) -> None:
    """Check the store: its file, its tables, its studies; and show how to fix what is wrong."""
    from hpsearch.store.check import check_store
    from hpsearch.watch.console import open_console
    from hpsearch.watch.tables import checks_table

    checks = check_store(store_url(store), storage_folder().artifacts)
    open_console().print(checks_table(checks))
    if any(found.verdict == "fails" for found in checks):
        raise typer.Exit(1)


@store.command("backup", cls=Verb)
def backup(
    file: Annotated[Path, typer.Argument(help="file for the copy; it must not exist yet", show_default=False)],
    store: StoreOption = None,
) -> None:
    """Copy an SQLite store while workers run; for other databases, print the command to use."""
    from hpsearch.store.backup import back_up
    from hpsearch.trial import MIB
    from hpsearch.watch.console import open_console

    size_bytes = back_up(store_url(store), file)
    open_console().print(f"{file}: {size_bytes / MIB:.1f} MiB; it opens with --store sqlite:///{file}", soft_wrap=True)


@store.command("upgrade", cls=Verb)
def upgrade(store: StoreOption = None) -> None:
    """Bring Optuna's and hpsearch's tables up to date; an SQLite file is copied first."""
    from hpsearch.store.upgrade import upgrade_store
    from hpsearch.watch.console import open_console

    console = open_console()
    for line in upgrade_store(store_url(store)):
        console.print(line, soft_wrap=True)
