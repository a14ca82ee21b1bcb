"""A curriculum: the order in which a model meets its training rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpsearch.spec.base import Spec


class StageSpec(Spec):
    name: str
    values: list[str] = Field([], description="what the rows' stage column says; default: the stage's name")
    epochs: Annotated[float, Field(gt=0, description="times the epochs of the budget")] = 1.0

    def accepts(self, value: str) -> bool:
        return value in (self.values or [self.name])


class CurriculumSpec(Spec):
    """Bengio et al. 2009 (https://doi.org/10.1145/1553374.1553380)."""

    stages: list[StageSpec] = Field([], description="in the order in which they are learned")
    order: Literal["stages", "sequential", "random"] = Field(
        "stages",
        description="stages: one training after the other, each from the adapter before it, each with a schedule of "
        "its own; sequential: one training over the rows in that order; random: one over the shuffled rows",
    )
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="each stage's peak learning rate is the one before times this"
    )

    def stage_of(self, value: str | None) -> str | None:
        """The name of the stage that a row belongs to."""
        return next((stage.name for stage in self.stages if value is not None and stage.accepts(value)), None)
