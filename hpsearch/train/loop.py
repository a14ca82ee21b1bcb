"""One training run, a trial's or the final one: build, train, report, give everything back."""

from __future__ import annotations

import re
import shutil
import time
import traceback
from typing import Any

import torch
from accelerate.utils import set_seed

from hpsearch.folders import TrialFolder
from hpsearch.train.adapters import attach, parameter_counts, to_float32
from hpsearch.train.bases import Base, Bases, compute_dtype
from hpsearch.train.channel import Channel
from hpsearch.train.encoding import Encoder
from hpsearch.train.ledger import LedgerBook
from hpsearch.train.memory import clear_traceback
from hpsearch.train.tasks import TASKS
from hpsearch.train.trainer import Reporter, make_trainer
from hpsearch.trial import GIB, Outcome, TrialConfig, TrialResult


def run_trial(
    config: TrialConfig, folder: TrialFolder, bases: Bases, book: LedgerBook, channel: Channel
) -> TrialResult:
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


def _train(config: TrialConfig, folder: TrialFolder, base: Base, book: LedgerBook, channel: Channel) -> TrialResult:
    # The seed is set right before the adapter is drawn: nothing that ran earlier in this process shows in it.
    set_seed(config.training.seed)
    task = TASKS[config.task]
    model = attach(base.fresh_model(), config.lora)
    encoder = Encoder(base.fresh_processor(), config.rows, has_images=task.has_images)

    def save_best() -> None:
        model.save_pretrained(str(folder.adapter))

    reporter = Reporter(channel, config.budget.reports, book.note_host, save_best if config.is_final else None)
    trainer = make_trainer(model, encoder, config, folder, compute_dtype(config.model), reporter)
    to_float32(model)
    checkpoint = folder.last_checkpoint()
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainable, total = parameter_counts(model)
    result = TrialResult(
        outcome=reporter.outcome,
        reports=reporter.reports,
        train_seconds=time.monotonic() - started,
        num_steps=int(trainer.state.global_step),
        trainable_parameters=trainable,
        total_parameters=total,
        reason=_reason(reporter),
    )
    if config.is_final:
        base.processor.save_pretrained(str(folder.adapter))
    return result


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
    """What was held plus what was asked for when the allocation failed."""
    found = _ALLOCATION.search(message)
    if not found:
        return None
    asked = float(found.group(1)) * _UNITS[found.group(2)]
    held = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return int(asked + held)
