"""A worker is killed at every point of a trial: the next one continues, and the study ends with exactly its trials."""

from __future__ import annotations

import pytest
from contract_children import die_in_trial
from contract_parts import RATE, created, exit_codes, spec_of, start, toy, worked
from optuna.trial import TrialState

from hpsearch.store import Store
from hpsearch.store.leases import Slots

TRIALS = 3
SPACE = {**RATE, "lora.r": {"low": 4, "high": 16}, "lora.alpha": {"low": 8, "high": 64}}
LEFT: dict[str, list[int]] = {
    "between claim and bind": [],
    "between the trial's creation and bind": [],
    "between bind and suggesting": [0],
    "in the middle of suggesting": [0],
    "in the middle of writing what was suggested": [0],
    "between two reports": [3],
    "in the middle of telling": [3],
    "where telling went wrong": [3],
    "after it was told": [3],
}
"""Moment → how many parameters each trial has at it."""
HAS_RESULT = list(LEFT)[-2:]


@pytest.mark.parametrize("moment", LEFT)
class TestKilledWorker:
    def test_the_next_worker_goes_on_and_the_budget_is_exact(self, moment: str, store: Store, store_url: str) -> None:
        spec = spec_of(space=SPACE, trials=TRIALS, sampler={"name": "tpe", "startup_trials": 2})
        search = created(store, spec)
        assert exit_codes([start(die_in_trial, store_url, spec.model_dump_json(), moment)]) == [-9]
        left = [trial.params for trial in store.optuna.get_all_trials(search.study_id)]
        assert [len(params) for params in left] == LEFT[moment]

        tried = worked(store, search)

        trials = store.optuna.get_all_trials(search.study_id)
        assert [trial.number for trial in trials] == list(range(TRIALS))
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
        told_by_the_first = 1 if moment == "after it was told" else 0
        assert [trial.params for trial in trials[told_by_the_first:]] == tried
        assert len({str(trial.params) for trial in trials}) == TRIALS
        assert [trial.value for trial in trials] == [toy(trial.params)[-1] for trial in trials]
        assert all(len(trial.intermediate_values) == 2 for trial in trials)
        assert all(params.items() <= trials[0].params.items() for params in left)
        assert store.leases.slots(search.study_id) == Slots(wanted=TRIALS, finished=TRIALS, leased=0)
        told = [trial.user_attrs.get("reason") for trial in trials]
        assert told == ["told by the first worker" if moment in HAS_RESULT else None, None, None]
        attempts = [trial.user_attrs["attempts"] for trial in trials]
        assert attempts == [1 if moment == "after it was told" else 2, 1, 1]
