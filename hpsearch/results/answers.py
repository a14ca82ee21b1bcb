"""Having a model answer rows, for evaluations and predictions. Rows that have an answer already are not asked again."""

from __future__ import annotations

import shutil

from hpsearch.bridge.follow import do_job
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.errors import UnreadableFile
from hpsearch.folders import JobFolder
from hpsearch.jobs import EvaluationConfig, EvaluationResult, Job, Tell


def answer_rows(folder: JobFolder, job: EvaluationConfig, start_trainer: StartTrainer, tell: Tell) -> EvaluationResult:
    """Writes one file of answers per variant to `folder`. Answers made with other settings are deleted.

    Raises:
        HpsearchError: the job failed; the next call continues where it stopped.
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
    except UnreadableFile:  # none yet, or one from another version of hpsearch
        return None
    return job if isinstance(job, EvaluationConfig) else None


def _settings(job: EvaluationConfig) -> EvaluationConfig:
    """The settings that an answer depends on."""
    judged = {"bertscore_model": None, "metrics_file": None}
    return job.model_copy(update={"variants": [], "batch_size": 1, "images": None} | judged)


def _is_answered(folder: JobFolder, before: EvaluationConfig, job: EvaluationConfig) -> bool:
    """Whether `before`, a finished job with the same settings, covers everything that `job` asks for."""
    asks_more = any(variant not in before.variants for variant in job.variants)
    if asks_more or job.bertscore_model not in (None, before.bertscore_model):
        return False
    if job.metrics_file != before.metrics_file:
        return False
    return folder.result.exists() and folder.failure() is None
