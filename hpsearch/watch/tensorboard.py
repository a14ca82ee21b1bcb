"""TensorBoard for final runs and tracked trials, inside this process: its own port would be open to everyone here."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from hpsearch.watch.door.answers import TENSORBOARD, words


class TensorBoard:
    """A WSGI application below /tensorboard. TensorBoard is loaded, and reads the runs, from the first visit on."""

    def __init__(self, runs: Path, trials: Path) -> None:
        self._runs = runs
        self._trials = trials
        self._lock = Lock()
        self._application: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            with self._lock:
                if self._application is None:
                    self._application = _load(self._runs, self._trials)
        except Exception as error:  # its dependencies conflict with others': the dashboard works without it
            said = f"TensorBoard does not start: {type(error).__name__}: {error}"
            return words("503 Service Unavailable", said)(environ, start_response)
        return self._application(environ, start_response)


def _load(runs: Path, trials: Path) -> WSGIApplication:
    """What `tensorboard.program` does before it opens a port.

    Only TensorBoard's own plugins: those of other packages may write. `load_fast` would start a data server of another
    package, with a port of its own.
    """
    from tensorboard import assets, default, program
    from tensorboard.backend.application import TensorBoardWSGIApp
    from tensorboard.backend.event_processing.data_ingester import LocalDataIngester

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    runs.mkdir(parents=True, exist_ok=True)
    board = program.TensorBoard(default.get_static_plugins(), assets.get_default_assets_zip_provider())
    board.configure(logdir=str(runs), path_prefix=TENSORBOARD, load_fast="false")
    ingester = LocalDataIngester(board.flags)
    # It takes one folder, or several in one text, whose paths may contain no colon or comma.
    ingester._path_to_run[str(trials)] = "trials"
    ingester.start()
    application: WSGIApplication = TensorBoardWSGIApp(
        board.flags,
        board.plugin_loaders,
        ingester.data_provider,
        board.assets_zip_provider,
        ingester.deprecated_multiplexer,
    )
    return application
