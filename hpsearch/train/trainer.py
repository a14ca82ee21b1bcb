"""trl's SFTTrainer with hpsearch's validation loss, and the callback that reports it to the worker."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from hpsearch.folders import TrialFolder
from hpsearch.protocol import Progress, Reported
from hpsearch.train.channel import Channel
from hpsearch.train.encoding import Encoder
from hpsearch.train.loss import mean_token_loss
from hpsearch.trial import Outcome, Report, TrialConfig

_SECONDS_BETWEEN_PROGRESS = 0.3


class Trainer(SFTTrainer):
    """SFTTrainer whose `evaluate` gives the token-weighted loss of the whole validation set."""

    validation_batches: DataLoader[Any]
    compute_dtype: torch.dtype

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self.model.eval()
        loss = mean_token_loss(self.model, self.validation_batches, self.compute_dtype)
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def make_trainer(
    model: Any,
    encoder: Encoder,
    config: TrialConfig,
    folder: TrialFolder,
    dtype: torch.dtype,
    callback: TrainerCallback,
) -> Trainer:
    trainer = Trainer(
        model=model,
        args=_arguments(config, folder, dtype),
        train_dataset=Dataset.load_from_disk(str(config.train_rows)),
        processing_class=encoder.processor,
        data_collator=encoder.collate,
        callbacks=[callback],
    )
    trainer.validation_batches = DataLoader(
        Dataset.load_from_disk(str(config.validation_rows)),  # type: ignore[arg-type]
        batch_size=config.training.evaluation_batch_size,
        collate_fn=encoder.collate,
    )
    trainer.compute_dtype = dtype
    return trainer


def _arguments(config: TrialConfig, folder: TrialFolder, dtype: torch.dtype) -> SFTConfig:
    training, budget = config.training, config.budget
    if config.is_final:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder.tensorboard)
    return SFTConfig(
        output_dir=str(folder.checkpoints),
        # what the study says
        num_train_epochs=budget.epochs,
        max_steps=budget.max_steps or -1,
        learning_rate=training.learning_rate,
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


def report_steps(num_steps: int, num_reports: int) -> dict[int, int]:
    """Optimizer step → report number, evenly spaced and ending with the last step.

    With fewer steps than reports, a step carries the highest report number that falls on it.
    """
    return {math.ceil(num_steps * report / num_reports): report for report in range(1, num_reports + 1)}


class Reporter(TrainerCallback):
    """Validates at the report steps, asks the worker whether to go on, and saves what must survive a kill.

    It holds no trainer: a callback that did would keep the model alive in a cycle.
    """

    def __init__(
        self,
        channel: Channel,
        num_reports: int,
        note_host: Callable[[], None],
        save_best: Callable[[], None] | None,
    ) -> None:
        self._channel = channel
        self._num_reports = num_reports
        self._note_host = note_host
        self._save_best = save_best
        self._steps: dict[int, int] = {}
        self._last_progress = 0.0
        self._loss: float | None = None
        self.reports: list[Report] = []
        self.outcome = Outcome.COMPLETE

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, control
        self._steps = report_steps(state.max_steps, self._num_reports)
        self.reports = [
            Report(step=self._steps[entry["step"]], loss=entry["eval_loss"])
            for entry in state.log_history
            if "eval_loss" in entry and entry["step"] in self._steps
        ]
        self._send_progress(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        del args
        if logs and "loss" in logs:
            self._loss = float(logs["loss"])
            if not math.isfinite(self._loss):
                upcoming = min((step for step in self._steps if step >= state.global_step), default=0)
                self._end(Outcome.DIVERGED, control)
                self.reports.append(Report(step=self._steps.get(upcoming, self._num_reports), loss=math.nan))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args
        self._note_host()
        self._send_progress(state)
        control.should_evaluate = state.global_step in self._steps
        if self._channel.checkpoint_wanted and state.global_step < state.max_steps:
            control.should_save = True
            self._end(Outcome.STOPPED, control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        del args
        assert metrics is not None
        report = Report(step=self._steps[state.global_step], loss=metrics["eval_loss"])
        is_best = all(not earlier.loss <= report.loss for earlier in self.reports)
        self.reports.append(report)
        if not math.isfinite(report.loss):
            self._end(Outcome.DIVERGED, control)
            return
        if is_best and self._save_best:
            self._save_best()
        control.should_save = control.should_save or state.global_step < state.max_steps
        goes_on = self._channel.report(Reported(step=report.step, num_reports=self._num_reports, loss=report.loss))
        if not goes_on and state.global_step < state.max_steps:
            self._end(Outcome.PRUNED, control)

    def _end(self, outcome: Outcome, control: TrainerControl) -> None:
        self.outcome = outcome
        control.should_training_stop = True

    def _send_progress(self, state: TrainerState) -> None:
        now = time.monotonic()
        if now - self._last_progress >= _SECONDS_BETWEEN_PROGRESS or state.global_step == state.max_steps:
            self._last_progress = now
            loss = self._loss if self._loss is not None and math.isfinite(self._loss) else None
            self._channel.send(Progress(step=state.global_step, num_steps=state.max_steps, loss=loss))
