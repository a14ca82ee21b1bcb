"""Leases: the budget is exact, a slot has one owner, and an owner that lost it writes nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract_children import claim_until_finished
from contract_parts import LEASE_S, claimed, created, exit_codes, seconds_left, spec_of, start, taken_over
from sqlalchemy import select, update

from hpsearch.errors import LeaseLost
from hpsearch.store import Handover, Lease, Store
from hpsearch.store.engine import database_now
from hpsearch.store.leases import Slots
from hpsearch.store.tables import leases, studies


@pytest.fixture
def study_id(store: Store) -> int:
    """A study of three trials."""
    return created(store, spec_of(trials=3)).study_id


def diaries(folder: Path) -> list[tuple[str, int, int]]:
    """(what happened, slot, attempt), as the processes wrote it down."""
    words = [line.split() for diary in folder.glob("*.txt") for line in diary.read_text().splitlines()]
    return [(what, int(slot), int(attempt)) for what, slot, attempt in words]


class TestBudget:
    def test_eight_processes_share_a_hundred_slots_and_no_slot_twice(
        self, store: Store, store_url: str, tmp_path: Path
    ) -> None:
        study_id = created(store, spec_of(), trials=100).study_id
        workers = [
            start(claim_until_finished, store_url, study_id, tmp_path / f"{number}.txt", None) for number in range(8)
        ]
        assert exit_codes(workers) == [0] * 8
        entries = Counter(diaries(tmp_path))
        assert entries == {(what, slot, 1): 1 for what in ("claimed", "closed") for slot in range(100)}
        assert store.leases.slots(study_id) == Slots(wanted=100, finished=100, leased=0)

    def test_killed_processes_cost_the_budget_nothing(self, store: Store, store_url: str, tmp_path: Path) -> None:
        study_id = created(store, spec_of(), trials=40).study_id
        fates = ["claimed", "stored", "claimed", "stored", "commit", None, None, None]
        workers = [
            start(claim_until_finished, store_url, study_id, tmp_path / f"{number}.txt", fate)
            for number, fate in enumerate(fates)
        ]
        codes = exit_codes(workers)
        assert codes[5:] == [0] * 3
        assert set(codes[:4]) <= {-9, 0}  # 0: the others left it nothing to claim
        assert -9 in codes[:4]
        entries = diaries(tmp_path)
        assert max(Counter(entries).values()) == 1
        assert sorted(slot for what, slot, _ in entries if what == "closed") == list(range(40))
        taken = {(slot, attempt) for what, slot, attempt in entries if what == "claimed" and attempt > 1}
        assert len(taken) >= codes[:4].count(-9)
        assert store.leases.slots(study_id) == Slots(wanted=40, finished=40, leased=0)

    def test_a_budget_grows_and_shrinks_down_to_what_has_begun(self, store: Store, study_id: int) -> None:
        held = [claimed(store, study_id) for _ in range(3)]
        assert store.leases.claim(study_id, "host:1:1.00", LEASE_S) is None
        store.studies.update(study_id, spec_of(trials=4), 4)
        assert claimed(store, study_id).slot == 3
        assert store.leases.claim(study_id, "host:1:1.00", LEASE_S) is None
        assert store.studies.update(study_id, spec_of(trials=3), 3) == 4
        for lease in held:
            store.leases.close(lease)
        assert store.leases.slots(study_id) == Slots(wanted=4, finished=3, leased=1)
        store.studies.update(study_id, spec_of(trials=9), 9)
        assert store.studies.update(study_id, spec_of(trials=4), 4) is None
        assert store.leases.slots(study_id).wanted == 4

    def test_the_slots_of_two_studies_are_counted_apart(self, store: Store, study_id: int) -> None:
        other = created(store, spec_of(name="other", trials=1)).study_id
        assert [claimed(store, study_id).slot for _ in range(3)] == [0, 1, 2]
        store.leases.close(claimed(store, other))
        assert store.leases.slots(study_id) == Slots(wanted=3, finished=0, leased=3)
        assert store.leases.slots(other) == Slots(wanted=1, finished=1, leased=0)


class TestTakingOver:
    def test_a_lease_that_holds_has_one_owner(self, store: Store, study_id: int) -> None:
        slots = [claimed(store, study_id, f"host:{number}:1.00").slot for number in range(3)]
        assert slots == [0, 1, 2]
        assert store.leases.claim(study_id, "host:9:1.00", LEASE_S) is None

    def test_an_expired_lease_is_a_death_and_a_new_attempt(self, store: Store, study_id: int) -> None:
        first = claimed(store, study_id, duration_s=-1)
        assert store.leases.bind(first, 77) == Lease(first.lease_id, study_id, 0, 77, 1)
        second = claimed(store, study_id, "host:2:2.00", duration_s=-1)
        assert second == Lease(first.lease_id, study_id, 0, 77, 2, Handover.EXPIRED)
        store.leases.store_result(second, "the result")
        third = claimed(store, study_id)
        assert third == Lease(first.lease_id, study_id, 0, 77, 3, Handover.EXPIRED, result="the result")
        assert self._row(store, first).deaths == 2

    def test_a_claim_tells_how_many_slots_are_open(self, store: Store, study_id: int) -> None:
        told = [store.leases.claim(study_id, f"host:{number}:1.00", LEASE_S) for number in range(1, 4)]
        assert [lease and lease.at_work for lease in told] == [1, 2, 3]
        again = store.leases.claim(study_id, "host:9:1.00", LEASE_S, ["host:1:1.00"], set(range(3, 99)))
        assert again is not None
        assert (again.slot, again.at_work) == (0, 3)

    def test_a_dead_worker_s_lease_does_not_have_to_expire(self, store: Store, study_id: int) -> None:
        claimed(store, study_id, "host:1:1.00")
        dead = claimed(store, study_id, "host:2:2.00")
        found = store.leases.claim(study_id, "host:3:3.00", LEASE_S, ["host:2:2.00", "host:4:4.00"])
        assert found is not None
        assert (found.slot, found.attempt, found.handover) == (dead.slot, 2, Handover.HOLDER_DEAD)

    def test_a_lease_that_was_given_back_is_no_death(self, store: Store, study_id: int) -> None:
        store.leases.release(claimed(store, study_id))
        again = claimed(store, study_id)
        assert (again.slot, again.attempt, again.handover) == (0, 2, Handover.GIVEN_BACK)
        assert self._row(store, again).deaths == 0

    def test_what_was_left_is_taken_before_a_new_slot_and_the_lowest_first(self, store: Store, study_id: int) -> None:
        held = [claimed(store, study_id) for _ in range(2)]
        for lease in reversed(held):
            store.leases.release(lease)
        assert [claimed(store, study_id).slot for _ in range(3)] == [0, 1, 2]

    def test_the_last_slots_are_taken_where_there_is_no_other(self, store: Store, study_id: int) -> None:
        held = [claimed(store, study_id) for _ in range(2)]
        for lease in held:
            store.leases.release(lease)
        taken = [store.leases.claim(study_id, "host:2:2.00", LEASE_S, [], {0, 1}) for _ in range(4)]
        assert [lease and lease.slot for lease in taken] == [2, 0, 1, None]

    def test_a_finished_slot_is_never_leased_again(self, store: Store, study_id: int) -> None:
        for _ in range(3):
            store.leases.close(claimed(store, study_id, duration_s=-1))
        assert store.leases.claim(study_id, "host:2:2.00", LEASE_S, ["host:1:1.00"]) is None

    def test_renewing_makes_a_lease_hold_again(self, store: Store, study_id: int) -> None:
        lease = claimed(store, study_id, duration_s=-1)
        store.leases.renew(lease, LEASE_S)
        assert claimed(store, study_id).slot == 1

    @pytest.mark.parametrize("is_finished", [False, True])
    def test_an_old_attempt_can_do_nothing(self, is_finished: bool, store: Store, study_id: int) -> None:
        old = claimed(store, study_id)
        new = taken_over(store, old)
        if is_finished:
            store.leases.close(new)
            old = new
        before = self._row(store, old)
        moves: list[Callable[[], object]] = [
            lambda: store.leases.renew(old, LEASE_S),
            lambda: store.leases.release(old),
            lambda: store.leases.bind(old, 77),
            lambda: store.leases.store_result(old, "too late"),
            lambda: store.leases.close(old),
        ]
        for move in moves:
            with pytest.raises(LeaseLost, match=rf"slot 0: .*attempt {old.attempt}"):
                move()
        assert self._row(store, old) == before

    @staticmethod
    def _row(store: Store, lease: Lease) -> Any:
        with store.optuna.engine.begin() as connection:
            return connection.execute(select(leases).where(leases.c.lease_id == lease.lease_id)).one()

    def test_one_trial_is_bound_to_one_slot_only(self, store: Store, study_id: int) -> None:
        first, second = claimed(store, study_id), claimed(store, study_id)
        assert store.leases.bind(first, 77) is not None
        assert store.leases.bind(second, 77) is None
        assert store.leases.bind(second, 78) is not None


class TestAccount:
    def test_what_became_of_an_attempt_is_handed_on(self, store: Store, study_id: int) -> None:
        lease = replace(claimed(store, study_id), strikes=2, progress=7, stumbles=1, reasons=("one", "two"))
        store.leases.release(lease)
        again = claimed(store, study_id)
        assert again == replace(lease, attempt=2, handover=Handover.GIVEN_BACK)

    def test_a_step_further_than_any_before_ends_the_strikes(self, store: Store, study_id: int) -> None:
        lease = replace(claimed(store, study_id), strikes=2, progress=7)
        store.leases.note(lease)
        found = []
        for step in (0, 7, 8, 3):
            store.leases.renew(lease, LEASE_S, step)
            row = self._row(store, lease)
            found.append((row.strikes, row.progress))
        assert found == [(2, 7), (2, 7), (0, 8), (0, 8)]

    def test_slots_at_which_workers_stumbled_come_last(self, store: Store, study_id: int) -> None:
        store.leases.release(replace(claimed(store, study_id), stumbles=1))
        store.leases.release(claimed(store, study_id, "host:2:1.00"))
        assert [claimed(store, study_id).slot for _ in range(2)] == [0, 1]

    @staticmethod
    def _row(store: Store, lease: Lease) -> Any:
        with store.optuna.engine.begin() as connection:
            return connection.execute(select(leases).where(leases.c.lease_id == lease.lease_id)).one()


class TestOutages:
    @pytest.fixture
    def holder(self, store: Store, study_id: int) -> Lease:
        """A living worker whose lease ran out in the outage."""
        return claimed(store, study_id, "living:1:1.00", duration_s=-1)

    @staticmethod
    def pass_by(store: Store, study_id: int, seconds: float) -> None:
        """So long nobody reached the store; or, after that, the grace goes by."""
        with store.optuna.engine.begin() as connection:
            earlier = {"seen_at": studies.c.seen_at - seconds, "grace_until": studies.c.grace_until - seconds}
            connection.execute(update(studies).where(studies.c.study_id == study_id).values(earlier))

    @pytest.mark.parametrize("outage_s", [31, 100, 10_000])
    def test_nobody_takes_over_before_holders_had_time_to_renew(
        self, outage_s: float, store: Store, study_id: int, holder: Lease
    ) -> None:
        self.pass_by(store, study_id, outage_s)
        assert claimed(store, study_id, "other:1:1.00").slot == 1
        store.leases.renew(holder, LEASE_S)
        assert claimed(store, study_id, "other:1:1.00").slot == 2

    def test_the_first_to_return_may_renew(self, store: Store, study_id: int, holder: Lease) -> None:
        second = claimed(store, study_id, "living:2:1.00", duration_s=-1)
        assert second.slot == 0, "without an outage a lease that ran out is taken over"
        self.pass_by(store, study_id, 1000)
        store.leases.renew(second, LEASE_S)
        other = claimed(store, study_id, "living:3:1.00", duration_s=-1)
        assert (other.slot, claimed(store, study_id).slot) == (1, 2)
        del holder

    def test_after_the_grace_the_silent_are_taken_over(self, store: Store, study_id: int, holder: Lease) -> None:
        self.pass_by(store, study_id, 1000)
        assert claimed(store, study_id, "other:1:1.00").slot == 1
        with store.optuna.engine.begin() as connection:
            connection.execute(update(studies).values(grace_until=studies.c.grace_until - 61))
        assert claimed(store, study_id, "other:1:1.00").slot == holder.slot

    def test_those_that_are_certainly_dead_are_given_no_grace(self, store: Store, study_id: int, holder: Lease) -> None:
        self.pass_by(store, study_id, 1000)
        found = store.leases.claim(study_id, "other:1:1.00", LEASE_S, ["living:1:1.00"])
        assert found is not None
        assert (found.slot, found.handover) == (holder.slot, Handover.HOLDER_DEAD)


class TestTime:
    def test_the_database_s_clock_counts_in_seconds_since_1970(self, store: Store) -> None:
        with store.optuna.engine.begin() as connection:
            assert database_now(connection) == pytest.approx(time.time(), abs=60)

    @pytest.mark.parametrize("this_host_s_time", [0.0, 1e11])
    def test_the_clock_of_a_worker_s_host_does_not_matter(
        self, this_host_s_time: float, store: Store, study_id: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claimed(store, study_id, "host:1:1.00", duration_s=100)
        monkeypatch.setattr(time, "time", lambda: this_host_s_time)
        assert seconds_left(store, study_id)["host:1:1.00"] == pytest.approx(100, abs=30)
        wrong = claimed(store, study_id, "host:2:2.00", duration_s=100)
        assert wrong.slot == 1
        monkeypatch.undo()
        assert seconds_left(store, study_id)["host:2:2.00"] == pytest.approx(100, abs=30)
        assert claimed(store, study_id).slot == 2
