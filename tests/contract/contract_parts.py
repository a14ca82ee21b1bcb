"""Small studies, a worker without a trainer, and real processes."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event, select

from hpsearch.search import ActiveTrial, Search
from hpsearch.spec import StudySpec
from hpsearch.spec.study import Values
from hpsearch.store import Lease, Store
from hpsearch.store.engine import database_now, parse_url
from hpsearch.store.tables import leases
from hpsearch.store.workers import DEAD_WORKERS
from hpsearch.trial import MemoryLedger, MemorySnapshot, Outcome, Report, TrialResult

MIXED: dict[str, Any] = {
    "training.learning_rate": {"low": 1e-6, "high": 1e-3, "log": True},
    "lora.dropout": {"low": 0, "high": 0.2, "step": 0.05},
    "lora.r": {"low": 4, "high": 16},
    "training.optimizer": ["adamw_torch", "sgd"],
    "lora.target_modules": [["q_proj"], ["q_proj", "v_proj"]],
}
RATE = {"training.learning_rate": MIXED["training.learning_rate"]}
LEASE_S = 600.0

T = TypeVar("T")
Losses = Callable[[Values], Sequence[float]]


def spec_of(*, name: str = "demo", budget: dict[str, Any] | None = None, **search: Any) -> StudySpec:
    whole = {
        "study": name,
        "task": "text-sft",
        "model": {"base": "tiny:qwen2"},
        "data": {"source": "rows.jsonl"},
        "budget": budget or {},
        "search": {"space": MIXED, **search},
    }
    return StudySpec.model_validate(whole)


class WatchedStorage(InMemoryStorage):
    """Writes down which trials a sampler or a pruner asks for, by their states; None: all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_for: list[Container[TrialState] | None] = []

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        self.asked_for.append(states)
        return super().get_all_trials(study_id, deepcopy, states)

    @property
    def is_asked_for_running(self) -> bool:
        return any(states is None or TrialState.RUNNING in states for states in self.asked_for)


def opened(url: str) -> Store:
    return Store(parse_url(url, from_argv=False))


@contextmanager
def impatient(url: str) -> Iterator[Store]:
    """One that hardly waits for a lock."""
    hurries = {"postgresql": "SET LOCAL lock_timeout = '50ms'", "mysql": "SET SESSION innodb_lock_wait_timeout = 1"}
    with opened(url) as store:
        if hurry := hurries.get(store.optuna.engine.dialect.name):
            event.listen(store.optuna.engine, "begin", lambda connection: connection.exec_driver_sql(hurry))
        yield store


def created(store: Store, spec: StudySpec, trials: int | None = None) -> Search:
    """The study in the store, as `open_study` makes it."""
    search = Search(store, spec)
    store.studies.create(search.study_id, spec, trials or spec.searched.trials, b"manifest", Path("folder"))
    return search


def claimed(store: Store, study_id: int, worker_id: str = "host:1:1.00", duration_s: float = LEASE_S) -> Lease:
    lease = store.leases.claim(study_id, worker_id, duration_s)
    assert lease is not None
    return lease


def seconds_left(store: Store, study_id: int) -> dict[str, float]:
    """Worker → seconds until its lease expires, for the leases that are held."""
    held = select(leases.c.worker_id, leases.c.expires_at).where(
        leases.c.study_id == study_id, leases.c.finished.is_(False), leases.c.worker_id.is_not(None)
    )
    with store.optuna.engine.begin() as connection:
        now = database_now(connection)
        return {row.worker_id: row.expires_at - now for row in connection.execute(held)}


def taken_over(store: Store, lease: Lease, worker_id: str = "other:2:2.00") -> Lease:
    """The same slot, taken over by another worker: its holder counts as dead."""
    taken = store.leases.claim(lease.study_id, worker_id, LEASE_S, [*seconds_left(store, lease.study_id)])
    assert taken is not None
    assert taken.lease_id == lease.lease_id
    return taken


def elsewhere(work: Callable[[], T]) -> T:
    """Does it as another worker would: not within the fence that this one may be in."""
    return Context().run(work)


def result_of(losses: Sequence[float], outcome: Outcome = Outcome.COMPLETE, **more: Any) -> TrialResult:
    reports = [Report(step=step, loss=loss) for step, loss in enumerate(losses, start=1)]
    return TrialResult(outcome=outcome, reports=reports, **more)


def ended(search: Search, lease: Lease, result: TrialResult) -> Values:
    """Runs a leased slot to its end as a worker does, whatever the pruner says; its values."""
    trial = search.start(lease)
    told(search, trial, *result.reports)
    search.tell(trial, result)
    return trial.values


def told(search: Search, trial: ActiveTrial, *reports: Report) -> bool:
    """Tells the reports one after the other, as an attempt does: each time all so far. The pruner's last word."""
    goes_on = True
    for count in range(1, len(reports) + 1):
        goes_on = search.bring(trial, reports[:count])
    return goes_on


def losses_of(*losses: float) -> list[Report]:
    return [Report(step=step, loss=loss) for step, loss in enumerate(losses, start=1)]


def toy(values: Values) -> list[float]:
    """Losses that fall, lowest at a learning rate of 3e-5."""
    distance = abs(math.log(values["training.learning_rate"] / 3e-5))
    return [2 + distance, 1 + distance]


def worked(store: Store, search: Search, worker_id: str = "last:3:3.00", losses: Losses = toy) -> list[Values]:
    """A worker that works until nothing is left to claim; returns what it tried."""
    tried = []
    while True:
        lease = store.leases.claim(search.study_id, worker_id, LEASE_S, DEAD_WORKERS)
        if lease is None:
            return tried
        trial = search.start(lease)
        if lease.result is not None:
            search.tell(trial, TrialResult.model_validate_json(lease.result))
            tried.append(trial.values)
        else:
            tried.append(ended(search, trial.lease, result_of(losses(trial.values))))


def ledger_of(peak_device_bytes: int, **more: Any) -> MemoryLedger:
    after = MemorySnapshot(
        host_rss_bytes=3 * 2**20,
        device_allocated_bytes=2**19,
        live_tensors=7,
        threads=2,
        file_descriptors=9,
        base_fingerprint="f00d",
    )
    whole = {"before": after, "after": after, "peak_host_bytes": 2**31, "not_given_back": [], **more}
    return MemoryLedger(peak_device_bytes=peak_device_bytes, **whole)


_processes = multiprocessing.get_context("forkserver")  # each process is new, but imports its libraries only once
_processes.set_forkserver_preload(["pytest", "psycopg", "optuna.storages._rdb.models", "hpsearch.search"])


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = _processes.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def exit_codes(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Waits for the processes; a killed one's code is minus the signal, a stuck one's None."""
    for process in processes:
        process.join(60)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
