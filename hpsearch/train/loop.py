"""One training run, a trial's or the final one: build, train, report, give everything back."""

from __future__ import annotations

import os
import re
import shutil
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from peft import load_peft_weights, set_peft_model_state_dict

from hpsearch.folders import JobFolder, StageFolder
from hpsearch.train.adapters import attach, parameter_counts, to_float32
from hpsearch.train.bases import Base, Bases, compute_dtype
from hpsearch.train.channel import Channel
from hpsearch.train.encoding import Encoder
from hpsearch.train.ledger import LedgerBook
from hpsearch.train.memory import clear_traceback, give_back, host_rss_bytes
from hpsearch.train.reporter import Reporter
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.task import Skill, Stage
from hpsearch.train.trainer import Validation, make_trainer, planned_steps
from hpsearch.trial import GIB, Outcome, TrialConfig, TrialResult


def run_trial(config: TrialConfig, folder: JobFolder, bases: Bases, book: LedgerBook, channel: Channel) -> TrialResult:
    """Trains as the config says. Whatever happens ends as a result; the ledger is closed on every path."""
    try:
        base = bases.get(TASKS[config.task], config.model)
        book.open(base)
        result = _train(config, folder, base, book, channel)
    except Exception as error:
        result = _failure(error)
        clear_traceback(error)
        if not book.is_open:
            return result
    ledger = book.close()
    if result.outcome is not Outcome.STOPPED and not config.is_final:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return result.model_copy(update={"ledger": ledger})


def _train(config: TrialConfig, folder: JobFolder, base: Base, book: LedgerBook, channel: Channel) -> TrialResult:
    # The seed is set right before the adapter is drawn: nothing that ran earlier in this process shows in it.
    set_seed(config.training.seed)
    task = TASKS[config.task]
    encoder = Encoder(base.fresh_processor(), config.rows, has_images=task.has_images)
    train_rows = Dataset.load_from_disk(str(config.train_rows))
    skill = task.skill(encoder, config.answers, train_rows)
    model = attach(base.fresh_model(), config.lora)
    skill.extend(model)

    def save(to: Path) -> None:
        model.save_pretrained(str(to))
        skill.save(model, to)

    stages = task.stages(config, train_rows)
    steps = planned_steps(stages, config)
    reporter = Reporter(
        channel,
        config.objectives[0],
        config.budget.reports,
        sum(steps),
        book.note_host,
        (lambda: save(folder.adapter)) if config.is_final else None,
        folder.history,
    )
    validation = Validation(
        Dataset.load_from_disk(str(config.validation_rows)),
        config.training.evaluation_batch_size,
        skill,
        compute_dtype(config.model),
        [name for name in config.objectives if name != "loss"],
    )
    started = time.monotonic()
    for position, stage in enumerate(stages):
        place = folder.stage(position, len(stages))
        end = sum(steps[: position + 1])
        if place.done.exists():
            reporter.begin_stage(end, place.reports())
            continue
        reporter.begin_stage(end - steps[position], reporter.reports)
        before = folder.stage(position - 1, len(stages)) if position else None
        _train_stage(config, stage, steps[position], model, encoder, place, before, validation, reporter)
        may_go_on = reporter.outcome in (Outcome.COMPLETE, Outcome.STOPPED)
        if len(stages) > 1 and reporter.step == end and may_go_on:
            save(place.adapter)
            place.finish(reporter.reports)
        if reporter.outcome is not Outcome.COMPLETE:
            break
        give_back()  # trl leaves the trainer, and with it the optimizer's state, in a cycle
    trainable, total = parameter_counts(model)
    if config.is_final:
        base.processor.save_pretrained(str(folder.adapter))
    return TrialResult(
        outcome=reporter.outcome,
        reports=reporter.reports,
        train_seconds=time.monotonic() - started,
        num_steps=reporter.step,
        trainable_parameters=trainable,
        total_parameters=total,
        reason=_reason(reporter),
    )


def _train_stage(
    config: TrialConfig,
    stage: Stage,
    num_steps: int,
    model: Any,
    encoder: Encoder,
    place: StageFolder,
    before: StageFolder | None,
    validation: Validation,
    reporter: Reporter,
) -> None:
    """Trains from the stage's last checkpoint, or else from where the stage `before` it ended."""
    if config.is_final:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(place.tensorboard)
    trainer = make_trainer(model, encoder.processor, stage, num_steps, config, place.path, validation, reporter)
    to_float32(model)  # making a trainer rounds the weights that it finds, so learned ones are loaded after it
    if before:
        _take_over(model, validation.skill, before)
        set_seed(config.training.seed + reporter.step)  # or each stage would draw the same dropout masks
    checkpoint = place.last_checkpoint()
    if checkpoint:
        validation.skill.load(model, checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _take_over(model: Any, skill: Skill, before: StageFolder) -> None:
    """Starts from where the stage before ended, whether that was just now or before a kill."""
    set_peft_model_state_dict(model, load_peft_weights(str(before.adapter), device=str(model.device)))
    skill.load(model, before.adapter)


def _reason(reporter: Reporter) -> str | None:
    if reporter.outcome is Outcome.DIVERGED:
        return f"the loss became {reporter.reports[-1].loss}"
    if reporter.outcome is Outcome.PRUNED:
        return f"the pruner stopped it at report {reporter.reports[-1].step}"
    return None


_ALLOCATION = re.compile(r"[Tt]ried to allocate ([0-9.]+) ?(bytes|KiB|MiB|GiB)?")
_UNITS = {"bytes": 1, None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB}


def _failure(error: Exception) -> TrialResult:
    text = traceback.format_exc()
    message = str(error).strip()
    first_line = message.splitlines()[0] if message else ""
    reason = f"{type(error).__name__}: {first_line}"
    if not is_out_of_memory(error):
        return TrialResult(outcome=Outcome.FAILED, reason=reason, traceback=text)
    return TrialResult(
        outcome=Outcome.OUT_OF_MEMORY, reason=reason, traceback=text, bytes_needed=_bytes_needed(message)
    )


def is_out_of_memory(error: Any) -> bool:
    """CUDA raises its own type; the CPU allocator and cuBLAS a RuntimeError with these words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _bytes_needed(message: str) -> int | None:
    """What was held, on the device or, without one, by the process, plus what was asked for when it failed."""
    found = _ALLOCATION.search(message)
    if not found:
        return None
    asked = float(found.group(1)) * _UNITS[found.group(2)]
    held = torch.cuda.memory_allocated() if torch.cuda.is_available() else host_rss_bytes()
    return int(asked + held)
