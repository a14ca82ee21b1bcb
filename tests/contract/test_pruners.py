"""Every pruner, through Search: a losing trial is stopped, a winning one never."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from contract_parts import RATE, WatchedStorage, claimed, created, ended, losses_of, result_of, spec_of
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from hpsearch.search import Search
from hpsearch.search.pruners import make_pruner, sees_others, sees_running
from hpsearch.spec import StudySpec
from hpsearch.spec import search as specs
from hpsearch.spec.base import Spec
from hpsearch.spec.search import PRUNERS, SAMPLERS
from hpsearch.store import Store
from hpsearch.trial import Outcome

pytestmark = pytest.mark.no_pooler

REPORTS = 4
BAD = [10.0 + step for step in range(REPORTS)]
BEST = [0.5 - step / 10 for step in range(REPORTS)]


def spec_with(pruner: Any) -> StudySpec:
    return spec_of(space=RATE, sampler="random", pruner=pruner, budget={"reports": REPORTS})


def searching(store: Store, pruner: Any, num_good: int = 6) -> Search:
    """A study with some trials that have all done well."""
    search = created(store, spec_with(pruner))
    for number in range(num_good):
        losses = [2.0 - step / 10 + number / 100 for step in range(REPORTS)]
        ended(search, claimed(store, search.study_id), result_of(losses))
    return search


def stopped_at(store: Store, search: Search, losses: Sequence[float]) -> int | None:
    """The report after which the pruner stops a new trial; None when it may run to its end."""
    trial = search.start(claimed(store, search.study_id))
    reports = losses_of(*losses)
    for step in range(1, len(reports) + 1):
        if not search.bring(trial, reports[:step]):
            search.tell(trial, result_of(losses[:step], Outcome.PRUNED))
            return step
    search.tell(trial, result_of(losses))
    return None


def test_each_class_with_a_name_can_be_named() -> None:
    found = [each for each in vars(specs).values() if isinstance(each, type) and issubclass(each, Spec)]
    named = [each for each in found if "name" in each.model_fields]
    assert len(named) > 10
    unknown = [each.__name__ for each in named if each not in (*PRUNERS.values(), *SAMPLERS.values())]
    assert unknown == [], "is in neither AnyPruner nor AnySampler of hpsearch/spec/search.py: no study can name it"


@pytest.mark.parametrize("name", PRUNERS)
def test_each_is_made(name: str) -> None:
    """Optuna would take its own default in the place of None."""
    made = make_pruner(PRUNERS[name].model_validate({"name": name}), REPORTS)
    assert isinstance(made, BasePruner), f"make_pruner in hpsearch/search/pruners.py has no case for {name}"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
class TestEveryPruner:
    @pytest.mark.parametrize("pruner", PRUNERS)
    def test_any_worker_s_bad_trial_is_stopped_and_the_best_is_not(self, pruner: str, store: Store) -> None:
        search = searching(store, pruner)
        assert stopped_at(store, search, BEST) is None
        other = Search(store, spec_with(pruner))
        step = stopped_at(store, other, BAD)
        assert (step is None) == (pruner == "none")
        best, bad = store.optuna.get_all_trials(search.study_id)[-2:]
        assert (best.state, best.value) == (TrialState.COMPLETE, BEST[-1])
        assert bad.state is (TrialState.COMPLETE if step is None else TrialState.PRUNED)
        assert bad.value == (BAD[step - 1] if step else min(BAD)), "a pruned trial has its last report"


@pytest.mark.parametrize("name", PRUNERS)
def test_it_looks_at_those_trials_that_are_said_of_it(name: str) -> None:
    """Which others Search reads for it, `sees_others` and `sees_running` in search/pruners.py say."""
    storage = WatchedStorage()
    study = optuna.create_study(storage=storage)
    for number in range(7):
        trial = study.ask()
        for step in range(REPORTS):
            trial.report(BAD[step] if number == 6 else BEST[step], step)
        if number < 5:  # the last but one continues, and so does its own
            study.tell(trial, BEST[-1])
    own = study.trials[-1]
    storage.asked_for.clear()
    spec = PRUNERS[name].model_validate({"name": name})
    make_pruner(spec, REPORTS).prune(study, own)
    reads, says = bool(storage.asked_for), sees_others(spec)
    assert reads == says, f"{name}: sees_others in hpsearch/search/pruners.py says {says}, and {reads} is right"
    reads, says = storage.is_asked_for_running, sees_running(spec)
    assert reads == says, f"{name}: sees_running in hpsearch/search/pruners.py says {says}, and {reads} is right"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
class TestSettings:
    @pytest.mark.parametrize("name", ["median", "percentile"])
    def test_the_first_trials_run_to_their_end(self, name: str, store: Store) -> None:
        search = searching(store, {"name": name, "startup_trials": 2, "warmup_reports": 0}, num_good=1)
        assert stopped_at(store, search, BAD) is None
        assert stopped_at(store, search, [step + 1 for step in BAD]) == 1

    @pytest.mark.parametrize("name", ["median", "percentile"])
    @pytest.mark.parametrize("warmup", [1, 2])
    def test_warm_up_reports_stop_nothing(self, name: str, warmup: int, store: Store) -> None:
        search = searching(store, {"name": name, "warmup_reports": warmup})
        assert stopped_at(store, search, BAD) == warmup + 1

    @pytest.mark.parametrize(("keep_percent", "stopped"), [(25, 1), (75, None)])
    def test_the_share_to_keep_is_a_share_of_the_best(
        self, keep_percent: int, stopped: int | None, store: Store
    ) -> None:
        pruner = {"name": "percentile", "keep_percent": keep_percent, "warmup_reports": 0}
        middle = [2.0 - step / 10 + 0.025 for step in range(REPORTS)]  # worse than three of six
        assert stopped_at(store, searching(store, pruner), middle) == stopped

    def test_halving_begins_at_its_first_report(self, store: Store) -> None:
        search = searching(store, {"name": "successive-halving", "min_reports": 2, "reduction_factor": 2})
        assert stopped_at(store, search, BAD) == 2

    @pytest.mark.parametrize("patience", [1, 3])
    def test_patience_counts_reports_without_an_improvement(self, patience: int, store: Store) -> None:
        search = searching(store, {"name": "patient", "patience": patience}, num_good=0)
        improving_until_two = [2.0, 1.0, 1.5, 1.5, 1.5, 1.5]
        assert stopped_at(store, search, improving_until_two) == 2 + patience
