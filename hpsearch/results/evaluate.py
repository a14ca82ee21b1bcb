"""Evaluating a final run on the untouched test split."""

from __future__ import annotations

from hpsearch.data.prepared import DataFolder, ensure_prepared
from hpsearch.data.rows import Tell
from hpsearch.errors import FieldError
from hpsearch.folders import StorageFolder
from hpsearch.jobs import EvaluationConfig, EvaluationResult
from hpsearch.results.final import RunFolder
from hpsearch.worker.opening import StartTrainer, do_job


def evaluate_run(
    folder: RunFolder, storage: StorageFolder, start_trainer: StartTrainer, max_new_tokens: int, tell: Tell
) -> EvaluationResult:
    """Base and tuned model on the test rows, which are written to disk here for the first time.

    Raises:
        InputError: not a run folder, or the data has changed.
    """
    file, manifest, config = folder.load()
    data = DataFolder(storage.path)
    try:
        paths = ensure_prepared(manifest, file.spec.data, folder.path, data, [("test", 1.0)], tell)
    except FieldError as error:
        raise file.mistake(error.key, error.message) from None
    job = EvaluationConfig(
        task=config.task,
        model=config.model,
        adapter=folder.adapter.resolve(),
        rows=config.rows,
        test_rows=paths["test", 1.0].resolve(),
        batch_size=config.training.evaluation_batch_size,
        max_new_tokens=max_new_tokens,
    )
    evaluation = folder.evaluation
    if not (evaluation.result.exists() and evaluation.job() == job):
        evaluation.prepare(job)
        do_job(evaluation, start_trainer, tell)
    return evaluation.read(EvaluationResult)
