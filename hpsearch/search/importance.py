"""Parameter importances: how much of the variance of a study's results each parameter explains."""

from __future__ import annotations

from dataclasses import dataclass

import optuna

from hpsearch.spec.metrics import Metric
from hpsearch.store import Store, StoredStudy

FEWEST_TRIALS = 2


@dataclass(frozen=True)
class Importance:
    """`shares`: parameter → its share of the objective's variance, the largest first; they add up to 1."""

    objective: Metric
    num_trials: int
    shares: dict[str, float]


def importances(store: Store, study: StoredStudy) -> list[Importance]:
    """Parameter importances for each objective; empty while there are too few complete trials, or all have the same
    value.

    fANOVA (Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html) by a random forest over all complete
    trials. Optuna's default, PED-ANOVA, uses only the best tenth: two of 20 complete trials (5.0.0,
    importance/_ped_anova/evaluator.py).
    """
    with store.reaching():
        stored = optuna.load_study(study_name=study.name, storage=store.optuna)
        complete = stored.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    if len(complete) < FEWEST_TRIALS:
        return []
    found = []
    for position, objective in enumerate(study.spec.objectives):
        values = {trial.values[position] for trial in complete}
        shares = _shares(stored, position) if len(values) > 1 else {}
        if shares:
            found.append(Importance(objective, len(complete), shares))
    return found


def _shares(study: optuna.Study, position: int) -> dict[str, float]:
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    variances = evaluator.evaluate(study, target=lambda trial: trial.values[position])
    total = sum(variances.values())
    return {knob: float(variance / total) for knob, variance in variances.items()} if total > 0 else {}
