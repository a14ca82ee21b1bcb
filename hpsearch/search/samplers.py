"""The samplers: one function each, by the name that a study file uses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
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
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpsearch.search.space import Space, distributions
from hpsearch.spec.search import AnySampler, CmaEs, Gp, Grid, Qmc, Random, Tpe


class QuietGridSampler(GridSampler):
    """A grid sampler for ask and tell.

    Optuna's own calls `study.stop()` when the grid is used up, which raises outside of `Study.optimize` (5.0.0,
    samplers/_grid.py, `after_trial`). Our studies end by their budget.
    """

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        pass


class PlainCmaEsSampler(CmaEsSampler):
    """CMA-ES that keeps no pickle in the store and gives no warning about constraints.

    Optuna's own stores its optimizer as a pickle in the attributes of trials and loads it at the next one (5.0.0,
    `_restore_optimizer` in https://github.com/optuna/optuna/blob/v5.0.0/optuna/samplers/_cmaes.py): anyone who can
    write to the store could run code on every worker. The optimizer's state follows from the finished trials, each of
    which names its generation: here it is rebuilt from them, generation after generation. Attributes that hold a pickle
    are never read.

    Optuna's own also warns at the end of every trial that has a constraint (`after_trial`). Ours have one wherever the
    study has a memory budget, and `best` respects it with every sampler.
    """

    _finished: list[FrozenTrial]

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> None:
        self._finished = completed_trials

    def _init_optimizer(self, trans: Any, direction: StudyDirection) -> Any:
        """An optimizer that was given every complete generation: the caller has nothing left to tell or to store."""
        optimizer = super()._init_optimizer(trans, direction)
        sign = 1 if direction is StudyDirection.MINIMIZE else -1
        generations: dict[int, list[FrozenTrial]] = {}
        for trial in self._finished:
            generations.setdefault(trial.system_attrs.get(self._attr_key_generation, -1), []).append(trial)
        while len(generations.get(optimizer.generation, [])) >= optimizer.population_size:
            parents = generations[optimizer.generation][: optimizer.population_size]
            optimizer.tell([(trans.transform(trial.params), sign * cast("float", trial.value)) for trial in parents])
        return optimizer

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Constraints have been set, but CmaEsSampler")
            super().after_trial(study, trial, state, values)


class SlotQMCSampler(QMCSampler):
    """Each slot has its own point of one sequence, whichever worker runs it and whenever.

    Optuna's own counts the points in the study, and two workers can read the same count (5.0.0, samplers/_qmc.py says
    so in `_find_sample_id`); it also draws the first trials at random, to learn the space from them.
    """

    def __init__(self, space: Space, seed: int, slot: int) -> None:
        super().__init__(seed=seed, scramble=True, warn_independent_sampling=False)
        self._distributions = distributions(space)
        self._slot = slot

    def infer_relative_search_space(self, _study: Study, _trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._distributions

    def _find_sample_id(self, _study: Study, _search_space: dict[str, BaseDistribution]) -> int:
        return self._slot


def make_sampler(spec: AnySampler, space: Space, seed: int, slot: int) -> BaseSampler:
    """A sampler for the trial in `slot`.

    Parallel workers with one seed would propose the same values, so the seed includes the slot. A quasi-random sequence
    and a grid belong to the whole study: they have the same seed everywhere, and each trial has its own point.
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
                return PlainCmaEsSampler(n_startup_trials=startup, seed=seed_of_slot, warn_independent_sampling=False)
            case Random():
                return RandomSampler(seed=seed_of_slot)
            case Qmc():
                return SlotQMCSampler(space, seed, slot)
            case Grid():
                return QuietGridSampler(_grid(space), seed=seed)


def sees_running(spec: AnySampler) -> bool:
    """Whether the sampler reads unfinished trials: their parameters (GP), or their points (a grid)."""
    return isinstance(spec, Gp | Grid)


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
