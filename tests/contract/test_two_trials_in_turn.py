"""A Search has no state of a trial in progress: one serves two trials in turn, and another continues either."""

from __future__ import annotations

import optuna
import pytest
from contract_parts import RATE, claimed, created, losses_of, result_of, spec_of
from optuna.trial import FrozenTrial, TrialState

from hpsearch.search import Search
from hpsearch.store import Store
from hpsearch.trial import Outcome

MEDIAN = {"name": "median", "startup_trials": 1, "warmup_reports": 0}
SPEC = spec_of(space=RATE, trials=3, pruner=MEDIAN)

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def trials_of(store: Store) -> list[FrozenTrial]:
    return optuna.load_study(study_name="demo", storage=store.optuna).trials


@pytest.mark.parametrize("same", [True, False], ids=["one Search", "another one each time"])
def test_each_trial_has_its_own_values_history_verdict_and_end(store: Store, same: bool) -> None:
    first = created(store, SPEC)

    def search() -> Search:
        return first if same else Search(store, SPEC)

    bar = search().start(claimed(store, first.study_id))
    search().tell(bar, result_of([1.0, 0.9]))
    good = search().start(claimed(store, first.study_id))
    bad = search().start(claimed(store, first.study_id))
    assert search().bring(good, losses_of(0.8))
    assert not search().bring(bad, losses_of(7.0))
    assert search().bring(good, losses_of(0.8, 0.7))
    search().tell(bad, result_of([7.0], Outcome.PRUNED))
    search().note(good, "noted", "of the good one")
    search().tell(good, result_of([0.8, 0.7]))
    stored = trials_of(store)
    assert [trial.state for trial in stored] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    assert [trial.intermediate_values for trial in stored] == [{1: 1.0, 2: 0.9}, {1: 0.8, 2: 0.7}, {1: 7.0}]
    assert [trial.params for trial in stored] == [bar.values, good.values, bad.values]
    assert ["noted" in trial.user_attrs for trial in stored] == [False, True, False]
    assert store.leases.slots(first.study_id).all_finished
