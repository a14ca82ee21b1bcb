"""What a trial asks of the database: so many transactions and statements, however many trials have ended."""

from __future__ import annotations

from typing import Any

import pytest
from contract_parts import LEASE_S, created, result_of, spec_of

from bench.round_trips import Asked, Meter
from bench.store_size import fill
from bench.store_throughput import as_bench_study
from hpsearch.search import Search
from hpsearch.spec import StudySpec
from hpsearch.store import Activity, Store
from hpsearch.store.workers import DEAD_WORKERS

WORKER = "host:1:1.00"
DOING = Activity(doing="training")
LOSSES = [2.0, 1.5]


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.cluster)])
def backend(request: pytest.FixtureRequest) -> str:
    """Not pgbouncer: behind it each transaction begins with one statement more, its deadlines."""
    return str(request.param)


def life(store: Store, search: Search, losses: list[float]) -> dict[str, Asked]:
    """A trial as a worker runs one, its signs of life among it: phase → what it asked."""
    meter, asked = Meter(store.optuna.engine), {}
    result = result_of(losses)
    lease, asked["claim"] = meter.of(lambda: store.leases.claim(search.study_id, WORKER, LEASE_S, DEAD_WORKERS))
    assert lease is not None
    trial, asked["start"] = meter.of(lambda: search.start(lease))
    _, asked["fits"] = meter.of(search.fits)
    _, asked["sign"] = meter.of(lambda: store.workers.give_sign(WORKER, DOING, "cpu"))
    _, asked["renewal"] = meter.of(lambda: store.workers.give_sign(WORKER, DOING, "cpu", trial.lease, LEASE_S, 3))
    for count in range(1, len(losses) + 1):
        _, asked[f"report {count}"] = meter.of(lambda count=count: search.bring(trial, result.reports[:count]))  # type: ignore[misc]
    _, asked["end"] = meter.of(lambda: search.tell(trial, result))
    return asked


class TestTrial:
    def test_each_phase_takes_so_many_transactions_and_statements(self, store: Store) -> None:
        """If you add one, say here why. Plain Optuna takes 16 transactions and 77 statements for two parameters
        and four reports (`python -m bench store_throughput`)."""
        search = created(store, as_bench_study("random", 9))
        store.workers.register(WORKER, search.study_id, "cpu")
        for _ in range(2):
            life(store, search, LOSSES)
        told = {phase: (asked.transactions, asked.statements) for phase, asked in life(store, search, LOSSES).items()}
        assert told == {
            "claim": (1, 5),  # the clock; the study held, the open slots; the lease, the attempt
            "start": (2, 15),  # slot held, mark, new trials, 5 of what the last one left; 5 make one; held, parameters
            "fits": (0, 0),
            "sign": (1, 3),  # the clock, the sign, the orders
            "renewal": (1, 5),
            "report 1": (1, 4),  # held, the report, mark, other trials
            "report 2": (1, 4),
            "end": (1, 6),  # held, facts, value, state; lease, attempt
        }

    @pytest.mark.parametrize("num_params", [1, 5])
    def test_parameters_are_written_at_once(self, store: Store, num_params: int) -> None:
        knobs = ["training.learning_rate", "training.weight_decay", "lora.dropout", "training.warmup_ratio", "lora.r"]
        space: dict[str, Any] = {
            knob: {"low": 0.01, "high": 0.1} if knob != "lora.r" else {"low": 4, "high": 16} for knob in knobs
        }
        chosen = dict(list(space.items())[:num_params])
        search = created(store, spec_of(space=chosen, sampler="random", pruner="none"))
        life(store, search, LOSSES)
        asked = life(store, search, LOSSES)
        assert (asked["start"].transactions, asked["start"].statements) == (2, 15)
        assert asked["report 1"].statements == 2, "a pruner that looks at nothing reads nothing"


@pytest.mark.parametrize(("sampler", "pruner"), [("random", "median"), ("tpe", "successive-halving")])
def test_a_trial_asks_as_much_after_500_trials_as_after_50(store: Store, sampler: str, pruner: str) -> None:
    asked = []
    for number, num_trials in enumerate((50, 500)):
        search = created(store, named(f"study-{num_trials}", sampler, pruner))
        fill(store, search.study_id, num_trials, first_id=1 + 1000 * number)
        life(store, search, LOSSES)  # reads them all, once
        asked.append(life(store, search, LOSSES))
    assert asked[0] == asked[1]
    assert sum(each.rows for each in asked[0].values()) < 50


def named(name: str, sampler: str, pruner: str) -> StudySpec:
    spec = as_bench_study(sampler, 600)
    whole = spec.model_dump(mode="json") | {"study": name}
    whole["search"] |= {"pruner": pruner, "sampler": sampler}
    return StudySpec.model_validate(whole)
