"""`hpsearch status`: studies, trials, workers, the best so far."""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.completion import study_names
from hpsearch.cli.options import StoreOption
from hpsearch.opening.places import find_study, look_at_store, storage_folder, store_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from hpsearch.launch.roll import Roll
    from hpsearch.store import Store

_LOOK_EVERY_S = 1.0


def status(
    study: Annotated[
        str | None,
        typer.Argument(help="one study in detail; default: all", show_default=False, autocompletion=study_names),
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(help="of --plots; default: storage/plots/STUDY", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="keep updating until Ctrl-C")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print JSON for programs; with --watch one line per second")
    ] = False,
    plots: Annotated[
        bool, typer.Option("--plots", help="draw the study as it is now into FOLDER, as PNG and SVG")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Show the progress of every study, and what each worker is doing."""
    if plots or folder:
        _draw(store, study, folder, is_asked=plots, is_alone=not (watch or as_json))
        return
    if as_json:
        _tell_programs(store, study, watch)
        return
    from rich.text import Text

    from hpsearch.errors import NoStoreYet
    from hpsearch.launch.roll import Roll
    from hpsearch.watch.console import open_console

    console = open_console()
    try:
        opened = look_at_store(store)
    except NoStoreYet as nothing:
        if study is not None or watch:
            raise
        console.print(Text(str(nothing)), soft_wrap=True)
        return
    with opened:
        roll = Roll(opened)
        if not watch:
            console.print(_picture(opened, roll, study))
            return
        _keep_showing(console, lambda: _picture(opened, roll, study))


def _keep_showing(console: Console, look: Callable[[], RenderableType]) -> None:
    """In a pipe, where nothing can be drawn over: again whenever it has changed."""
    from rich.live import Live

    if console.is_terminal:
        with Live(look(), console=console, auto_refresh=False) as live:
            while True:
                live.update(look(), refresh=True)
                sleep(_LOOK_EVERY_S)
    shown = ""
    while True:
        with console.capture() as captured:
            console.print(look())
        if captured.get() != shown:
            print(f"\n{captured.get()}" if shown else captured.get(), end="", flush=True)
            shown = captured.get()
        sleep(_LOOK_EVERY_S)


def _draw(url: str | None, study: str | None, folder: Path | None, *, is_asked: bool, is_alone: bool) -> None:
    from hpsearch.errors import InputError
    from hpsearch.search.view import read_view
    from hpsearch.watch.console import open_console
    from hpsearch.watch.pictures import draw_to_look_at

    if not is_asked:
        raise InputError(f"{folder}: a folder goes with --plots, which draws a study into it")
    if study is None or not is_alone:
        raise InputError("--plots draws one study, once: hpsearch status STUDY --plots [FOLDER]")
    console = open_console()
    with look_at_store(url) as opened:
        view = read_view(opened, find_study(opened, study))
        for line in draw_to_look_at(opened, view, folder or storage_folder().plots(study)):
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def _tell_programs(url: str | None, study: str | None, watch: bool) -> None:
    """Same exit codes as without --json; messages go to standard error, so that only JSON is printed."""
    from hpsearch.errors import NoStoreYet
    from hpsearch.launch.roll import Roll
    from hpsearch.store.engine import named
    from hpsearch.watch.status import no_status, read_status

    try:
        opened = look_at_store(url)
    except NoStoreYet:
        if study is not None or watch:
            raise
        print(no_status(named(store_url(url))).to_json(indent=2))
        return
    with opened:
        roll = Roll(opened)
        while True:
            found = None if study is None else find_study(opened, study)
            print(read_status(opened, roll, found).to_json(indent=None if watch else 2), flush=True)
            if not watch:
                return
            sleep(_LOOK_EVERY_S)


def _picture(store: Store, roll: Roll, name: str | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from hpsearch.search.view import read_view
    from hpsearch.store.reading import nothing_yet
    from hpsearch.watch.jobs import jobs_parts
    from hpsearch.watch.tables import studies_table, study_panel, workers_table

    if name is not None:
        view = read_view(store, find_study(store, name))
        called = roll.of(view.study.study_id)
        return Group(study_panel(view), *jobs_parts(called, is_finished=view.is_finished))
    with store.reaching():
        known, unreadable = store.studies.all(), store.studies.unreadable()
    if not known and not unreadable:
        return Text(str(nothing_yet(store.url)))
    views = [read_view(store, study) for study in known]
    parts: list[RenderableType] = [studies_table(views)] if views else []
    parts += [Text(f"{study.name} {study.reason}", style="red") for study in unreadable]
    if workers := [worker for view in views for worker in view.live_workers]:
        parts += [Text(), workers_table(workers)]
    for view in views:
        parts += jobs_parts(roll.of(view.study.study_id), is_finished=view.is_finished)
    return Group(*parts)
