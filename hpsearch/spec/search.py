"""What is searched: the space, the sampler that proposes values, and the pruner that stops losing trials."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from hpsearch.spec.base import Spec
from hpsearch.spec.limits import LimitsSpec

_MOST_STEPS = 2**53
"""Beyond it a float can't tell one step from the next."""
Scalar = bool | int | float | str | None


class RangeSpec(Spec):
    """A number between `low` and `high`, both included. Whole numbers where the searched field takes them."""

    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> RangeSpec:
        if self.low == self.high:
            raise ValueError(f"the range is empty: low and high are both {self.low:g}")
        if self.low > self.high:
            raise ValueError(f"the range is inverted: low {self.low:g} is above high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs low above 0, not {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step {self.step:g} is larger than the range from {self.low:g} to {self.high:g}")
        if self.step is not None and (self.high - self.low) / self.step > _MOST_STEPS:
            raise ValueError(f"step {self.step:g} is too small for the range from {self.low:g} to {self.high:g}")
        return self


def _parameter_kind(value: Any) -> str:
    return "choices" if isinstance(value, list) else "range"


Choices = Annotated[list[Scalar | list[str]], Field(min_length=1)]
ParameterSpec = Annotated[
    Annotated[RangeSpec, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_parameter_kind)
]


class Tpe(Spec):
    """Tree-structured Parzen estimator: learns from finished trials which regions are good."""

    name: Literal["tpe"] = "tpe"
    startup_trials: Annotated[int, Field(ge=0)] = 10


class Gp(Spec):
    """Gaussian process: few dimensions, expensive trials."""

    name: Literal["gp"] = "gp"
    startup_trials: Annotated[int, Field(ge=0)] = 10


class CmaEs(Spec):
    """Covariance matrix adaptation: many trials, numbers only (choices are drawn at random)."""

    name: Literal["cmaes"] = "cmaes"
    startup_trials: Annotated[int, Field(ge=0)] = 1


class OtherSampler(Spec):
    name: Literal["random", "qmc", "grid"]


class Median(Spec):
    """Stops a trial that is worse than the median of the others at the same report."""

    name: Literal["median"] = "median"
    startup_trials: Annotated[int, Field(ge=0)] = 5
    warmup_reports: Annotated[int, Field(ge=0)] = 1


class Percentile(Spec):
    """Like the median, with another share to keep."""

    name: Literal["percentile"] = "percentile"
    keep_percent: Annotated[float, Field(gt=0, lt=100)] = 25.0
    startup_trials: Annotated[int, Field(ge=0)] = 5
    warmup_reports: Annotated[int, Field(ge=0)] = 1


class Hyperband(Spec):
    """Several successive-halving brackets (Li et al. 2018, https://arxiv.org/abs/1603.06560)."""

    name: Literal["hyperband"] = "hyperband"
    min_reports: Annotated[int, Field(ge=1)] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class SuccessiveHalving(Spec):
    """Keeps the best 1 / reduction_factor at each rung (https://arxiv.org/abs/1810.05934)."""

    name: Literal["successive-halving"] = "successive-halving"
    min_reports: Annotated[int, Field(ge=1)] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 2


class Patient(Spec):
    """Stops a trial whose last `patience` reports are all worse than its best before them, by more than `min_delta`."""

    name: Literal["patient"] = "patient"
    patience: Annotated[int, Field(ge=1)] = 2
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class NoPruner(Spec):
    name: Literal["none"] = "none"


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


SamplerSpec = Annotated[
    Annotated[Tpe | Gp | CmaEs | OtherSampler, Field(discriminator="name")], BeforeValidator(_name_alone)
]
PrunerSpec = Annotated[
    Annotated[Median | Percentile | Hyperband | SuccessiveHalving | Patient | NoPruner, Field(discriminator="name")],
    BeforeValidator(_name_alone),
]


class SearchSpec(Spec):
    trials: Annotated[int, Field(ge=1, description="trials in all, over all workers, restarts and crashes")] = 40
    sampler: SamplerSpec = Field(Tpe(), description="tpe, random, gp, cmaes, qmc or grid")
    pruner: PrunerSpec = Field(
        Median(), description="median, hyperband, successive-halving, percentile, patient or none"
    )
    seed: Annotated[int, Field(ge=0, description="seeds the sampler")] = 0
    trials_per_process: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="start a new training process after so many trials; default: while its memory is clean",
    )
    limits: LimitsSpec = Field(LimitsSpec(), description="what the study may use besides trials")
    space: Annotated[dict[str, ParameterSpec], Field(min_length=1)] = Field(
        description="dotted name of a training, lora or model field → a range or a list of choices"
    )
