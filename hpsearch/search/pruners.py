"""The pruners: one case each, by the name that a study file uses.

A step is a report, counted from 1. Optuna counts from 0: a trial may be stopped at step `n_warmup_steps`, so it gets
one more than our warm-up. `PatientPruner` waits for one bad report more than its `patience` (5.0.0,
pruners/_patient.py), so it gets one less than ours.
"""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)

from hpsearch.spec.search import AnyPruner, Hyperband, Median, NoPruner, Patient, Percentile, SuccessiveHalving


def make_pruner(spec: AnyPruner, num_reports: int) -> BasePruner:
    match spec:
        case Median():
            return MedianPruner(spec.startup_trials, spec.warmup_reports + 1)
        case Percentile():
            return PercentilePruner(spec.keep_percent, spec.startup_trials, spec.warmup_reports + 1)
        case Hyperband():
            return HyperbandPruner(
                min_resource=spec.min_reports,
                max_resource=num_reports,
                reduction_factor=spec.reduction_factor,
            )
        case SuccessiveHalving():
            # Optuna's "auto" derives its first rung from the first complete trial: here it is explicit.
            return SuccessiveHalvingPruner(spec.min_reports, spec.reduction_factor)
        case Patient():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return PatientPruner(None, spec.patience - 1, spec.min_delta)
        case NoPruner():
            return NopPruner()


def sees_others(spec: AnyPruner) -> bool:
    """Whether the pruner compares a trial with other ones."""
    return not isinstance(spec, Patient | NoPruner)


def sees_running(spec: AnyPruner) -> bool:
    """Whether it also reads unfinished trials: the rungs they have reached. The others read complete ones only (5.0.0,
    pruners/_percentile.py).
    """
    return isinstance(spec, Hyperband | SuccessiveHalving)
