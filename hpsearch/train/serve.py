"""Serving jobs: take a folder, do its job, write its result, say whether this process may take another."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import datasets
import transformers
from pydantic import BaseModel

from hpsearch.bridge.protocol import Done, Ready
from hpsearch.errors import FieldError, UnreadableFile
from hpsearch.folders import JobFolder
from hpsearch.jobs import DiagnosisConfig, ExportConfig, InspectionConfig, Job, JobFailure
from hpsearch.train.bases import Bases
from hpsearch.train.channel import Channel
from hpsearch.train.diagnosis import diagnose
from hpsearch.train.evaluation import evaluate
from hpsearch.train.export import export
from hpsearch.train.inspection import inspect
from hpsearch.train.ledger import LedgerBook
from hpsearch.train.loop import run_trial
from hpsearch.train.memory import device_name
from hpsearch.train.stopwatch import seconds_to_start
from hpsearch.trial import Outcome, TrialConfig, TrialResult

_REUSABLE = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.STOPPED)


def serve(channel: Channel) -> None:
    """Does jobs, one after the other, until the worker is gone.

    A job whose folder can't be used leaves no result: the process ends, and its last line says why.
    """
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_warning()
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # else what is printed waits for 8 KiB, or for the next job's log
    own_log = os.dup(sys.stdout.fileno())
    bases = Bases(channel.tell)
    book = LedgerBook()
    seconds_to_start()
    channel.send(Ready(device=device_name()))
    while True:
        folder = JobFolder(channel.next_job().folder)
        try:
            log_to(folder.log)
            result = _do(folder.job(), folder, bases, book, channel)
            folder.write_result(result)
        except OSError as error:
            _give_up(f"{folder.path} can't be written to: {error.strerror or error}", own_log)
        except UnreadableFile as error:
            _give_up(str(error), own_log)
        channel.send(Done(clean=_is_clean(result)))


def _give_up(why: str, own_log: int) -> NoReturn:
    """Writes to the job's log and to the trainer's own: one of them may be what can't be written."""
    for descriptor in (sys.stdout.fileno(), own_log):
        with contextlib.suppress(OSError):
            os.write(descriptor, f"{why}\n".encode())
    os._exit(1)


def _do(job: Job, folder: JobFolder, bases: Bases, book: LedgerBook, channel: Channel) -> BaseModel:
    """The outermost handler of the training plane: every exception in a job becomes a stored result."""
    if isinstance(job, TrialConfig):
        return run_trial(job, folder, bases, book, channel)
    try:
        if isinstance(job, InspectionConfig):
            return inspect(job, channel)
        if isinstance(job, DiagnosisConfig):
            channel.tell("trying out the machine", 0, 0)
            return diagnose()
        if isinstance(job, ExportConfig):
            return export(job, bases, channel)
        return evaluate(job, folder, bases, channel)
    except FieldError as error:
        return JobFailure(reason=str(error), traceback=traceback.format_exc())
    except Exception as error:
        return JobFailure(reason=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def _is_clean(result: BaseModel) -> bool:
    """After a crash, an out-of-memory error or an unbalanced ledger, a process gets no further trial."""
    if isinstance(result, TrialResult):
        return result.outcome in _REUSABLE and result.ledger is not None and result.ledger.closes
    return not isinstance(result, JobFailure)


def log_to(file: Path) -> None:
    """Redirects everything that libraries print to the job's log."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
