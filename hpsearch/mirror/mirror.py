"""The mirror, as a worker or the final training uses it. Its own thread talks to the bucket.

An outage of the bucket delays and fails nothing: it is logged, and the upload is retried until the deadline.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from functools import partial
from pathlib import Path

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from hpsearch.errors import HpsearchError
from hpsearch.folders import JobFolder, StorageFolder, TrialFolder
from hpsearch.mirror.copies import Copy, Overtaken, State
from hpsearch.mirror.fetching import fetch_attempts, fetch_run
from hpsearch.mirror.remote import Remote, RemoteUnreachable

log = logging.getLogger("hpsearch.mirror")

_LOOK_EVERY_S = 1.0
_TICK_S = 0.2
_LONGEST_WAIT_S = 30.0
_SAID_EACH = 20
PATIENCE_S = 120.0
"""How long a released trial waits for the upload of its last checkpoint."""
FETCH_S = 300.0
"""How long a trial that is taken over waits for the download of what earlier attempts saved."""


class Mirror:
    """Mirrors one storage folder. Without a `url` every method does nothing and returns at once."""

    def __init__(self, storage: StorageFolder, url: str | None = None) -> None:
        self._storage = storage
        self._remote = Remote(url) if url else None
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], Future[None]] | None] = queue.SimpleQueue()
        self._copy: Copy | None = None
        self._follows = False
        self._lacks = False
        """Whether the bucket lacks what was saved last."""
        self._leaving = threading.Event()
        if self._remote:
            self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
            self._thread.start()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str | None:
        return self._remote.url if self._remote else None

    def check(self) -> None:
        """Raises HpsearchError where the bucket can't be written, read and cleaned."""
        if self._remote:
            self._remote.check()

    def follow(self, folder: JobFolder) -> None:
        """From now on, complete files in the folder are uploaded as they appear. A folder outside of the storage folder
        is ignored.
        """
        self._copy = self._copy_of(folder)
        self._follows = self._copy is not None

    def settle(self) -> Future[None]:
        """Uploads the followed folder for the last time and stops following it."""
        is_wanted, self._follows = self._follows or self._lacks, False
        copy = self._copy
        return self._offer(lambda: self._keep_up(copy)) if is_wanted and copy else self._offer(None)

    def told(self, trial: TrialFolder) -> Future[None]:
        """The trial's result is in the store: no machine continues the trial."""
        self._follows = False
        remote, name, last = self._remote, self._name_of(trial.path), trial.last
        if remote is None or name is None:
            return self._offer(None)
        copy = self._copy_of(last) if last else None

        def drop() -> None:
            if copy:
                self._keep_up(copy)
            attempts = {file.partition("/")[0] for file in remote.find(name) if "/checkpoints/" in file}
            for attempt in sorted(attempts):
                remote.delete_folder(f"{name}/{attempt}/checkpoints")

        return self._offer(drop)

    def fetch_before(self, trial: TrialFolder, attempt: int) -> Future[None]:
        """Downloads what earlier attempts saved on other machines."""
        remote, name = self._remote, self._name_of(trial.path)
        if remote is None or name is None:
            return self._offer(None)
        return self._offer(lambda: fetch_attempts(remote, trial, name, attempt))

    def fetch_runs(self, study: str) -> None:
        """Downloads what this machine lacks of the final runs of `study`. Raises RemoteUnreachable."""
        if self._remote is None:
            return
        runs = self._storage.runs
        for run in sorted({file.partition("/")[0] for file in self._remote.find(runs.name)}):
            if run == study or run.startswith(f"{study}-trial-"):
                fetch_run(self._remote, JobFolder(runs / run), f"{runs.name}/{run}")

    def delete(self, folder: Path) -> None:
        """Deletes the mirror of a folder. Raises RemoteUnreachable."""
        name = self._name_of(folder)
        if self._remote and name:
            self._remote.delete_folder(name)

    def close(self, within_s: float = PATIENCE_S) -> bool:
        """Uploads the followed folder for the last time; returns whether the bucket is complete."""
        if self._remote is None or self._leaving.is_set():
            return not self._lacks
        is_all = waited(self.settle(), within_s) and not self._lacks
        self._leaving.set()
        self._jobs.put(None)
        self._thread.join(_TICK_S)  # a thread that waits for a silent bucket ends with the process
        if not is_all:
            log.warning("%s does not have the last checkpoint: it is only in %s", self.url, self._storage.path)
        return is_all

    def _copy_of(self, folder: JobFolder) -> Copy | None:
        name = self._name_of(folder.path)
        if self._remote is None or name is None:
            return None
        if self._copy and self._copy.name == name:
            return self._copy
        return Copy(self._remote, folder, name, is_shared=name.startswith(f"{self._storage.runs.name}/"))

    def _name_of(self, folder: Path) -> str | None:
        inside = self._storage.path.resolve()
        return folder.resolve().relative_to(inside).as_posix() if folder.resolve().is_relative_to(inside) else None

    def _offer(self, job: Callable[[], None] | None) -> Future[None]:
        """Done when the job and all jobs before it are."""
        answer: Future[None] = Future()
        if self._remote is None:
            answer.set_result(None)
        else:
            self._jobs.put((job or _nothing, answer))
        return answer

    def _keep_up(self, copy: Copy) -> None:
        self._lacks = True
        try:
            copy.keep_up()
        except Overtaken:
            self._follows = False
            raise
        self._lacks = False

    def _pause(self, seconds: float) -> None:
        self._leaving.wait(seconds)

    def _work(self) -> None:
        seen: tuple[Copy, State] | None = None
        while True:
            try:
                found = self._jobs.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                copy = self._copy
                if self._follows and copy and (now := (copy, copy.state())) != seen:
                    self._do(partial(self._keep_up, copy), Future())
                    seen = now
                continue
            if found is None:
                return
            self._do(*found)

    def _do(self, job: Callable[[], None], answer: Future[None]) -> None:
        """Retries while the bucket can't be reached, until nobody waits any more."""
        retrying = Retrying(
            retry=retry_if_exception_type(RemoteUnreachable),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
            stop=lambda _: self._leaving.is_set() or answer.cancelled(),
            sleep=self._pause,
            before_sleep=_say,
            reraise=True,
        )
        try:
            retrying(job)
        except Exception as error:
            if not isinstance(error, HpsearchError):
                log.warning("the copy in %s is old: %s", self.url, error, exc_info=not isinstance(error, OSError))
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
        else:
            if answer.set_running_or_notify_cancel():
                answer.set_result(None)


def waited(
    answer: Future[None],
    within_s: float,
    meanwhile: Callable[[], None] = lambda: None,
    gives_up: Callable[[], bool] = lambda: False,
) -> bool:
    """Whether it succeeded in time. When nobody waits any more, it is not tried again."""
    until = time.monotonic() + within_s
    while not answer.done():
        if time.monotonic() >= until or gives_up():
            answer.cancel()
            return False
        meanwhile()
        with suppress(NotYet):
            answer.exception(_TICK_S)
    return not answer.cancelled() and answer.exception() is None


def _nothing() -> None:
    pass


def _say(state: RetryCallState) -> None:
    assert state.outcome is not None
    assert state.next_action is not None
    if state.attempt_number == 1 or state.attempt_number % _SAID_EACH == 0:
        log.warning("%s; trying again", state.outcome.exception())
