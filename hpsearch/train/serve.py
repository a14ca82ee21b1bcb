"""Serving jobs: take a folder, do its job, write its result, say whether this process may take another."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import datasets
import torch
import transformers
from pydantic import BaseModel

from hpsearch.bridge.protocol import Done, Ready
from hpsearch.errors import FieldError
from hpsearch.folders import JobFolder
from hpsearch.jobs import DiagnosisConfig, ExportConfig, InspectionConfig, JobFailure
from hpsearch.train.bases import Bases
from hpsearch.train.channel import Channel
from hpsearch.train.diagnosis import diagnose
from hpsearch.train.evaluation import evaluate
from hpsearch.train.export import export
from hpsearch.train.inspection import inspect
from hpsearch.train.ledger import LedgerBook
from hpsearch.train.loop import run_trial
from hpsearch.trial import Outcome, TrialConfig, TrialResult

_REUSABLE = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.STOPPED)


def serve(channel: Channel) -> None:
    """Jobs, one after the other, until the worker goes."""
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_warning()
    bases = Bases(channel.tell)
    book = LedgerBook()
    channel.send(Ready(device=_device_name()))
    while True:
        folder = JobFolder(channel.next_job().folder)
        log_to(folder.log)
        result = _do(folder, bases, book, channel)
        folder.write_result(result)
        channel.send(Done(clean=_is_clean(result)))


def _do(folder: JobFolder, bases: Bases, book: LedgerBook, channel: Channel) -> BaseModel:
    """The border of the training plane: whatever is raised in a job ends as a stored result."""
    job = folder.job()
    if isinstance(job, TrialConfig):
        return run_trial(job, folder, bases, book, channel)
    try:
        if isinstance(job, InspectionConfig):
            return inspect(job, channel)
        if isinstance(job, DiagnosisConfig):
            return diagnose()
        if isinstance(job, ExportConfig):
            return export(job, bases, channel)
        return evaluate(job, folder, bases, channel)
    except FieldError as error:
        return JobFailure(reason=str(error), traceback=traceback.format_exc())
    except Exception as error:
        return JobFailure(reason=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def _is_clean(result: BaseModel) -> bool:
    """After a crash, an out-of-memory error or an open ledger, a process is not trusted with another trial."""
    if isinstance(result, TrialResult):
        return result.outcome in _REUSABLE and result.ledger is not None and result.ledger.closes
    return not isinstance(result, JobFailure)


def _device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU, {torch.get_num_threads()} threads"


def log_to(file: Path) -> None:
    """Sends everything that libraries print to the job's log."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
