"""Serving optuna-dashboard and TensorBoard, on the loopback address unless told otherwise: neither has a login."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from hpsearch.errors import InputError


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """A line per request helps nobody."""


def serve_dashboard(storage: RDBStorage, artifacts: Path, host: str, port: int) -> None:
    """Serves until Ctrl-C. The storage carries our SQLite settings, so watching does not block workers.

    Raises:
        InputError: the port is taken.
    """
    from optuna_dashboard import wsgi

    artifacts.mkdir(parents=True, exist_ok=True)
    application = wsgi(storage, artifact_store=FileSystemArtifactStore(artifacts))
    try:
        server = make_server(host, port, application, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}; take another one with --port") from None
    with server:
        server.serve_forever()


def start_tensorboard(runs: Path, host: str, port: int) -> subprocess.Popen[bytes]:
    """Raises InputError where the port is taken: TensorBoard itself would end without a word."""
    runs.mkdir(parents=True, exist_ok=True)
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}; take another one with --tensorboard-port") from None
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(runs),
        "--host",
        host,
        "--port",
        str(port),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
