"""trl's SFTTrainer with hpsearch's validation and checkpoints, and a task's method."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainerState
from trl import SFTConfig, SFTTrainer

from hpsearch.checkpoints import drop, written_whole
from hpsearch.files import draft_of
from hpsearch.train.adapters import REFERENCE
from hpsearch.train.checkpoint import disk_errors
from hpsearch.train.encoding import Encoded
from hpsearch.train.failure import unless_out_of_memory
from hpsearch.train.loss import mixed_precision
from hpsearch.train.memory import RandomState
from hpsearch.train.reporter import Reporter
from hpsearch.train.steps import MicroBatch, StepCollator, StepRows, micro_batches
from hpsearch.train.tasks.task import Stage
from hpsearch.train.tracking import Tracking
from hpsearch.train.validation import Validation
from hpsearch.trial import TrialConfig

NUM_KEPT = 2
"""Checkpoints: if the newest is torn, the one before is used."""


class ReportingTrainer(SFTTrainer):
    """SFTTrainer with the task method's validation and loss, and with complete checkpoints."""

    validation: Validation
    reporter: Reporter
    micro_batch: MicroBatch
    model: Any
    """A PeftModel, which forwards attributes to the model below it."""
    _whole: list[Path]
    """Complete checkpoints that this process saved or began at, the newest last."""
    _draft: Path | None = None

    def resume(self, checkpoint: Path) -> None:
        """Restores weights and step, so that it can be validated before training continues."""
        self._load_from_checkpoint(str(checkpoint))
        self.validation.method.load(self.model, checkpoint)
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        self._whole.append(checkpoint)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Saves first: a validation may take longer than the training since the last one."""
        self._save_checkpoint(self.model, None)
        with torch.random.fork_rng():  # training continues from the random state in the checkpoint
            self.reporter.watch.begin_lap()
            values = self.validation.of(self.model, self.reporter.validating)
            self.reporter.watch.end_lap("validation_s")
        if values is None:
            self.control.should_training_stop = True
            return {}
        metrics = {f"eval_{name}": value for name, value in values.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Makes transformers write it elsewhere, so that its final name always means a complete one.

        transformers (5.23, trainer.py, `_save_checkpoint`) writes into `checkpoint-N` under `_get_output_dir`, file by
        file, and deletes older ones itself if `save_total_limit` says so.
        """
        target = self._folder / f"checkpoint-{self.state.global_step}"
        if self._whole and self._whole[-1] == target:
            return
        self.reporter.saving()
        self._draft = draft_of(target)
        try:
            with disk_errors(self._draft):
                super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]
            with written_whole(target) as folder:
                (self._draft / target.name).rename(folder)
        finally:
            shutil.rmtree(self._draft, ignore_errors=True)
            self._draft = None
            self.reporter.watch.end_lap("save_s")
        self._whole = [*self._whole, target][-NUM_KEPT:]
        for other in target.parent.glob("checkpoint-*"):
            if other not in self._whole:
                drop(other)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """trl writes one beside the checkpoints at each save. A run's card is made once, in `results`."""

    @property
    def _folder(self) -> Path:
        assert self.args.output_dir is not None, "make_trainer names it"
        return Path(self.args.output_dir)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._draft or super()._get_output_dir(trial))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """A micro-batch's part of its step's loss, a scalar; `num_items_in_batch` is of the whole step."""
        method, dtype = self.validation.method, self.validation.dtype
        if not method.has_own_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        # accelerate wraps autocast around the model's `forward`, which such a method need not call.
        with mixed_precision(model.device, dtype):
            return method.training_loss(model, inputs, num_items_in_batch)

    def training_step(  # type: ignore[override]  # `inputs` are what StepCollator gives, and no batch yet
        self, model: torch.nn.Module, inputs: StepRows, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward of an optimizer step's rows, in micro-batches.

        The result does not depend on their size: each part's loss is divided by the items of the whole step. After an
        out-of-memory error it halves the size and repeats the step, from the same weights and random state.
        """
        del num_items_in_batch
        rows = inputs.encoded()
        self.reporter.watch.saw(list(map(len, rows)))
        num_items = self.validation.method.num_items(rows)
        random_state = RandomState.now()
        while True:
            size = min(self.micro_batch.size, len(rows))
            loss = unless_out_of_memory(lambda: self._in_parts(model, rows, num_items), may_fail=size > 1)
            if loss is not None:
                return loss[0]
            self.micro_batch.halve(size)
            model.zero_grad()
            random_state.set()

    def _in_parts(self, model: Any, rows: list[Encoded], num_items: int) -> torch.Tensor:
        """The step's loss; adds up its gradients."""
        method, size = self.validation.method, self.micro_batch.size
        total = torch.zeros((), device=self.args.device)
        model.train()  # a validation before this step switched to evaluation mode
        with mixed_precision(self.args.device, self.validation.dtype):
            shared = method.shared(model, rows, size)
        for number, part in enumerate(micro_batches(rows, size)):
            if number:
                self.reporter.alive(self.state)
            total += super().training_step(model, method.batch(part) | shared, num_items)  # type: ignore[no-untyped-call]
        return total

    def probe(self, rows: list[Encoded], recomputes: bool) -> None:
        """Forward and backward of rows as in a step, before the first one; everything is undone afterwards."""
        state = RandomState.now()
        self.model.train()
        self.recompute(recomputes)
        try:
            with mixed_precision(self.model.device, self.validation.dtype):
                batch = self._prepare_inputs(self.validation.method.batch(rows))
                loss = self.compute_loss(self.model, batch, num_items_in_batch=self.validation.method.num_items(rows))
            loss.backward()
        finally:
            self.model.zero_grad()
            self._metrics["train"].clear()
            self._total_train_tokens = 0
            state.set()

    def recompute(self, recomputes: bool) -> None:
        """Turns gradient checkpointing on or off.

        Not by the trainer's arguments: then trl (1.16, sft_trainer.py, "we need to enable input gradients") makes every
        embedding require gradients, also the vision tower's, which is then back-propagated although it is frozen.
        Non-reentrant checkpointing needs no gradient at its input.
        """
        if recomputes:
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.model.activation_checkpointing_disable()

    def _get_num_items_in_batch(self, *_: Any) -> None:
        """Known only when the rows are encoded: `training_step` counts them."""

    def floating_point_ops(self, *_: Any) -> int:
        """transformers reads the first batch for an estimate that hpsearch does not use."""
        return 0

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        folder = Path(output_dir or self._folder)
        super().save_model(output_dir, _internal_call)
        shutil.rmtree(folder / REFERENCE, ignore_errors=True)  # it never changes
        self.validation.method.save(self.model, folder)


def make_trainer(
    model: PeftModel,
    processor: Any,
    stage: Stage,
    num_steps: int,
    config: TrialConfig,
    checkpoints: Path,
    validation: Validation,
    reporter: Reporter,
    collator: StepCollator,
    micro_batch: MicroBatch,
    tracking: Tracking,
) -> ReportingTrainer:
    trainer = ReportingTrainer(
        model=model,
        args=_arguments(config, stage, num_steps, checkpoints, validation.dtype),
        train_dataset=stage.rows,
        processing_class=processor,
        data_collator=collator,  # type: ignore[arg-type]  # see `training_step`
        callbacks=[reporter, tracking],
    )
    trainer.validation = validation
    trainer.reporter = reporter
    trainer.micro_batch = micro_batch
    trainer._whole = []
    return trainer


def planned_steps(stages: list[Stage], config: TrialConfig) -> list[int]:
    """Optimizer steps of each stage, as transformers counts them; `max_steps` is divided in proportion.

    Each stage has at least one step.
    """
    training = config.training
    per_stage = []
    for stage in stages:
        per_epoch = math.ceil(len(stage.rows) / training.batch_size)
        per_stage.append(math.ceil(stage.epochs * per_epoch))
    if config.budget.max_steps is None:
        return per_stage
    return shared_out(config.budget.max_steps, per_stage)


def shared_out(total: int, weights: list[int]) -> list[int]:
    """Divides `total` into integers in proportion to `weights`, each at least 1; `total` is at least their number."""
    parts: list[int] = []
    for position, weight in enumerate(weights):
        left = total - sum(parts)
        most = left - (len(weights) - position - 1)
        parts.append(max(1, min(most, round(left * weight / sum(weights[position:])))))
    return parts


def _arguments(config: TrialConfig, stage: Stage, num_steps: int, checkpoints: Path, dtype: torch.dtype) -> SFTConfig:
    training = config.training
    return SFTConfig(
        output_dir=str(checkpoints),
        # from the study
        max_steps=num_steps,
        learning_rate=stage.learning_rate,
        train_sampling_strategy="random" if stage.is_shuffled else "sequential",
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=1,
        optim=training.optimizer,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        gradient_checkpointing=False,  # see `recompute`
        seed=training.seed,
        data_seed=training.seed,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=not torch.cuda.is_available(),
        # done by hpsearch itself: rows are encoded lazily, validation and saving follow the report steps
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        loss_type="nll",
        eval_strategy="no",
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],  # see `tracking`
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
