"""The samplers: one function each, by the name that a study file uses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpsearch.search.space import Space, distributions
from hpsearch.spec.search import CmaEs, Gp, OtherSampler, Tpe


class QuietGridSampler(GridSampler):
    """A grid for ask and tell.

    Optuna's own calls `study.stop()` when the grid is used up, which raises outside of `Study.optimize`
    (5.0.0, samplers/_grid.py, `after_trial`). The budget ends our studies.
    """

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        pass


def make_sampler(spec: Tpe | Gp | CmaEs | OtherSampler, space: Space, seed: int, slot: int) -> BaseSampler:
    """A sampler for the trial in `slot`.

    Parallel workers with one seed would propose the same values, so the slot is part of it. Quasi-random and grid
    sequences count on in the store and need the same seed everywhere.
    """
    seed_of_slot = (seed * 1_000_003 + slot) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match spec:
            case Tpe(startup_trials=startup):
                return TPESampler(n_startup_trials=startup, seed=seed_of_slot)
            case Gp(startup_trials=startup):
                return GPSampler(n_startup_trials=startup, seed=seed_of_slot)
            case CmaEs(startup_trials=startup):
                return CmaEsSampler(n_startup_trials=startup, seed=seed_of_slot, warn_independent_sampling=False)
            case OtherSampler(name="random"):
                return RandomSampler(seed=seed_of_slot)
            case OtherSampler(name="qmc"):
                return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
            case _:
                return QuietGridSampler(_grid(space), seed=seed_of_slot)


def _grid(space: Space) -> dict[str, list[bool | int | float | str | None]]:
    points: dict[str, list[bool | int | float | str | None]] = {}
    for knob, distribution in distributions(space).items():
        match distribution:
            case CategoricalDistribution(choices=choices):
                points[knob] = list(choices)
            case IntDistribution(low=low, high=high, step=step):
                points[knob] = list(range(low, high + 1, step))
            case FloatDistribution(low=low, high=high, step=float(step)):
                count = round((high - low) / step) + 1
                points[knob] = [round(low + i * step, 12) for i in range(count)]
            case _:
                raise AssertionError("a grid over a range without a step is refused when the file is read")
    return points
