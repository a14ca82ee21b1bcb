"""The dashboard behind its door: optuna-dashboard, TensorBoard below /tensorboard, and /metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from hpsearch.folders import StorageFolder
from hpsearch.watch.door.answers import METRICS, TENSORBOARD
from hpsearch.watch.tensorboard import TensorBoard

_FONTS = "/font-roboto/"
"""TensorBoard's page requests its fonts here, at any mount point:
https://github.com/tensorflow/tensorboard/issues/1885
"""


def make_dashboard(storage: RDBStorage, files: StorageFolder, metrics: WSGIApplication) -> WSGIApplication:
    """The three applications together, without login. Changes made in the dashboard go to `storage`, which may refuse
    them.
    """
    from optuna_dashboard import wsgi

    files.artifacts.mkdir(parents=True, exist_ok=True)
    optuna: WSGIApplication = wsgi(storage, artifact_store=FileSystemArtifactStore(files.artifacts))
    board = TensorBoard(files.runs, files.boards)

    def dashboard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(_FONTS):
            path = environ["PATH_INFO"] = TENSORBOARD + path
        if path == METRICS:
            return metrics(environ, start_response)
        asked = board if path == TENSORBOARD or path.startswith(f"{TENSORBOARD}/") else optuna
        return asked(environ, start_response)

    return dashboard
