"""Search: what it enqueues, takes, reports and ends, and that each can be done twice."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import optuna
import pytest
from contract_parts import (
    MIXED,
    RATE,
    claimed,
    created,
    elsewhere,
    ended,
    ledger_of,
    losses_of,
    result_of,
    spec_of,
    taken_over,
    told,
    toy,
    worked,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

import hpsearch.search.search as search_module
import hpsearch.search.slots as slots_module
from hpsearch.errors import LeaseLost, TrialEnded
from hpsearch.search import Search
from hpsearch.search.facts import facts
from hpsearch.spec.metrics import LOSS
from hpsearch.store import Store
from hpsearch.store.leases import Slots
from hpsearch.trial import GIB, Outcome, TrialResult

DEFAULTS = {"training.learning_rate": 2e-4, "lora.r": 16}


def trials_of(store: Store, search: Search) -> list[FrozenTrial]:
    return store.optuna.get_all_trials(search.study_id)


def queue(url: str, *values: dict[str, Any]) -> None:
    """Enqueues as a user does, with stock Optuna."""
    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name="demo", storage=storage)
    for one in values:
        study.enqueue_trial(one)
    storage.engine.dispose()


class TestDefaults:
    def test_the_file_s_own_values_are_tried_first_and_once(self, store: Store) -> None:
        spec = spec_of(space={**RATE, "lora.r": MIXED["lora.r"]}, trials=3)
        search = created(store, spec)
        tried = worked(store, search)
        assert len(tried) == 3
        assert [values == DEFAULTS for values in tried] == [True, False, False]
        assert [trial.user_attrs.get("defaults") for trial in trials_of(store, search)] == [True, None, None]

    @pytest.mark.parametrize(
        "search",
        [
            {"space": {**RATE, "lora.r": {"low": 32, "high": 64}}},
            {"space": {"lora.target_modules": MIXED["lora.target_modules"]}},
            {"space": {"lora.dropout": {"low": 0, "high": 0.2, "step": 0.1}}},
            {"space": {"lora.r": [8, 16]}, "sampler": "grid"},
        ],
        ids=["outside of a range", "not among the choices", "between two steps", "grid"],
    )
    def test_values_that_the_space_lacks_are_not_tried(self, search: dict[str, Any], store: Store) -> None:
        made = created(store, spec_of(**search))
        made.start(claimed(store, made.study_id))
        (trial,) = trials_of(store, made)
        assert "defaults" not in trial.user_attrs
        assert "fixed_params" not in trial.system_attrs

    def test_they_are_not_tried_again_where_an_older_hpsearch_has_enqueued_them(self, store: Store) -> None:
        search = created(store, spec_of(space=RATE, trials=2))
        study = optuna.load_study(study_name="demo", storage=store.optuna)
        study.enqueue_trial({"training.learning_rate": 2e-4}, user_attrs={"defaults": True})
        tried = worked(store, search)
        assert [values["training.learning_rate"] == 2e-4 for values in tried] == [True, False]


class TestWaitingTrials:
    def test_a_trial_that_a_person_enqueued_is_run_and_counted(self, store: Store, store_url: str) -> None:
        search = created(store, spec_of(trials=3))
        modules = '["q_proj", "v_proj"]'
        queue(store_url, {"lora.r": 5, "lora.target_modules": modules}, {"training.learning_rate": 1e-5})
        tried = worked(store, search)
        assert len(tried) == 3
        assert (tried[0]["lora.r"], tried[0]["lora.target_modules"]) == (5, ["q_proj", "v_proj"])
        assert tried[1]["training.learning_rate"] == 1e-5
        assert all(set(values) == set(MIXED) for values in tried)
        assert [trial.state for trial in trials_of(store, search)] == [TrialState.COMPLETE] * 3

    def test_the_budget_ends_before_the_queue_does(self, store: Store, store_url: str) -> None:
        search = created(store, spec_of(space=RATE, trials=2))
        queue(store_url, *({"training.learning_rate": rate} for rate in (1e-5, 2e-5, 3e-5)))
        assert [values["training.learning_rate"] for values in worked(store, search)] == [1e-5, 2e-5]
        states = [trial.state for trial in trials_of(store, search)]
        assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.WAITING]

    def test_two_workers_take_two_waiting_trials(self, store: Store, store_url: str) -> None:
        search = created(store, spec_of(space=RATE))
        queue(store_url, {"training.learning_rate": 1e-5}, {"training.learning_rate": 2e-5})
        leases = [claimed(store, search.study_id) for _ in range(2)]
        rates = [Search(store, spec_of(space=RATE)).start(lease).values for lease in leases]
        assert rates == [{"training.learning_rate": 1e-5}, {"training.learning_rate": 2e-5}]

    @pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            ({"lora.target_modules": "all-linear"}, "lora.target_modules: 'all-linear' is not in the space"),
            ({"lora.r": 5, "training.learning_rate": -1.0}, "training.learning_rate: -1.0 is not in the space"),
            ({"learning_rate": 1e-5}, "learning_rate is not searched; did you mean 'training.learning_rate'?"),
        ],
    )
    def test_a_person_s_impossible_values_end_their_trial_and_cost_no_slot(
        self, wrong: dict[str, Any], reason: str, store: Store, store_url: str
    ) -> None:
        search = created(store, spec_of(trials=2))
        queue(store_url, wrong)
        assert len(worked(store, search)) == 2
        assert store.leases.slots(search.study_id) == Slots(wanted=2, finished=2, leased=0)
        refused, *others = trials_of(store, search)
        assert (refused.state, refused.user_attrs["outcome"]) == (TrialState.FAIL, "failed")
        assert refused.user_attrs["reason"].startswith(reason)
        assert [trial.state for trial in others] == [TrialState.COMPLETE] * 2

    def test_two_workers_refuse_one_trial_at_the_same_moment(
        self, store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = spec_of(space=RATE)
        search, misfit = created(store, spec), slots_module.misfit
        queue(store_url, {"training.learning_rate": -1.0})
        leases = [claimed(store, search.study_id) for _ in range(2)]

        def at_the_same_moment(*arguments: Any) -> str | None:
            monkeypatch.undo()
            elsewhere(lambda: Search(store, spec).start(leases[1]))
            return misfit(*arguments)

        monkeypatch.setattr(slots_module, "misfit", at_the_same_moment)
        search.start(leases[0])
        states = [trial.state for trial in trials_of(store, search)]
        assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.RUNNING]

    @pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
    def test_half_a_point_beside_a_grid_is_refused_and_the_grid_stays_whole(self, store: Store, store_url: str) -> None:
        grid = {"lora.r": [4, 8], "lora.alpha": [8, 16]}
        search = created(store, spec_of(sampler="grid", space=grid), trials=4)
        queue(store_url, {"lora.r": 4})
        tried = {(values["lora.r"], values["lora.alpha"]) for values in worked(store, search, losses=lambda _: [1.0])}
        assert tried == {(4, 8), (4, 16), (8, 8), (8, 16)}
        assert trials_of(store, search)[0].state is TrialState.FAIL


class TestReports:
    def test_the_history_is_what_the_present_attempt_reported(self, store: Store) -> None:
        search = created(store, spec_of(space=RATE))
        first = search.start(claimed(store, search.study_id))
        told(search, first, *losses_of(2.0, 2.5, 9.0))
        other = Search(store, spec_of(space=RATE))
        second = other.start(taken_over(store, first.lease))
        assert (second.number, second.values) == (first.number, first.values)
        other.bring(second, losses_of(2.0))
        assert trials_of(store, search)[0].intermediate_values == {1: 2.0}
        other.bring(second, losses_of(2.0, 1.0))
        assert trials_of(store, search)[0].intermediate_values == {1: 2.0, 2: 1.0}
        with store.optuna.engine.begin() as connection:
            assert connection.execute(text("SELECT count(*) FROM trial_intermediate_values")).scalar_one() == 2

    @pytest.mark.parametrize("moment", ["suggest_all", "bring_values", "facts"])
    def test_a_trial_may_be_ended_from_outside_at_any_moment(
        self, store: Store, moment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        search = created(store, spec_of())
        as_it_is = getattr(search_module, moment)

        def ended_before(*arguments: Any) -> Any:
            study = optuna.load_study(study_name="demo", storage=store.optuna)
            elsewhere(lambda: study.tell(0, state=TrialState.FAIL, skip_if_finished=True))
            return as_it_is(*arguments)

        monkeypatch.setattr(search_module, moment, ended_before)
        trial = search.start(claimed(store, search.study_id))
        assert trial.is_ended == (moment == "suggest_all")
        if not trial.is_ended:
            with pytest.raises(TrialEnded) if moment == "bring_values" else nullcontext():
                search.bring(trial, losses_of(1.0))
            search.tell(trial, result_of([1.0]))
        assert store.optuna.get_trial(1).state is TrialState.FAIL

    def test_a_trial_that_was_ended_from_outside_takes_no_report(self, store: Store) -> None:
        search = created(store, spec_of(space=RATE))
        trial = search.start(claimed(store, search.study_id))
        optuna.load_study(study_name="demo", storage=store.optuna).tell(trial.number, 0.5)
        with pytest.raises(TrialEnded, match="trial 0 was ended by another program, as COMPLETE"):
            search.bring(trial, losses_of(2.0))
        again = Search(store, spec_of(space=RATE)).start(taken_over(store, trial.lease))
        assert again.is_ended

    def test_a_loss_that_is_no_number_is_kept_too(self, store: Store) -> None:
        search = created(store, spec_of(space=RATE))
        trial = search.start(claimed(store, search.study_id))
        told(search, trial, *losses_of(math.inf, math.nan))
        (stored,) = trials_of(store, search)
        assert [str(loss) for loss in stored.intermediate_values.values()] == ["inf", "nan"]


class TestTelling:
    @pytest.mark.parametrize(
        ("result", "state", "value"),
        [
            (result_of([2.0, 1.5]), TrialState.COMPLETE, 1.5),
            (result_of([2.0, 1.5], Outcome.PRUNED), TrialState.PRUNED, 1.5),
            (result_of([2.0, math.nan], Outcome.DIVERGED), TrialState.PRUNED, None),
            (TrialResult(outcome=Outcome.OUT_OF_MEMORY), TrialState.PRUNED, None),
            (TrialResult(outcome=Outcome.FAILED, reason="it crashed"), TrialState.FAIL, None),
        ],
        ids=lambda case: str(case.outcome) if isinstance(case, TrialResult) else "",
    )
    def test_each_outcome_has_its_state_and_telling_twice_changes_nothing(
        self, result: TrialResult, state: TrialState, value: float | None, store: Store
    ) -> None:
        search = created(store, spec_of(space=RATE))
        trial = search.start(claimed(store, search.study_id))
        told(search, trial, *result.reports)
        search.tell(trial, result)
        (ended_trial,) = trials_of(store, search)
        assert (ended_trial.state, ended_trial.value) == (state, value)
        assert ended_trial.user_attrs == {**facts(result, LOSS), "attempts": 1, "defaults": True}
        search.tell(trial, result)  # the store's answer was lost
        with pytest.raises(LeaseLost):
            search.tell(trial, result_of([9.0]))
        assert store.leases.slots(search.study_id).finished == 1
        assert [repr(trial) for trial in trials_of(store, search)] == [repr(ended_trial)]

    def test_a_memory_budget_becomes_a_constraint_of_every_trial(self, store: Store) -> None:
        search = created(store, spec_of(space=RATE, budget={"memory_gib": 16}))
        results = [
            result_of([1.0], ledger=ledger_of(8 * GIB)),
            result_of([1.0], ledger=ledger_of(24 * GIB)),
            TrialResult(outcome=Outcome.OUT_OF_MEMORY, bytes_needed=32 * GIB),
            result_of([2.0]),
        ]
        for result in results:
            ended(search, claimed(store, search.study_id), result)
        trials = trials_of(store, search)
        assert [trial.constraints for trial in trials] == [{"device memory": x} for x in (-0.5, 0.5, 1.0, -1.0)]
        assert optuna.load_study(study_name="demo", storage=store.optuna).best_trial.number == 0

    def test_a_study_is_described_for_the_dashboard(self, store: Store) -> None:
        search = created(store, spec_of())
        search.describe()
        study = optuna.load_study(study_name="demo", storage=store.optuna)
        assert study.user_attrs == {"description": None, "task": "text-sft", "base": "tiny:qwen2"}
        assert study.metric_names == ["validation loss"]
        assert study.direction.name == "MINIMIZE"

    def test_a_finished_study_that_gets_more_trials_goes_on(self, store: Store) -> None:
        search = created(store, spec_of(space=RATE, trials=2))
        assert len(worked(store, search)) == 2
        assert worked(store, search) == []
        store.studies.update(search.study_id, spec_of(space=RATE, trials=3), 3)
        assert len(worked(store, Search(store, spec_of(space=RATE, trials=3)))) == 1
        assert [trial.number for trial in trials_of(store, search)] == [0, 1, 2]
        assert {trial.value for trial in trials_of(store, search)} == {
            toy(trial.params)[-1] for trial in trials_of(store, search)
        }
