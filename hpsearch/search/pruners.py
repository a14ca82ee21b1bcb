"""The pruners: one case each, by the name that a study file uses. A step is a report, counted from 1."""

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

from hpsearch.spec.search import Hyperband, Median, NoPruner, Patient, Percentile, SuccessiveHalving

PrunerSpec = Median | Percentile | Hyperband | SuccessiveHalving | Patient | NoPruner


def make_pruner(spec: PrunerSpec, num_reports: int) -> BasePruner:
    match spec:
        case Median():
            return MedianPruner(spec.startup_trials, spec.warmup_reports)
        case Percentile():
            return PercentilePruner(spec.keep_percent, spec.startup_trials, spec.warmup_reports)
        case Hyperband():
            return HyperbandPruner(
                min_resource=spec.min_reports,
                max_resource=num_reports,
                reduction_factor=spec.reduction_factor,
            )
        case SuccessiveHalving():
            # Optuna's "auto" takes its first rung from the first complete trial: said here instead.
            return SuccessiveHalvingPruner(spec.min_reports, spec.reduction_factor)
        case Patient():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return PatientPruner(None, spec.patience, spec.min_delta)
        case NoPruner():
            return NopPruner()
