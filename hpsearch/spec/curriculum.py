"""A curriculum: the order in which a model meets its training rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpsearch.spec.base import Spec


class StageSpec(Spec):
    name: str = Field(description="Name of the stage.")
    values: list[str] = Field(
        [], description="Values of the stage column that belong to this stage; by default the stage's name."
    )
    epochs: Annotated[float, Field(gt=0, description="The budget's epochs are multiplied by this for the stage.")] = 1.0

    def accepts(self, value: str) -> bool:
        return value in (self.values or [self.name])


class CurriculumSpec(Spec):
    """A curriculum (Bengio et al. 2009, https://doi.org/10.1145/1553374.1553380)."""

    stages: list[StageSpec] = Field([], description="The stages, in the order in which they are learned.")
    order: Literal["stages", "sequential", "random"] = Field(
        "stages",
        description="stages: one training per stage, each from the adapter of the one before and with a learning rate "
        "schedule of its own; sequential: one training over the rows in the stages' order; random: one training over "
        "the shuffled rows.",
    )
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on the peak learning rate from one stage to the next."
    )

    def stage_of(self, value: str | None) -> str | None:
        """The name of the stage that a row belongs to."""
        return next((stage.name for stage in self.stages if value is not None and stage.accepts(value)), None)
