"""What a search aims at: a metric that is to be high, and several objectives at once."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from contract_parts import MIXED, RATE, claimed, created, ledger_of, spec_of, taken_over
from optuna.samplers import CmaEsSampler
from optuna.trial import TrialState

from hpsearch.search import Search
from hpsearch.search.view import StudyView, read_view
from hpsearch.spec import StudySpec
from hpsearch.spec.study import Values
from hpsearch.store import Store
from hpsearch.trial import GIB, Outcome, Report, TrialResult

pytestmark = pytest.mark.no_pooler

TWO: list[str] = ["balanced_accuracy", "loss"]
Scores = tuple[float, float]
"""(loss, balanced accuracy) of one report."""


def aiming(at: str | list[str], **more: Any) -> StudySpec:
    return spec_of(**{"space": RATE, **more}).model_copy(update={"objective": at})


def reports_of(scores: Sequence[Scores]) -> list[Report]:
    return [
        Report(step=step, loss=loss, metrics={"balanced_accuracy": accuracy})
        for step, (loss, accuracy) in enumerate(scores, start=1)
    ]


def run(store: Store, search: Search, scores: Sequence[Scores], **more: Any) -> bool:
    """A trial from its claim to its end, stopped if the pruner says so; returns whether it reached its end."""
    trial = search.start(claimed(store, search.study_id))
    made: list[Report] = []
    goes_on = True
    for report in reports_of(scores):
        made.append(report)
        goes_on = search.bring(trial, made)
        if not goes_on:
            break
    outcome = Outcome.COMPLETE if goes_on else Outcome.PRUNED
    search.tell(trial, TrialResult(outcome=outcome, reports=made, **more))
    return goes_on


def seen(store: Store) -> StudyView:
    stored = store.studies.find("demo")
    assert stored is not None
    return read_view(store, stored)


def stock(store: Store) -> optuna.Study:
    return optuna.load_study(study_name="demo", storage=store.optuna)


class TestMetric:
    def test_the_best_trial_is_the_highest_one_whatever_its_loss(self, store: Store) -> None:
        search = created(store, aiming("balanced_accuracy"))
        search.describe()
        for scores in ((0.2, 0.5), (0.9, 0.8), (0.1, 0.7)):
            run(store, search, [scores])
        view, study = seen(store), stock(store)
        assert (study.direction.name, study.metric_names) == ("MAXIMIZE", ["balanced accuracy"])
        assert study.best_trial.number == 1
        assert view.best is not None
        assert (view.best.number, view.best.value, view.objective.name) == (1, 0.8, "balanced_accuracy")
        assert [trial.number for trial in view.front] == [1]
        assert view.best.facts["validation_loss"] == 0.9
        assert view.best.facts["balanced_accuracy"] == 0.8

    def test_the_pruner_is_asked_about_the_metric(self, store: Store) -> None:
        """By their losses, each of these would be kept or stopped the other way round."""
        pruner = {"name": "median", "startup_trials": 2, "warmup_reports": 0}
        search = created(store, aiming("balanced_accuracy", pruner=pruner))
        for accuracy in (0.6, 0.7, 0.8):
            assert run(store, search, [(accuracy, accuracy), (accuracy, accuracy)])
        assert not run(store, search, [(0.1, 0.5), (0.1, 0.5)])
        assert run(store, search, [(9.0, 0.9), (9.0, 0.9)])
        assert [trial.outcome for trial in seen(store).trials] == [*["complete"] * 3, "pruned", "complete"]
        assert stock(store).trials[3].intermediate_values == {1: 0.5}

    def test_a_loss_is_still_kept_low(self, store: Store) -> None:
        search = created(store, aiming("loss"))
        for scores in ((0.2, 0.5), (0.9, 0.8)):
            run(store, search, [scores])
        best = seen(store).best
        assert best is not None
        assert (best.number, stock(store).direction.name) == (0, "MINIMIZE")

    @pytest.mark.parametrize(("at", "told", "step"), [("loss", 0.4, 2), ("balanced_accuracy", 0.9, 3)])
    def test_a_trial_is_told_with_its_best_report(self, store: Store, at: str, told: float, step: int) -> None:
        """As the final run keeps the adapter of its best one."""
        search = created(store, aiming(at, pruner="none"))
        run(store, search, [(0.8, 0.6), (0.4, 0.7), (0.5, 0.9), (0.5, 0.8)])
        trial = stock(store).trials[0]
        assert (trial.value, trial.user_attrs["best_report"]) == (told, step)
        assert len(trial.intermediate_values) == 4
        best = seen(store).best
        assert best is not None
        assert (best.value, best.facts[at if at != "loss" else "validation_loss"]) == (told, told)

    def test_a_metric_s_best_keeps_to_the_memory(self, store: Store) -> None:
        search = created(store, aiming("balanced_accuracy", budget={"memory_gib": 16}))
        run(store, search, [(1.0, 0.6)], ledger=ledger_of(8 * GIB))
        run(store, search, [(1.0, 0.9)], ledger=ledger_of(24 * GIB))
        best = seen(store).best
        assert best is not None
        assert best.number == 0


class TestSeveral:
    def test_values_are_stored_and_the_front_is_pareto_s(self, store: Store) -> None:
        search = created(store, aiming(TWO))
        search.describe()
        # (loss, accuracy): 1 and 3 beat 0 and 2 in both, 4 has the lowest loss, 5 equals 3
        for scores in ((0.9, 0.5), (0.8, 0.9), (0.7, 0.6), (0.6, 0.7), (0.5, 0.4), (0.6, 0.7)):
            run(store, search, [(2.0, 0.1), scores])
        view, study = seen(store), stock(store)
        assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert study.metric_names == ["balanced accuracy", "validation loss"]
        assert study.trials[1].values == [0.9, 0.8]
        assert [trial.number for trial in view.front] == [1, 3, 5, 4], "best by the first objective first"
        assert {trial.number for trial in view.front} == {trial.number for trial in study.best_trials}
        assert view.best is not None
        assert (view.best.number, view.best.value, view.best.values) == (1, 0.9, (0.9, 0.8))

    def test_all_values_are_of_the_report_that_is_best_by_the_first_objective(self, store: Store) -> None:
        search = created(store, aiming(TWO))
        run(store, search, [(0.8, 0.6), (0.7, 0.9), (0.1, 0.5)])
        assert stock(store).trials[0].values == [0.9, 0.7], "no two reports' values together"

    def test_nothing_is_pruned_and_reports_are_kept_as_attributes(self, store: Store) -> None:
        search = created(store, aiming(TWO, pruner={"name": "median", "startup_trials": 0, "warmup_reports": 0}))
        for accuracy in (0.9, 0.8, 0.1):
            assert run(store, search, [(1.0, 0.2), (1 - accuracy, accuracy)])
        trial = stock(store).trials[2]
        assert trial.intermediate_values == {}
        assert trial.user_attrs["report 1"] == {"balanced_accuracy": 0.2, "loss": 1.0}
        assert trial.user_attrs["report 2"] == {"balanced_accuracy": 0.1, "loss": 0.9}
        assert seen(store).trials[2].reports == {1: 0.2, 2: 0.1}, "the first objective at each report"

    def test_a_trial_that_another_worker_goes_on_with_keeps_its_reports(self, store: Store) -> None:
        spec = aiming(TWO)
        search = created(store, spec)
        first = search.start(claimed(store, search.study_id))
        one, two = reports_of([(1.0, 0.2), (0.8, 0.4)])
        search.bring(first, [one])
        other = Search(store, spec)
        second = other.start(taken_over(store, first.lease))
        assert other.bring(second, [one, two])
        other.tell(second, TrialResult(outcome=Outcome.COMPLETE, reports=[one, two]))
        (trial,) = seen(store).trials
        assert (trial.reports, trial.values) == ({1: 0.2, 2: 0.4}, (0.4, 0.8))

    @pytest.mark.parametrize(
        ("result", "state"),
        [
            (TrialResult(outcome=Outcome.DIVERGED, reports=[Report(step=1, loss=float("nan"))]), TrialState.PRUNED),
            (TrialResult(outcome=Outcome.OUT_OF_MEMORY), TrialState.PRUNED),
            (TrialResult(outcome=Outcome.FAILED, reason="it crashed"), TrialState.FAIL),
        ],
        ids=lambda case: case.outcome if isinstance(case, TrialResult) else "",
    )
    def test_trials_that_went_wrong_are_in_no_front(self, store: Store, result: TrialResult, state: TrialState) -> None:
        search = created(store, aiming(TWO))
        search.tell(search.start(claimed(store, search.study_id)), result)
        assert seen(store).front == []
        run(store, search, [(1.0, 0.5)])
        view = seen(store)
        assert [trial.number for trial in view.front] == [1]
        assert stock(store).trials[0].state is state
        assert view.trials[0].values == ()

    def test_the_front_keeps_to_the_memory(self, store: Store) -> None:
        search = created(store, aiming(TWO, budget={"memory_gib": 16}))
        run(store, search, [(0.9, 0.6)], ledger=ledger_of(8 * GIB))
        run(store, search, [(0.1, 0.9)], ledger=ledger_of(24 * GIB))
        assert [trial.number for trial in seen(store).front] == [0]
        assert [trial.number for trial in stock(store).best_trials] == [0]

    def test_the_optuna_command_reads_them(self, store: Store, store_url: str) -> None:
        search = created(store, aiming(TWO))
        search.describe()
        run(store, search, [(0.9, 0.5)])
        run(store, search, [(0.8, 0.9)])
        command = [str(Path(sys.executable).with_name("optuna")), "best-trials", "--storage", store_url]
        ran = subprocess.run(
            [*command, "--study-name", "demo", "--format", "json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        (best,) = json.loads(ran.stdout)
        assert best["number"] == 1
        assert best["values"] == {"balanced accuracy": 0.9, "validation loss": 0.8}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc"])
def test_samplers_go_on_through_their_start_and_trials_that_went_wrong(store: Store, sampler: str) -> None:
    settings = {"name": sampler, **({"startup_trials": 3} if sampler in ("tpe", "gp") else {})}
    spec = aiming(TWO, sampler=settings, budget={"memory_gib": 16}, trials=8, space=MIXED)
    search = created(store, spec)
    tried: list[Values] = []
    for number in range(8):
        trial = search.start(claimed(store, search.study_id))
        tried.append(trial.values)
        share = math.log(trial.values["training.learning_rate"] / 1e-6) / math.log(1e3)  # the two pull apart
        result = TrialResult(outcome=Outcome.COMPLETE, reports=reports_of([(share, share)]))
        if number == 4:
            result = TrialResult(outcome=Outcome.OUT_OF_MEMORY, bytes_needed=32 * GIB)
        search.tell(trial, result)
    assert len({str(values) for values in tried}) > 4, "the gaussian process may come back to a point, no more"
    states = [trial.state for trial in stock(store).trials]
    assert states == [*[TrialState.COMPLETE] * 4, TrialState.PRUNED, *[TrialState.COMPLETE] * 3]


def test_a_grid_visits_each_point(store: Store) -> None:
    search = created(store, aiming(TWO, sampler="grid", space={"lora.r": [4, 8], "lora.alpha": [8, 16]}), trials=4)
    tried = set()
    for number in range(4):
        trial = search.start(claimed(store, search.study_id))
        tried.add((trial.values["lora.r"], trial.values["lora.alpha"]))
        reports = reports_of([(number, number / 4)])
        search.tell(trial, TrialResult(outcome=Outcome.COMPLETE, reports=reports))
    assert tried == {(4, 8), (4, 16), (8, 8), (8, 16)}


def test_optuna_s_cmaes_still_knows_one_objective_only() -> None:
    """Why `spec/cross.py` refuses it; if this fails, it may be allowed."""
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=_started(CmaEsSampler))
    with pytest.raises(ValueError, match="multi-objective"):
        study.ask().suggest_float("x", 0, 1)


def _started(kind: Callable[..., CmaEsSampler]) -> CmaEsSampler:
    return kind(n_startup_trials=0, warn_independent_sampling=False)
