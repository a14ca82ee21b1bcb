"""Milliseconds at 5,000 finished trials: reading all that is shown of a study, and its next trial.

A study grows; what people and workers wait for should not. Every finished trial here has what a real one leaves: its
parameters, four losses, its facts, a lease with its result. They are put into the tables directly; the trials that are
timed go through a worker's own calls. "First" is the first time in a process, "again" each later one. The other way
is plain Optuna on the same tables. The start is timed with a random sampler, which looks at nothing, and with TPE,
which weighs every trial: the difference is Optuna's own work. "From claim to end" is a whole trial with four reports,
in turn with one of a study of 50 trials in the same database: what is left of the difference with a random sampler is
a pruner's, which goes through all complete trials, and the database's, which counts trials and looks for open slots.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import insert

from bench.comparison import Comparison, Finding, Say, Side
from bench.store_throughput import as_bench_study, finished_result, on_postgresql
from hpsearch.search import Search
from hpsearch.search.facts import facts
from hpsearch.search.view import read_view
from hpsearch.spec.metrics import LOSS
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.tables import leases
from hpsearch.store.workers import DEAD_WORKERS, own_worker_id

NUM_TRIALS = 5000
FEW_TRIALS = 50
NUM_TIMES = 5
NUM_LIVES = 20
LEASE_S = 60.0
_SAMPLERS: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
}


def measure(say: Say) -> list[Finding]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        found = _measure_on("SQLite", [f"sqlite:///{folder}/store.db"], say)
    return [
        *found,
        *on_postgresql("a study of 5,000 trials", ["bench"], lambda urls: _measure_on("PostgreSQL", urls, say)),
    ]


def _measure_on(database: str, urls: list[str], say: Say) -> list[Finding]:
    (url,) = urls
    spec = as_bench_study("random", 10 * NUM_TRIALS)
    with Store(parse_url(url, from_argv=False)) as store:
        search = Search(store, spec)
        store.studies.create(search.study_id, spec, spec.searched.trials, b"no manifest", Path())
        say(f"{database}: {NUM_TRIALS} finished trials are put in")
        fill(store, search.study_id, NUM_TRIALS)
    return [
        *_reading(database, url, say),
        *(_starting(database, url, name, say) for name in _SAMPLERS),
        *(_lives(database, url, name, say) for name in _SAMPLERS),
    ]


def _lives(database: str, url: str, sampler: str, say: Say) -> Finding:
    """Whole trials of the large study, in turn with those of a small one."""
    with Store(parse_url(url, from_argv=False)) as store:
        small = as_bench_study(sampler, 10 * NUM_TRIALS).model_copy(update={"study": f"small-{sampler}"})
        search = Search(store, small)
        store.studies.create(search.study_id, small, small.searched.trials, b"no manifest", Path())
        fill(store, search.study_id, FEW_TRIALS, first_id=2 * NUM_TRIALS * (1 + list(_SAMPLERS).index(sampler)))
        large, few = _life(store, "bench", sampler), _life(store, small.study, sampler)
        large(), few()  # the first of a process reads all trials
        pairs = [(_milliseconds(large), _milliseconds(few)) for _ in range(NUM_LIVES)]
    measured = f"from claim to end, {database}, sampler {sampler}, {NUM_TRIALS} trials against {FEW_TRIALS}"
    own, other = zip(*pairs, strict=True)
    finding = Comparison(measured, "ms", Side(f"at {NUM_TRIALS}", own), Side(f"at {FEW_TRIALS}", other))
    say("; ".join(finding.cells()))
    return finding


def _life(store: Store, study: str, sampler: str) -> Callable[[], None]:
    spec = as_bench_study(sampler, 10 * NUM_TRIALS).model_copy(update={"study": study})
    search, worker_id, result = Search(store, spec), own_worker_id(), finished_result()

    def live() -> None:
        lease = store.leases.claim(search.study_id, worker_id, LEASE_S, DEAD_WORKERS)
        assert lease is not None
        trial = search.start(lease)
        for count in range(1, len(result.reports) + 1):
            search.bring(trial, result.reports[:count])
        search.tell(trial, result)

    return live


def _reading(database: str, url: str, say: Say) -> list[Finding]:
    first, again, plain = [], [], []
    for _ in range(NUM_TIMES):
        with Store(parse_url(url, from_argv=False)) as store:
            study = store.studies.find("bench")
            assert study is not None
            first.append(_milliseconds(read_view, store, study))
            again.append(_milliseconds(read_view, store, study))
        storage = RDBStorage(url)
        plain.append(_milliseconds(storage.get_all_trials, study.study_id, False))
        storage.engine.dispose()
    return [
        _told(f"read_view, {database}, the first time", first, plain, "get_all_trials", say),
        _told(f"read_view, {database}, again", again, plain, "get_all_trials", say),
    ]


def _starting(database: str, url: str, sampler: str, say: Say) -> Finding:
    spec = as_bench_study(sampler, 10 * NUM_TRIALS)
    with Store(parse_url(url, from_argv=False)) as store:
        search, worker_id, result = Search(store, spec), own_worker_id(), finished_result()

        def start() -> float:
            """Of the claim and the start; the trial is then ended, so that the next one has one more to look at."""
            started = time.perf_counter()
            lease = store.leases.claim(search.study_id, worker_id, LEASE_S)
            assert lease is not None
            trial = search.start(lease)
            took = 1000 * (time.perf_counter() - started)
            search.tell(trial, result)
            return took

        say(f"{database}, {sampler}: the first start in a process takes {start():.0f} ms")
        plain = _plain_start(url, sampler)
        plain()
        pairs = [(start(), plain()) for _ in range(NUM_TIMES)]
    measured = f"claim and start, {database}, sampler {sampler}"
    return _told(measured, [own for own, _ in pairs], [other for _, other in pairs], "ask, suggest", say)


def _plain_start(url: str, sampler: str) -> Callable[[], float]:
    study = optuna.load_study(study_name="bench", storage=url, sampler=_SAMPLERS[sampler]())

    def start() -> float:
        started = time.perf_counter()
        trial = study.ask()
        trial.suggest_float("training.learning_rate", 1e-5, 1e-3, log=True)
        trial.suggest_categorical("lora.r", [4, 8, 16])
        took = 1000 * (time.perf_counter() - started)
        study.tell(trial, 1.0)
        return took

    return start


def _told(measured: str, own: list[float], other: list[float], way: str, say: Say) -> Comparison:
    finding = Comparison(
        f"{measured}, {NUM_TRIALS} trials", "ms", Side("hpsearch", own), Side(f"plain Optuna: {way}", other)
    )
    say("; ".join(finding.cells()))
    return finding


def _milliseconds(work: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    work(*arguments)
    return 1000 * (time.perf_counter() - started)


def fill(store: Store, study_id: int, num_trials: int, first_id: int = 1) -> None:
    """Puts finished trials of an empty study into Optuna's tables and ours, all in one transaction."""
    draw, result = random.Random(0), finished_result()
    told, kept = facts(result, LOSS), result.model_dump_json()
    distributions = {
        "training.learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
        "lora.r": CategoricalDistribution([4, 8, 16]),
    }
    rows: dict[Any, list[dict[str, Any]]] = {}

    def add(table: Any, **values: Any) -> None:
        rows.setdefault(table, []).append(values)

    begun = datetime.now() - timedelta(days=1)
    for number in range(num_trials):
        trial_id, loss = first_id + number, draw.uniform(0.5, 2)
        add(
            models.TrialModel.__table__,
            trial_id=trial_id,
            number=number,
            study_id=study_id,
            state=TrialState.COMPLETE,
            datetime_start=begun,
            datetime_complete=begun + timedelta(seconds=30),
        )
        add(models.TrialValueModel.__table__, trial_id=trial_id, objective=0, value=loss, value_type="FINITE")
        for name, value in (("training.learning_rate", 10 ** draw.uniform(-5, -3)), ("lora.r", draw.randrange(3))):
            add(
                models.TrialParamModel.__table__,
                trial_id=trial_id,
                param_name=name,
                param_value=value,
                distribution_json=distribution_to_json(distributions[name]),
            )
        for report in result.reports:
            add(
                models.TrialIntermediateValueModel.__table__,
                trial_id=trial_id,
                step=report.step,
                intermediate_value=loss * report.loss,
                intermediate_value_type="FINITE",
            )
        for key, fact in told.items():
            add(models.TrialUserAttributeModel.__table__, trial_id=trial_id, key=key, value_json=json.dumps(fact))
        add(models.TrialSystemAttributeModel.__table__, trial_id=trial_id, key="hpsearch:slot", value_json=str(number))
        add(
            leases,
            study_id=study_id,
            slot=number,
            trial_id=trial_id,
            worker_id="host:1:1@x",
            attempt=1,
            deaths=0,
            strikes=0,
            progress=10,
            stumbles=0,
            expires_at=0.0,
            result=kept,
            finished=True,
        )
    with store.optuna.engine.begin() as connection:
        for table, values in rows.items():
            connection.execute(insert(table), values)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT setval('trials_trial_id_seq', (SELECT max(trial_id) FROM trials))")
