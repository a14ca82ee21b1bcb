"""What is searched: the space, the sampler that proposes values, and the pruner that stops losing trials."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from hpsearch.errors import cut
from hpsearch.spec.base import Spec
from hpsearch.spec.limits import LimitsSpec

_MOST_STEPS = 2**53
"""Beyond it a float can't distinguish neighbouring steps."""
Scalar = bool | int | float | str | None


class RangeSpec(Spec):
    """A number between low and high, both included; a whole number where the searched field takes those."""

    low: float = Field(description="Lowest value, included.")
    high: float = Field(description="Highest value, included.")
    log: bool = Field(False, description="Draw on a logarithmic scale.")
    step: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Distance between two values; without it every number between is possible."
    )

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


def _range_or_choices(value: Any) -> Any:
    if isinstance(value, RangeSpec | dict | list):
        return value
    found = "nothing" if value is None else cut(repr(value))
    raise ValueError(f"expected a range, such as {{low: 1, high: 8}}, or a list of choices, found {found}")


Choices = Annotated[list[Scalar | list[str]], Field(min_length=1)]
ParameterSpec = Annotated[
    Annotated[RangeSpec, Tag("range")] | Annotated[Choices, Tag("choices")],
    Discriminator(_parameter_kind),
    BeforeValidator(_range_or_choices),
]


StartupTrials = Annotated[int, Field(ge=0, description="Trials drawn at random before it begins to learn.")]
PrunerStartup = Annotated[int, Field(ge=0, description="Trials that must have finished before any is pruned.")]
Warmup = Annotated[int, Field(ge=0, description="Reports of a trial before it may be pruned.")]
MinReports = Annotated[int, Field(ge=1, description="Reports of a trial before the first rung.")]
ReductionFactor = Annotated[int, Field(ge=2, description="One in this many trials continues at each rung.")]


class Tpe(Spec):
    """Tree-structured Parzen estimator: learns from finished trials which regions are good."""

    name: Literal["tpe"]
    startup_trials: StartupTrials = 10


class Gp(Spec):
    """Gaussian process: few dimensions, expensive trials."""

    name: Literal["gp"]
    startup_trials: StartupTrials = 10


class CmaEs(Spec):
    """Covariance matrix adaptation: many trials, numbers only (choices are drawn at random)."""

    name: Literal["cmaes"]
    startup_trials: StartupTrials = 1


class Random(Spec):
    """Independent draws."""

    name: Literal["random"]


class Qmc(Spec):
    """A quasi-random sequence, which covers the space more evenly than random draws."""

    name: Literal["qmc"]


class Grid(Spec):
    """Every combination of choices and steps, once."""

    name: Literal["grid"]


class Median(Spec):
    """Stops a trial that is worse than the median of the others at the same report."""

    name: Literal["median"]
    startup_trials: PrunerStartup = 5
    warmup_reports: Warmup = 1


class Percentile(Spec):
    """Stops a trial that is not among the best keep_percent of the others at the same report."""

    name: Literal["percentile"]
    keep_percent: Annotated[float, Field(gt=0, lt=100, description="Percent of the trials that continue.")] = 25.0
    startup_trials: PrunerStartup = 5
    warmup_reports: Warmup = 1


class Hyperband(Spec):
    """Several successive-halving brackets (Li et al. 2018, https://arxiv.org/abs/1603.06560)."""

    name: Literal["hyperband"]
    min_reports: MinReports = 1
    reduction_factor: ReductionFactor = 3


class SuccessiveHalving(Spec):
    """Keeps the best 1 / reduction_factor at each rung (https://arxiv.org/abs/1810.05934)."""

    name: Literal["successive-halving"]
    min_reports: MinReports = 1
    reduction_factor: ReductionFactor = 2


class Patient(Spec):
    """Stops a trial whose last `patience` reports are all worse than its best before them, by more than `min_delta`."""

    name: Literal["patient"]
    patience: Annotated[int, Field(ge=1, description="Reports that must all be worse than the best before them.")] = 2
    min_delta: Annotated[float, Field(ge=0, description="How much worse they must be.")] = 0.0


class NoPruner(Spec):
    """Every trial runs to its end."""

    name: Literal["none"]


def _name_of(kind: type[Spec]) -> str:
    (name,) = get_args(kind.model_fields["name"].annotation)
    return str(name)


AnySampler = Tpe | Gp | CmaEs | Random | Qmc | Grid
AnyPruner = Median | Percentile | Hyperband | SuccessiveHalving | Patient | NoPruner
"""A new one is its class here, and its case in `search/samplers.py` or `search/pruners.py`."""
SAMPLERS: dict[str, type[AnySampler]] = {_name_of(kind): kind for kind in get_args(AnySampler)}
PRUNERS: dict[str, type[AnyPruner]] = {_name_of(kind): kind for kind in get_args(AnyPruner)}


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


SamplerName = Annotated[str, Field(json_schema_extra={"enum": list(SAMPLERS)})]
PrunerName = Annotated[str, Field(json_schema_extra={"enum": list(PRUNERS)})]
_Sampler = Annotated[AnySampler, Field(discriminator="name")]
_Pruner = Annotated[AnyPruner, Field(discriminator="name")]
SamplerSpec = Annotated[_Sampler, BeforeValidator(_name_alone, json_schema_input_type=SamplerName | _Sampler)]
PrunerSpec = Annotated[_Pruner, BeforeValidator(_name_alone, json_schema_input_type=PrunerName | _Pruner)]
"""A name alone means the sampler or pruner with its defaults."""


class SearchSpec(Spec):
    trials: Annotated[
        int, Field(ge=1, description="Number of trials in all, over all workers, restarts and crashes.")
    ] = 40
    sampler: SamplerSpec = Field(
        Tpe(name="tpe"), description="What proposes the values of a trial: a name, or a name with its settings."
    )
    pruner: PrunerSpec = Field(
        Median(name="median"), description="What stops losing trials early: a name, or a name with its settings."
    )
    seed: Annotated[int, Field(ge=0, description="Seed of the sampler.")] = 0
    trials_per_process: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Start a new training process after so many trials; by default when one leaves memory behind.",
    )
    limits: LimitsSpec = Field(
        LimitsSpec(), description="Limits besides the number of trials: hours, cost, time of day."
    )
    space: Annotated[dict[str, ParameterSpec], Field(min_length=1)] = Field(
        description="Dotted name of a field, such as lora.r → a range {low, high, log, step}, or a list of choices."
    )
