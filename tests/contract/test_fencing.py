"""Fencing: what a worker writes through Optuna after its lease was taken over never reaches the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from contract_children import take_over
from contract_parts import (
    claimed,
    created,
    elsewhere,
    ended,
    exit_codes,
    impatient,
    result_of,
    spec_of,
    start,
    taken_over,
)
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import MetaData, select, text
from sqlalchemy.exc import OperationalError

import hpsearch.search.search as search_module
import hpsearch.store.engine as engine_module
from hpsearch.errors import LeaseLost
from hpsearch.search import Search
from hpsearch.store import Lease, Store
from hpsearch.store.fence import fenced
from hpsearch.trial import Report

Write = Callable[[Store, Lease], object]
WRITES: dict[str, Write] = {
    "a loss": lambda store, lease: store.optuna.set_trial_intermediate_value(bound(lease), 1, 0.5),
    "an end": lambda store, lease: store.optuna.set_trial_state_values(bound(lease), TrialState.COMPLETE, [0.5]),
    "a fact": lambda store, lease: store.optuna.set_trial_user_attr(bound(lease), "outcome", "complete"),
    "a mark of a sampler": lambda store, lease: store.optuna.set_trial_system_attr(bound(lease), "generation", 7),
    "a parameter": lambda store, lease: store.optuna.set_trial_param(bound(lease), "x", 0.5, FloatDistribution(0, 1)),
    "a new trial": lambda store, lease: store.optuna.create_new_trial(lease.study_id, create_trial(value=0.5)),
    "a fact of the study": lambda store, lease: store.optuna.set_study_user_attr(lease.study_id, "task", "other"),
}


def bound(lease: Lease) -> int:
    assert lease.trial_id is not None
    return lease.trial_id


@pytest.fixture
def search(store: Store) -> Search:
    return created(store, spec_of(trials=2))


@pytest.fixture
def lease(store: Store, search: Search) -> Lease:
    """Held, and bound to a running trial."""
    lease = store.leases.bind(claimed(store, search.study_id), store.optuna.create_new_trial(search.study_id))
    assert lease is not None
    return lease


def contents(store: Store) -> dict[str, list[Any]]:
    """Every row of Optuna's tables."""
    tables = MetaData()
    tables.reflect(store.optuna.engine, only=lambda name, _: not name.startswith("hpsearch_"))
    with store.optuna.engine.begin() as connection:
        return {table.name: sorted(map(repr, connection.execute(select(table)))) for table in tables.sorted_tables}


def finish_as_another(store: Store, lease: Lease) -> None:
    """Another worker takes the slot over and brings its trial to an end."""
    ended(Search(store, spec_of(trials=2)), taken_over(store, lease), result_of([2.0, 1.0]))


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
class TestWrites:
    def test_the_owner_writes(self, write: Write, store: Store, lease: Lease) -> None:
        before = contents(store)
        with fenced(lease):
            write(store, lease)
        assert contents(store) != before

    def test_an_old_owner_writes_nothing(self, write: Write, store: Store, lease: Lease) -> None:
        taken_over(store, lease)
        before = contents(store)
        assert len(before["trials"]) == 1
        with pytest.raises(LeaseLost, match="slot 0: another worker has taken over attempt 1"), fenced(lease):
            write(store, lease)
        assert contents(store) == before


class TestTakingOver:
    def test_an_owner_that_another_process_replaced_writes_nothing(
        self, store: Store, store_url: str, lease: Lease
    ) -> None:
        with fenced(lease):
            WRITES["a loss"](store, lease)
            before = contents(store)
            assert exit_codes([start(take_over, store_url, lease.study_id)]) == [0]
            for write in WRITES.values():
                with pytest.raises(LeaseLost):
                    write(store, lease)
        assert contents(store) == before

    def test_the_fence_is_gone_after_its_block_and_blocks_no_other_worker(self, store: Store, lease: Lease) -> None:
        new = taken_over(store, lease)
        with pytest.raises(LeaseLost), fenced(lease):
            WRITES["a loss"](store, lease)
        with fenced(new):
            WRITES["an end"](store, new)
        WRITES["a fact of the study"](store, lease)
        assert [trial.state for trial in store.optuna.get_all_trials(lease.study_id)] == [TrialState.COMPLETE]

    def test_a_finished_slot_is_fenced_too(self, store: Store, lease: Lease) -> None:
        store.leases.close(lease)
        with pytest.raises(LeaseLost), fenced(lease):
            WRITES["a loss"](store, lease)

    def test_nobody_takes_over_in_the_middle_of_a_fenced_write(
        self, store: Store, store_url: str, lease: Lease, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The check and the write are one transaction: another worker's claim has to wait for its end."""
        monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_S", 0)
        with impatient(store_url) as other, store.optuna.engine.connect() as connection:
            with fenced(lease):
                connection.execute(text("UPDATE trials SET number = 5"))
            with pytest.raises(OperationalError, match=r"database is locked|due to lock timeout|Lock wait timeout"):
                other.leases.claim(lease.study_id, "other:2:2.00", 60, ["host:1:1.00"])
            connection.commit()
            assert other.leases.claim(lease.study_id, "other:2:2.00", 60, ["host:1:1.00"]) is not None


class TestSearch:
    def test_a_worker_that_was_paused_while_it_worked_changes_nothing(self, store: Store, search: Search) -> None:
        paused = search.start(claimed(store, search.study_id))
        finish_as_another(store, paused.lease)
        before = contents(store)
        with pytest.raises(LeaseLost):
            search.bring(paused, [Report(step=1, loss=9.0)])
        with pytest.raises(LeaseLost):
            search.tell(paused, result_of([9.0]))
        with pytest.raises(LeaseLost):
            search.start(paused.lease)
        assert contents(store) == before

    def test_a_worker_that_was_paused_while_it_asked_changes_nothing(
        self, store: Store, search: Search, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease, suggest_all = claimed(store, search.study_id), search_module.suggest_all
        before: list[object] = []

        def pause(*arguments: Any) -> None:
            monkeypatch.undo()
            elsewhere(lambda: finish_as_another(store, lease))
            before.append(elsewhere(lambda: contents(store)))
            suggest_all(*arguments)

        monkeypatch.setattr(search_module, "suggest_all", pause)
        with pytest.raises(LeaseLost):
            search.start(lease)
        assert [contents(store)] == before

    def test_a_worker_that_was_paused_before_it_made_its_trial_leaves_none(self, store: Store, search: Search) -> None:
        lease = claimed(store, search.study_id)
        finish_as_another(store, lease)
        with pytest.raises(LeaseLost):
            search.start(lease)
        assert [trial.state for trial in store.optuna.get_all_trials(search.study_id)] == [TrialState.COMPLETE]
