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
    """Optimizer settings, by the names that transformers gives them."""

    learning_rate: Annotated[float, Field(gt=0, description="peak learning rate")] = 2e-4
    batch_size: Annotated[int, Field(ge=1, description="rows per optimizer step")] = 16
    micro_batch: Rows = Field(
        "auto", description="rows per forward; auto is as many as fit. It changes memory and time, not what is learned"
    )
    evaluation_batch_size: Rows = Field("auto", description="rows per validation batch; auto is as many as fit")
    optimizer: Optimizer = Field("adamw_torch", description="paged ones need a process of their own per trial")
    lr_scheduler: LrScheduler = Field("cosine", description="shape of the learning rate over the run")
    warmup_ratio: Annotated[float, Field(ge=0, lt=1, description="share of the steps that warm up")] = 0.03
    weight_decay: Annotated[float, Field(ge=0, description="AdamW weight decay")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, description="gradient clipping")] = 1.0
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto", description="recompute activations: less memory, slower; auto is only where memory asks for it"
    )
    seed: Annotated[int, Field(ge=0, description="adapter, dropout and data order")] = 42


BATCH_SIZE = "training.batch_size"
FORMER_KNOB = "training.gradient_accumulation_steps"
FORMER = {
    FORMER_KNOB: "batch_size is the rows per optimizer step: what was 1 × 16 is 16, and how "
    "many go through the model at once (micro_batch) is the machine's"
}
"""Keys that study files once had, and what to write instead."""


def in_rows_per_step(training: Any) -> Any:
    """Stored settings in today's terms: `batch_size` was the rows per forward, so many of which made a step.

    What is no such settings stays as it is, for the model that reads it to complain of.
    """
    match training:
        case {"batch_size": int(rows), "gradient_accumulation_steps": int(forwards), **kept}:
            return kept | {"batch_size": rows * forwards, "micro_batch": rows}
    return training


class BudgetSpec(Spec):
    """What one run may spend; `budget` in a study file is a trial's, `final` the final run's."""

    epochs: Annotated[float, Field(gt=0, description="passes over the rows below")] = 1.0
    max_steps: PositiveInt | None = Field(None, description="optimizer steps; overrides epochs")
    train_fraction: Fraction = Field(1.0, description="share of the train split")
    validation_fraction: Fraction = Field(1.0, description="share of the validation split")
    reports: Annotated[int, Field(ge=1, description="validations, evenly spaced, the last one at the end")] = 4
    memory_gib: Annotated[float, Field(gt=0)] | None = Field(
        None, description="device memory a run may need on the machine it is meant for, as nvidia-smi counts it"
    )
