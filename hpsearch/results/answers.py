"""Having a model answer rows, for evaluations and predictions. Rows that have an answer already are not asked again."""

from __future__ import annotations

import shutil

from hpsearch.bridge.follow import do_job
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.errors import UnreadableFile
from hpsearch.folders import JobFolder
from hpsearch.jobs import EvaluationConfig, EvaluationResult, Job, Tell


def answer_rows(folder: JobFolder, job: EvaluationConfig, start_trainer: StartTrainer, tell: Tell) -> EvaluationResult:
    """Leaves a file of answers in `folder` for each variant. Those that other settings gave are thrown away.

    Raises:
        HpsearchError: the job failed; the next one goes on where it stopped.
    """
    before = _job_before(folder)
    if before is None or _settings(before) != _settings(job):
        shutil.rmtree(folder.path, ignore_errors=True)
    elif _is_answered(folder, before, job):
        return folder.read(EvaluationResult)
    folder.prepare(job)
    do_job(folder, start_trainer, tell)
    return folder.read(EvaluationResult)


def _job_before(folder: JobFolder) -> EvaluationConfig | None:
    try:
        job: Job = folder.job()
    except UnreadableFile:  # none yet, or one that another version of hpsearch wrote
        return None
    return job if isinstance(job, EvaluationConfig) else None


def _settings(job: EvaluationConfig) -> EvaluationConfig:
    """What an answer depends on."""
    judged = {"bertscore_model": None, "metrics_file": None}
    return job.model_copy(update={"variants": [], "batch_size": 1, "images": None} | judged)


def _is_answered(folder: JobFolder, before: EvaluationConfig, job: EvaluationConfig) -> bool:
    """Whether `before`, which has the same settings, asked for all that `job` asks for, and got it."""
    asks_more = any(variant not in before.variants for variant in job.variants)
    if asks_more or job.bertscore_model not in (None, before.bertscore_model):
        return False
    if job.metrics_file != before.metrics_file:
        return False
    return folder.result.exists() and folder.failure() is None
