"""The optimizer's settings, and how much data and how many epochs a run gets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hpsearch.spec.base import Fraction, Spec

Optimizer = Literal[
    "adamw_torch",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "paged_lion_8bit",
    "adafactor",
    "sgd",
]
LrScheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"]
PositiveInt = Annotated[int, Field(ge=1)]
Rows = Literal["auto"] | PositiveInt


class TrainingSpec(Spec):
    """Optimizer settings, with transformers' names."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 2e-4
    batch_size: Annotated[
        int, Field(ge=1, description="Rows per optimizer step, all forward passes of the step together.")
    ] = 16
    micro_batch: Rows = Field(
        "auto",
        description="Rows per forward pass; auto is as many as fit. It changes memory and time, not what is learned.",
    )
    evaluation_batch_size: Rows = Field("auto", description="Rows per validation batch; auto is as many as fit.")
    optimizer: Optimizer = Field(
        "adamw_torch",
        description="Optimizer, by its name in transformers; a paged one needs a new process for each trial.",
    )
    lr_scheduler: LrScheduler = Field(
        "cosine", description="Schedule of the learning rate over the run, by its name in transformers."
    )
    warmup_ratio: Annotated[
        float, Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises to its peak.")
    ] = 0.03
    weight_decay: Annotated[float, Field(ge=0, description="Weight decay of the optimizer.")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, description="Gradients are clipped to this norm.")] = 1.0
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto",
        description="Recompute activations: less memory, slower; auto does so only where memory is short.",
    )
    seed: Annotated[
        int, Field(ge=0, description="Seed of the adapter's first weights, of dropout and of the order of rows.")
    ] = 42


BATCH_SIZE = "training.batch_size"
FORMER_KNOB = "training.gradient_accumulation_steps"
FORMER = {
    FORMER_KNOB: "batch_size is the rows per optimizer step: what was 1 × 16 is 16, and how "
    "many go through the model at once (micro_batch) is the machine's"
}
"""Keys of earlier versions, and what to write instead."""


def in_rows_per_step(training: Any) -> Any:
    """Converts stored settings: `batch_size` was the rows per forward, several of which made a step.

    Anything else is returned unchanged, for the validating model to reject.
    """
    match training:
        case {"batch_size": int(rows), "gradient_accumulation_steps": int(forwards), **kept}:
            return kept | {"batch_size": rows * forwards, "micro_batch": rows}
    return training


class BudgetSpec(Spec):
    """The length of one run: `budget` is a trial's, `final` the final run's."""

    epochs: Annotated[
        float, Field(gt=0, description="Passes over the training rows (the share that train_fraction leaves).")
    ] = 1.0
    max_steps: PositiveInt | None = Field(None, description="Optimizer steps; takes the place of epochs.")
    train_fraction: Fraction = Field(1.0, description="Share of the train split that is used.")
    validation_fraction: Fraction = Field(1.0, description="Share of the validation split that is used.")
    reports: Annotated[
        int,
        Field(
            ge=1,
            description="Number of validations, evenly spaced, the last one at the end; the pruner looks at each.",
        ),
    ] = 4
    memory_gib: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="GPU memory in GiB that a run may take, as nvidia-smi counts it; a trial above it never wins.",
    )

    def in_words(self, rows: str = "the train rows") -> str:
        """30 optimizer steps, or 2 epochs on 30% of the train rows."""
        share = f" on {self.train_fraction:.0%} of {rows}"
        if self.max_steps is None:
            return f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}{share}"
        steps = f"{self.max_steps:,} optimizer step{'' if self.max_steps == 1 else 's'}"
        return steps if self.train_fraction == 1 else steps + share
