"""`hpsearch dashboard`: the stock optuna-dashboard, and TensorBoard for final runs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import StoreOption, open_store, storage_folder, telling

if TYPE_CHECKING:
    from rich.console import Console

    from hpsearch.folders import StorageFolder
    from hpsearch.store import Store


def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port of the dashboard")] = 8080,
    tensorboard_port: Annotated[int, typer.Option(min=1, max=65535, help="port of TensorBoard")] = 6006,
    host: Annotated[str, typer.Option(help="address to listen on; neither has a login, so mind who can reach it")] = (
        "127.0.0.1"
    ),
    store: StoreOption = None,
) -> None:
    """Open optuna-dashboard on the store, and TensorBoard on the final runs."""
    from hpsearch.watch.console import open_console
    from hpsearch.watch.dashboard import serve_dashboard, start_tensorboard

    console = open_console()
    storage = storage_folder()
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # what `kill`, systemd and Docker send
    with open_store(store) as opened:
        _draw(console, opened, storage)
        board = start_tensorboard(storage.runs, host, tensorboard_port)
        console.print(f"dashboard:   http://{host}:{port}")
        console.print(f"TensorBoard: http://{host}:{tensorboard_port}   (Ctrl-C ends both)")
        try:
            serve_dashboard(opened.optuna, storage.artifacts, host, port)
        finally:
            board.terminate()
            board.wait()


def _draw(console: Console, store: Store, storage: StorageFolder) -> None:
    """The pictures that studies lack, because their trials ended elsewhere or `hpsearch run` was stopped."""
    from hpsearch.search.view import read_view
    from hpsearch.watch.pictures import draw_study

    with store.reaching():
        known = store.studies.all()
    for study in known:
        with telling(console) as tell:
            told = draw_study(store, read_view(store, study), storage, tell)
        if told:
            console.print(f"{study.name}: {told}", soft_wrap=True)
