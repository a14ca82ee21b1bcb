"""The search space: what a study file declares, as Optuna's distributions and back."""

from __future__ import annotations

import json
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial, create_trial

from hpsearch.errors import did_you_mean
from hpsearch.spec.knobs import takes_whole_numbers
from hpsearch.spec.search import ParameterSpec, RangeSpec
from hpsearch.spec.study import Values

Space = dict[str, ParameterSpec]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    return {knob: _distribution(knob, parameter) for knob, parameter in space.items()}


def _distribution(knob: str, parameter: ParameterSpec) -> BaseDistribution:
    if not isinstance(parameter, RangeSpec):
        return CategoricalDistribution([_to_optuna(choice) for choice in parameter])
    if takes_whole_numbers(knob):
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _to_optuna(value: Any) -> Any:
    """Optuna's choices are scalars: a list is stored as its JSON text."""
    return json.dumps(value) if isinstance(value, list) else value


def from_optuna(space: Space, params: dict[str, Any]) -> Values:
    """The values as a study file would write them."""
    values: Values = {}
    for knob, value in params.items():
        parameter = space[knob]
        if not isinstance(parameter, RangeSpec):
            value = next(choice for choice in parameter if _to_optuna(choice) == value)
        values[knob] = value
    return values


def to_optuna(space: Space, values: Values) -> dict[str, Any] | None:
    """The values as Optuna's parameters, or None where one lies outside of the space."""
    params = {knob: _to_optuna(value) for knob, value in values.items()}
    return None if misfit(space, params) else params


def misfit(space: Space, params: dict[str, Any]) -> str | None:
    """Why a trial can't have these Optuna parameters (perhaps not all of the space's), as text."""
    known = distributions(space)
    for knob, value in params.items():
        if knob not in known:
            return f"{knob} is not searched; {did_you_mean(knob, list(known))}"
        try:
            create_trial(params={knob: value}, distributions={knob: known[knob]}, value=0.0)
        except ValueError:
            return f"{knob}: {value!r} is not in the space: {known[knob]}"
    return None


def suggest_all(trial: Trial, space: Space) -> None:
    """Gives every parameter of a trial a value; those that it has already are kept."""
    for knob, distribution in distributions(space).items():
        match distribution:
            case CategoricalDistribution(choices=choices):
                trial.suggest_categorical(knob, choices)
            case IntDistribution(low=low, high=high, log=log, step=step):
                trial.suggest_int(knob, low, high, log=log, step=step)
            case FloatDistribution(low=low, high=high, log=log, step=step):
                trial.suggest_float(knob, low, high, log=log, step=step)
