"""trl's SFTTrainer with hpsearch's validation and a task's skill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from hpsearch.metrics import scores
from hpsearch.train.loss import mixed_precision
from hpsearch.train.tasks.task import Skill, Stage, batches, mean_loss
from hpsearch.trial import TrialConfig


@dataclass(frozen=True)
class Validation:
    """What is asked of the validation rows at each report."""

    rows: Dataset
    batch_size: int
    skill: Skill
    dtype: torch.dtype
    metrics: list[str]

    def of(self, model: Any) -> dict[str, float]:
        """Objective → value. Token-weighted over the whole set."""
        model.eval()
        losses = [
            loss for part in batches(self.rows, self.batch_size) for loss in self.skill.losses(model, part, self.dtype)
        ]
        values = {"loss": mean_loss(losses)}
        if self.metrics and math.isfinite(values["loss"]):
            said = [
                answer.text
                for part in batches(self.rows, self.batch_size)
                for answer in self.skill.answers(model, part, self.dtype, is_tuned=True)
            ]
            values |= scores([reference(row) for row in self.rows], said, self.metrics)
        return values


def reference(row: Any) -> str:
    """What the data gives as the answer."""
    return str(row["messages"][-1]["content"]).strip()


class Trainer(SFTTrainer):
    """SFTTrainer that validates and learns as the task's skill says."""

    validation: Validation

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        metrics = {f"eval_{name}": value for name, value in self.validation.of(self.model).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        skill, dtype = self.validation.skill, self.validation.dtype
        if not skill.has_own_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # accelerate's autocast is wrapped around the model's `forward`, which such a skill need not call.
        with mixed_precision(model.device, dtype):
            return skill.training_loss(model, inputs, num_items_in_batch)

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """(batches, items) of an optimizer step. Items are learned tokens, or rows for a skill with its own loss."""
        found, num_tokens = super().get_batch_samples(*arguments)
        if not self.validation.skill.has_own_loss:
            return found, num_tokens
        return found, sum(len(batch["labels"]) for batch in found)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint is whole once it has its trainer_state.json, which is written after this."""
        super().save_model(output_dir, _internal_call)
        self.validation.skill.save(self.model, Path(output_dir or self.args.output_dir))


def make_trainer(
    model: Any,
    processor: Any,
    stage: Stage,
    num_steps: int,
    config: TrialConfig,
    checkpoints: Path,
    validation: Validation,
    callback: TrainerCallback,
) -> Trainer:
    trainer = Trainer(
        model=model,
        args=_arguments(config, stage, num_steps, checkpoints, validation.dtype),
        train_dataset=stage.rows,
        processing_class=processor,
        data_collator=validation.skill.collate,
        callbacks=[callback],
    )
    trainer.validation = validation
    if validation.skill.has_own_loss:
        # transformers then doesn't divide by the accumulation steps: the loss is divided by the step's rows already.
        trainer.model_accepts_loss_kwargs = True
    return trainer


def planned_steps(stages: list[Stage], config: TrialConfig) -> list[int]:
    """Optimizer steps of each stage, as transformers counts them; `max_steps` is shared out in proportion.

    Each stage has a step at least.
    """
    training = config.training
    per_stage = []
    for stage in stages:
        num_batches = math.ceil(len(stage.rows) / training.batch_size)
        per_epoch = math.ceil(num_batches / training.gradient_accumulation_steps)
        per_stage.append(math.ceil(stage.epochs * per_epoch))
    if config.budget.max_steps is None:
        return per_stage
    return shared_out(config.budget.max_steps, per_stage)


def shared_out(total: int, weights: list[int]) -> list[int]:
    """`total` in whole parts in proportion to `weights`, each at least 1; it is at least as large as their number."""
    parts = []
    for position, weight in enumerate(weights):
        left = total - sum(parts)
        most = left - (len(weights) - position - 1)
        parts.append(max(1, min(most, round(left * weight / sum(weights[position:])))))
    return parts


def _arguments(config: TrialConfig, stage: Stage, num_steps: int, checkpoints: Path, dtype: torch.dtype) -> SFTConfig:
    training = config.training
    return SFTConfig(
        output_dir=str(checkpoints),
        # what the study says
        max_steps=num_steps,
        learning_rate=stage.learning_rate,
        train_sampling_strategy="random" if stage.is_shuffled else "sequential",
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        optim=training.optimizer,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        seed=training.seed,
        data_seed=training.seed,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=not torch.cuda.is_available(),
        # what hpsearch does itself: rows are encoded lazily, validation and saving follow the report steps
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        loss_type="nll",
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=["tensorboard"] if config.is_final else [],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
