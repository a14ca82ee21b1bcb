"""What tests of the door share: a real dashboard on a small study, served by real sockets, and what a browser sends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from threading import Thread

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from hpsearch.bridge.stopping import StopFlag
from hpsearch.folders import StorageFolder
from hpsearch.store import Store
from hpsearch.store.reading import open_to_read
from hpsearch.watch.dashboard import make_dashboard
from hpsearch.watch.door.addresses import Hosts, find_address
from hpsearch.watch.door.door import Door
from hpsearch.watch.door.login import Login
from hpsearch.watch.door.server import Server
from hpsearch.watch.prometheus import Metrics, StudyCollector
from hpsearch.worker.relay import Relay

TOKEN = "correct-horse-battery-staple"
FILES = {
    "a0": ("image/png", b"\x89PNG\r\n\x1a\n"),
    "a1": ("text/html", b"<script>alert(1)</script>"),
    "a2": ("image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
    "a3": ("text/javascript", b"alert(1)"),
    "a4": ("video/mp4", b"moving"),
}
"""Artifacts of study 1: their ids, the types that the store names, and what is in them."""


@dataclass(frozen=True)
class Got:
    """An answer."""

    status: int
    headers: HTTPMessage
    text: str


@dataclass(frozen=True)
class Served:
    """A dashboard on a port of 127.0.0.1."""

    port: int
    store: RDBStorage

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Got:
        """Header names with _ for -; no value: the header is left out."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Got(answer.status, answer.headers, answer.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def log_in(self, token: str = TOKEN, **headers: str) -> Got:
        return self.ask("POST", "/login", f"token={token}&to=/dashboard/studies/1", Accept="text/html", **headers)

    def cookie(self) -> str:
        return self.log_in().headers["Set-Cookie"].partition(";")[0]

    @property
    def study(self) -> str:
        """Its name now: `demo`, unless somebody changed it."""
        return ",".join(study.study_name for study in self.store.get_all_studies())


def fill(store: RDBStorage, artifacts: Path) -> None:
    """A study of one trial and its artifacts."""
    study = optuna.create_study(storage=store, study_name="demo")
    study.add_trial(optuna.trial.create_trial(value=1.25))
    artifacts.mkdir(parents=True)
    for name, (kind, content) in FILES.items():
        FileSystemArtifactStore(artifacts).write(name, io.BytesIO(content))
        meta = {"artifact_id": name, "filename": f"{name}.bin", "mimetype": kind, "encoding": None}
        store.set_study_system_attr(study._study_id, f"artifacts:{name}", json.dumps(meta))


@contextmanager
def metrics_of(store: Store) -> Iterator[Metrics]:
    """What Prometheus sees of the store, on connections that only read."""
    with Store(store.url, only_to_read=True) as looking, closing(Relay(looking, StopFlag())) as relay:
        yield Metrics(StudyCollector(looking, relay))


@contextmanager
def serving(
    store: Store,
    folder: Path,
    login: Callable[[int], Login | None],
    allow_changes: bool = False,
    hosts: Sequence[str] = (),
) -> Iterator[Served]:
    """The parts that `hpsearch dashboard` puts together, on a free port."""
    address = find_address("127.0.0.1", 0)
    read_only = open_to_read(store.url)
    with Server(address) as server, metrics_of(store) as metrics:
        port = server.server_port
        optuna = store.optuna if allow_changes else read_only
        inside = make_dashboard(optuna, StorageFolder(folder), metrics)
        server.set_app(Door(inside, Hosts(replace(address, port=port), hosts), login(port), allow_changes))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Served(port, store.optuna)
        finally:
            server.shutdown()
            thread.join()
            read_only.remove_session()
            read_only.engine.dispose()


def nobody(_port: int) -> None:
    """No token is asked for."""
