"""Every sampler, through Search: what it proposes is valid, new, and learned from the trials before."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from pathlib import Path
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
    opened,
    result_of,
    spec_of,
    toy,
    worked,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from hpsearch.search import Search
from hpsearch.search.samplers import make_sampler, sees_running
from hpsearch.search.space import distributions
from hpsearch.spec import StudySpec
from hpsearch.spec.search import SAMPLERS
from hpsearch.spec.study import Values
from hpsearch.store import Store
from hpsearch.trial import GIB, Outcome, TrialResult

pytestmark = pytest.mark.no_pooler

LEARNING: list[Any] = [
    {"name": "tpe", "startup_trials": 5},
    {"name": "gp", "startup_trials": 9},
    {"name": "cmaes", "startup_trials": 2},
]
WITH_FEW_TO_LEARN_FROM = {sampler["name"]: sampler for sampler in LEARNING}
ANY_SPACE = [WITH_FEW_TO_LEARN_FROM.get(name, {"name": name}) for name in SAMPLERS if name != "grid"]
GRID = {
    "lora.r": [4, 8],
    "lora.dropout": {"low": 0.05, "high": 0.1, "step": 0.05},
    "lora.target_modules": [["q_proj"], ["q_proj", "v_proj"]],
}


def trials_of(store: Store, search: Search) -> list[FrozenTrial]:
    return store.optuna.get_all_trials(search.study_id)


def assert_valid(spec: StudySpec, values: Values) -> None:
    """In the space, and of the kind that the spec's field holds."""
    assert set(values) == set(MIXED)
    assert spec.with_values(values).defaults() == values
    assert 1e-6 <= values["training.learning_rate"] <= 1.0001e-3
    assert values["lora.dropout"] == pytest.approx(round(values["lora.dropout"] / 0.05) * 0.05)
    assert 0 <= values["lora.dropout"] <= 0.2
    assert values["lora.r"] in range(4, 17)
    assert type(values["lora.r"]) is int
    assert values["training.optimizer"] in ("adamw_torch", "sgd")
    assert values["lora.target_modules"] in (["q_proj"], ["q_proj", "v_proj"])


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_is_made(name: str) -> None:
    """Optuna would take its own default in the place of None."""
    space = spec_of(space=GRID).searched.space
    made = make_sampler(SAMPLERS[name].model_validate({"name": name}), space, seed=0, slot=0)
    assert isinstance(made, BaseSampler), f"make_sampler in hpsearch/search/samplers.py has no case for {name}"


@pytest.mark.parametrize("sampler", ANY_SPACE, ids=lambda sampler: sampler["name"])
class TestEverySampler:
    def test_twelve_trials_of_a_mixed_space_are_valid_and_new(
        self,
        sampler: dict[str, Any],
        store: Store,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(logging.getLogger("optuna"), "propagate", True)
        spec = spec_of(sampler=sampler, trials=12, pruner="none")
        search = created(store, spec)
        tried = worked(store, search, losses=lambda values: toy(values)[-1:])
        assert len(tried) == 12
        for values in tried:
            assert_valid(spec, values)
        assert len({values["training.learning_rate"] for values in tried}) == 12
        for knob in ("lora.target_modules", "training.optimizer", "lora.r"):
            assert len({str(values[knob]) for values in tried}) > 1
        assert [trial.state for trial in trials_of(store, search)] == [TrialState.COMPLETE] * 12
        assert caplog.messages == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
class TestWorkersSideBySide:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("tpe", TPESampler),
            ("gp", GPSampler),
            ("cmaes", CmaEsSampler),
            ("random", RandomSampler),
            ("qmc", QMCSampler),
        ],
    )
    def test_two_workers_that_start_at_the_same_moment_differ(
        self, name: str, kind: type[BaseSampler], store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = spec_of(sampler=name, seed=7)
        first, sample_relative = created(store, spec), kind.sample_relative
        leases = [claimed(store, first.study_id) for _ in range(2)]
        seconds: list[Values] = []

        def at_the_same_moment(*arguments: Any) -> Any:
            monkeypatch.undo()
            with opened(store_url) as other:
                seconds.append(elsewhere(lambda: Search(other, spec).start(leases[1]).values))
            return sample_relative(*arguments)

        monkeypatch.setattr(kind, "sample_relative", at_the_same_moment)
        values = first.start(leases[0]).values
        assert len(seconds) == 1
        for knob in ("training.learning_rate", "lora.r"):
            assert values[knob] != seconds[0][knob]

    def test_the_seed_decides_and_the_slot(self, store: Store) -> None:
        def first_two(name: str, seed: int) -> list[Values]:
            search = created(store, spec_of(name=name, seed=seed))
            return [search.start(claimed(store, search.study_id)).values for _ in range(2)]

        one, again, other = first_two("one", 1), first_two("again", 1), first_two("other", 2)
        assert one == again
        assert len({values["training.learning_rate"] for values in (*one, *other)}) == 4

    def test_after_a_lost_lease_the_sampler_sees_what_others_did_meanwhile(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = spec_of(sampler={"name": "tpe", "startup_trials": 3}, space=RATE, trials=8)
        search = created(store, spec)
        search.start(claimed(store, search.study_id))  # lost: neither ended nor closed
        assert len(worked(store, Search(store, spec))) == 7
        store.studies.update(search.study_id, spec, 9)
        seen: list[int] = []
        sample = TPESampler.sample_relative

        def spy(self: Any, study: optuna.Study, *rest: Any) -> Any:
            seen.append(len(study._get_trials(deepcopy=False, states=[TrialState.COMPLETE], use_cache=True)))
            return sample(self, study, *rest)

        monkeypatch.setattr(TPESampler, "sample_relative", spy)
        search.start(claimed(store, search.study_id))
        assert seen == [7]

    def test_each_slot_has_its_own_point_of_one_quasi_random_sequence(self, store: Store) -> None:
        def rates(name: str, *, is_reversed: bool) -> dict[int, float]:
            search = created(store, spec_of(name=name, sampler="qmc", space=RATE, trials=8))
            leases = [claimed(store, search.study_id) for _ in range(8)]
            order = reversed(leases) if is_reversed else leases
            return {lease.slot: search.start(lease).values["training.learning_rate"] for lease in order}

        found = rates("forward", is_reversed=False)
        assert rates("backward", is_reversed=True) == found
        eighths = [math.floor(8 * math.log(rate / 1e-6) / math.log(1e3)) for rate in found.values()]
        assert sorted(eighths) == list(range(8))


@pytest.mark.parametrize("name", SAMPLERS)
def test_unfinished_trials_matter_to_whom_it_is_said(name: str) -> None:
    """For others Search reads none (`sees_running` in search/samplers.py)."""
    spec, space = (
        SAMPLERS[name].model_validate({"name": name}),
        spec_of(space=GRID if name == "grid" else RATE).searched.space,
    )

    def proposed(*, is_running: bool) -> dict[str, Any]:
        """For slot 12, beside a running trial of this sampler, or a failed one, which has no effect."""
        study = optuna.create_study(sampler=RandomSampler(seed=0))
        for number in range(11):
            study.tell(study.ask(distributions(space)), float(number))
        study.sampler = make_sampler(spec, space, seed=0, slot=11) if is_running else study.sampler
        other = study.ask(distributions(space))
        if not is_running:
            study.tell(other, state=TrialState.FAIL)
        study.sampler = make_sampler(spec, space, seed=0, slot=12)
        return study.ask(distributions(space)).params

    reads, says = proposed(is_running=True) != proposed(is_running=False), sees_running(spec)
    assert reads == says, f"{name}: sees_running in hpsearch/search/samplers.py says {says}, and {reads} is right"


class TestGrid:
    def test_each_point_is_visited_once_and_the_end_raises_nothing(self, store: Store) -> None:
        spec = spec_of(sampler="grid", space=GRID)
        search = created(store, spec, trials=spec.grid_size())
        tried = worked(store, search, losses=lambda _: [1.0])
        points = itertools.product([4, 8], [0.05, 0.1], [["q_proj"], ["q_proj", "v_proj"]])
        found = [(v["lora.r"], v["lora.dropout"], v["lora.target_modules"]) for v in tried]
        assert sorted(found) == sorted(points)

    def test_a_grid_of_one_knob_ends_with_all_trials_complete(self, store: Store) -> None:
        search = created(store, spec_of(sampler="grid", space={"lora.r": [4, 8, 16]}), trials=3)
        assert len(worked(store, search, losses=lambda _: [1.0])) == 3
        assert [trial.state for trial in trials_of(store, search)] == [TrialState.COMPLETE] * 3


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """For what does not depend on the database."""
    with opened(f"sqlite:///{tmp_path / 'one.db'}") as store:
        yield store


class TestOutcomes:
    @pytest.mark.parametrize("sampler", LEARNING, ids=lambda sampler: sampler["name"])
    def test_trials_that_went_wrong_stop_no_sampler(self, sampler: dict[str, Any], sqlite_store: Store) -> None:
        search = created(sqlite_store, spec_of(sampler={**sampler, "startup_trials": 1}, space=RATE))
        results = [
            result_of([2.0]),
            TrialResult(outcome=Outcome.OUT_OF_MEMORY),
            result_of([3.0]),
            result_of([2.5, math.nan], Outcome.DIVERGED),
            TrialResult(outcome=Outcome.FAILED, reason="it crashed"),
            result_of([1.5]),
        ]
        for result in results:
            ended(search, claimed(sqlite_store, search.study_id), result)
        states = [trial.state.name for trial in trials_of(sqlite_store, search)]
        assert states == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED", "FAIL", "COMPLETE"]

    def test_gp_goes_on_after_workers_with_and_without_a_gpu(self, sqlite_store: Store) -> None:
        sampler = {"name": "gp", "startup_trials": 2}
        search = created(sqlite_store, spec_of(sampler=sampler, space=RATE, budget={"memory_gib": 16}))
        for peak in (0, 8 * GIB, 8 * GIB):
            result = result_of([2.0], ledger=ledger_of(peak))
            ended(search, claimed(sqlite_store, search.study_id), result)

    @pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
    def test_a_memory_budget_makes_cmaes_print_nothing(self, store: Store) -> None:
        search = created(store, spec_of(sampler="cmaes", space=RATE, budget={"memory_gib": 16}))
        ended(search, claimed(store, search.study_id), result_of([2.0], ledger=ledger_of(8 * GIB)))

    def test_the_sampler_stays_away_from_where_memory_ran_out(self, sqlite_store: Store) -> None:
        learned = self._out_of_memory(sqlite_store, Outcome.OUT_OF_MEMORY)
        forgotten = self._out_of_memory(sqlite_store, Outcome.FAILED)
        assert forgotten >= 20
        assert learned <= 0.7 * forgotten

    @staticmethod
    def _out_of_memory(store: Store, told_as: Outcome) -> int:
        """How many of 30 trials run out of memory where the losses get better towards the edge."""
        space = {**RATE, "lora.r": {"low": 4, "high": 64}}
        sampler = {"name": "tpe", "startup_trials": 5}
        search = created(store, spec_of(name=told_as.name, space=space, sampler=sampler, trials=30))
        too_large = 0
        for _ in range(30):
            lease = claimed(store, search.study_id)
            trial = search.start(lease)
            rate, r = trial.values["training.learning_rate"], trial.values["lora.r"]
            result = result_of([3 - r / 20 + abs(math.log(rate / 3e-5)) / 5])
            if r > 20:
                too_large += 1
                result = TrialResult(outcome=told_as, bytes_needed=20 * GIB)
            search.tell(trial, result)
        return too_large
