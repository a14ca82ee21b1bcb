"""Orders: to pause, to resume, to stop; and trials that are opened again."""

from __future__ import annotations

import threading
from typing import Any

import optuna
import pytest
from contract_parts import LEASE_S, claimed, created, ended, ledger_of, opened, result_of, spec_of
from optuna.storages._rdb.models import TrialModel
from optuna.trial import TrialState
from sqlalchemy import func, select

from hpsearch.search import Search
from hpsearch.search.view import TrialView, read_view
from hpsearch.store import Handover, Store
from hpsearch.store.leases import Slots
from hpsearch.store.orders import Orders
from hpsearch.trial import GIB, Outcome

WORKER = "host:1:1.00"
FAILED = result_of([2.0], Outcome.FAILED, reason="KeyError: 'x'", traceback="Traceback …", num_steps=7)


@pytest.fixture
def search(store: Store) -> Search:
    """A study of three trials."""
    return created(store, spec_of(trials=3, budget={"memory_gib": 16}))


def trials_of(store: Store) -> list[TrialView]:
    study = store.studies.find("demo")
    assert study is not None
    return read_view(store, study).trials


class TestPause:
    def test_nothing_is_claimed_until_it_goes_on(self, store: Store, search: Search) -> None:
        study_id = search.study_id
        store.leases.release(claimed(store, study_id))
        assert store.orders.pause(study_id, "a reason")
        assert store.studies.why_paused(study_id) == "a reason"
        assert store.leases.claim(study_id, WORKER, LEASE_S) is None
        assert store.orders.resume(study_id, 0) == "a reason"
        assert store.studies.why_paused(study_id) is None
        assert claimed(store, study_id).slot == 0

    def test_a_trial_that_runs_goes_on_to_its_end(self, store: Store, search: Search) -> None:
        lease = claimed(store, search.study_id)
        store.orders.pause(search.study_id, "a reason")
        store.leases.renew(lease, LEASE_S)
        ended(search, lease, result_of([1.0]))
        assert store.leases.slots(search.study_id) == Slots(wanted=3, finished=1, leased=0)

    def test_the_first_reason_stays(self, store: Store, search: Search) -> None:
        assert store.orders.pause(search.study_id, "first")
        assert not store.orders.pause(search.study_id, "second")
        assert store.studies.why_paused(search.study_id) == "first"
        assert store.orders.resume(search.study_id, 0) == "first"
        assert store.orders.resume(search.study_id, 0) is None

    def test_other_studies_go_on(self, store: Store, search: Search) -> None:
        other = created(store, spec_of(name="other"))
        store.orders.pause(search.study_id, "a reason")
        assert claimed(store, other.study_id).slot == 0

    def test_failures_are_forgiven_up_to_a_number(self, store: Store, search: Search) -> None:
        assert store.orders.failures_forgiven(search.study_id) == 0
        store.orders.resume(search.study_id, 4)
        assert store.orders.failures_forgiven(search.study_id) == 4


class TestStop:
    def test_it_is_for_the_workers_that_are_there(self, store: Store, search: Search) -> None:
        store.workers.register(WORKER, search.study_id, "cpu")
        assert store.orders.of(WORKER) == Orders()
        store.orders.stop(search.study_id, now=False)
        store.workers.register("late:1:1.00", search.study_id, "cpu")
        assert store.orders.of(WORKER) == Orders(stop=True)
        assert store.orders.of("late:1:1.00") == Orders()
        assert store.orders.of("unheard of") == Orders()
        store.orders.stop(search.study_id, now=True)
        assert store.orders.of(WORKER) == store.orders.of("late:1:1.00") == Orders(stop=True, stop_now=True)

    def test_it_is_for_those_whose_keeper_was_there(self, store: Store, search: Search) -> None:
        assert store.orders.since(search.study_id, 1e6) == Orders()
        store.orders.stop(search.study_id, now=True)
        assert store.orders.since(search.study_id, 1e6) == Orders(stop=True, stop_now=True)
        assert store.orders.since(search.study_id, -1.0) == Orders(), "it was asked before"

    def test_it_is_not_for_another_studys(self, store: Store, search: Search) -> None:
        other = created(store, spec_of(name="other"))
        store.workers.register(WORKER, other.study_id, "cpu")
        store.orders.stop(search.study_id, now=True)
        assert store.orders.of(WORKER) == Orders()


class TestReopen:
    @pytest.fixture
    def failed(self, store: Store, search: Search) -> int:
        """The id of a trial that failed, beside one that is complete."""
        first = claimed(store, search.study_id)
        ended(search, first, FAILED)
        ended(search, claimed(store, search.study_id), result_of([3.0, 1.5]))
        return self.id_of(store, search, 0)

    @staticmethod
    def id_of(store: Store, search: Search, number: int) -> int:
        return store.optuna.get_trial_id_from_study_id_trial_number(search.study_id, number)

    def test_it_waits_and_nothing_is_reported_of_its_end(self, store: Store, search: Search, failed: int) -> None:
        assert store.orders.reopen(search.study_id, [failed]) == [failed]
        again, other = trials_of(store)
        assert again.outcome == "waiting"
        assert {"outcome", "reason", "traceback"}.isdisjoint(again.facts)
        assert (other.outcome, other.facts["outcome"], other.value) == ("complete", "complete", 1.5)
        assert store.leases.slots(search.study_id) == Slots(wanted=3, finished=1, leased=1)

    @pytest.mark.parametrize("by", ["a new worker", "the worker that saw it fail"])
    def test_it_runs_again_under_its_own_number(
        self, store: Store, store_url: str, search: Search, failed: int, by: str
    ) -> None:
        values = trials_of(store)[0].params
        with opened(store_url) as other:  # the command is another process
            other.orders.reopen(search.study_id, [failed])
            mine = search if by == "the worker that saw it fail" else Search(other, spec_of(trials=3))
            lease = claimed(store, search.study_id)
            assert (lease.trial_id, lease.attempt, lease.handover) == (failed, 2, Handover.GIVEN_BACK)
            assert (lease.strikes, lease.stumbles, lease.result) == (0, 0, None)
            assert not mine.start(lease).is_ended
            ended(mine, lease, result_of([2.0, 0.5]))
        again = trials_of(store)[0]
        assert (again.number, again.outcome, again.value, again.params) == (0, "complete", 0.5, values)
        assert again.reports == {1: 2.0, 2: 0.5}
        assert again.facts["attempts"] == 2
        assert "reason" not in again.facts
        with store.optuna.engine.begin() as connection:
            assert connection.scalar(select(func.count()).select_from(TrialModel)) == 2
        assert store.leases.slots(search.study_id) == Slots(wanted=3, finished=2, leased=0)

    def test_the_memory_that_it_needs_then_is_what_counts(self, store: Store, search: Search, failed: int) -> None:
        store.orders.reopen(search.study_id, [failed])
        ended(search, claimed(store, search.study_id), result_of([1.0], ledger=ledger_of(40 * GIB)))
        assert [trial.is_feasible for trial in trials_of(store)] == [False, True]

    def test_a_trial_that_was_ended_from_outside_is_left_to_its_worker(self, store: Store, search: Search) -> None:
        """Opened again now, it would be closed as it runs."""
        trial = search.start(claimed(store, search.study_id))
        optuna.load_study(study_name="demo", storage=store.optuna).tell(trial.number, state=TrialState.FAIL)
        assert store.orders.reopen(search.study_id, [self.id_of(store, search, 0)]) == []
        search.tell(trial, FAILED)
        assert trials_of(store)[0].outcome == "failed"
        assert store.leases.slots(search.study_id) == Slots(wanted=3, finished=1, leased=0)

    def test_another_studys_trials_are_left_alone(self, store: Store, failed: int) -> None:
        other = created(store, spec_of(name="other"))
        assert store.orders.reopen(other.study_id, [failed]) == []
        assert trials_of(store)[0].outcome == "failed"


class TestAside:
    def test_the_last_device_is_told_that_it_is_the_last(self, store: Store, search: Search) -> None:
        for number in range(3):
            store.workers.register(f"host:{number}:1.00", search.study_id, "cpu")
        store.workers.leave("host:0:1.00")
        assert not store.workers.set_aside("host:1:1.00", "one")
        assert store.workers.set_aside("host:2:1.00", "two")
        assert [worker.aside for worker in store.workers.of(search.study_id)] == [None, "one", "two"]

    @pytest.mark.parametrize("go", range(5))
    def test_two_at_the_same_moment_pause_exactly_once(
        self, store: Store, store_url: str, search: Search, go: int
    ) -> None:
        del go
        names = ["host:1:1.00", "host:2:1.00"]
        for name in names:
            store.workers.register(name, search.study_id, "cpu")
        ready, paused = threading.Barrier(2), []

        def set_aside(name: str) -> None:
            with opened(store_url) as own:
                ready.wait(30)
                if own.workers.set_aside(name, f"reason of {name}"):
                    paused.append(own.orders.pause(search.study_id, name))

        threads: list[Any] = [threading.Thread(target=set_aside, args=[name]) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert paused == [True]
        assert store.studies.why_paused(search.study_id) in names
