"""Evaluating a final run on the untouched test split: base and tuned model, under each prompt, beside a baseline."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.data.manifest import Manifest
from hpsearch.data.prepared import DataFolder, ensure_prepared
from hpsearch.data.split import SplitName
from hpsearch.errors import FieldError, InputError
from hpsearch.evaluation import MOST_FREQUENT, Evaluation
from hpsearch.files import read_file, write_text
from hpsearch.folders import StorageFolder
from hpsearch.jobs import AnsweredRow, EvaluationConfig, EvaluationResult, Tell, Variant
from hpsearch.metrics import most_frequent_answers
from hpsearch.results.answers import answer_rows
from hpsearch.results.final import RunFolder
from hpsearch.results.scoring import (
    corrected,
    default_metrics,
    gap_between,
    read_answers,
    score_variant,
    texts_of,
    units_of,
    write_scored_rows,
)
from hpsearch.spec import StudyFile, StudySpec
from hpsearch.spec.data import ColumnsSpec
from hpsearch.spec.evaluation import PromptName
from hpsearch.spec.load import with_present_metrics
from hpsearch.spec.metrics import LOSS, TEXT_LOSS, Metric
from hpsearch.spec.rows import FORMATS
from hpsearch.spec.tasks import TASKS, TaskFacts
from hpsearch.study.configs import images_config, metrics_file
from hpsearch.trial import AnswersConfig, Record, TrialConfig


class EvaluationOptions(Record):
    """Options of the person besides the study's own evaluation section."""

    prompts: list[PromptName] | None = None
    metrics: list[str] | None = None
    max_new_tokens: int | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    with_base: bool = True


def evaluate_run(
    folder: RunFolder, options: EvaluationOptions, storage: StorageFolder, start_trainer: StartTrainer, tell: Tell
) -> Evaluation:
    """Scores on the test rows, which are written to disk here for the first time.

    Answers of the same model with the same settings are reused.

    Raises:
        InputError: not a run folder, the data has changed, or a prompt or metric that doesn't fit.
        HpsearchError: the evaluation failed; the next one continues where it stopped.
    """
    kept, manifest, config = folder.load()
    file = with_present_metrics(kept)
    spec = file.spec
    variants = _variants(spec, options)
    _check_metrics(spec, options.metrics)
    test, train = _rows(file, manifest, folder.path, DataFolder(storage.path), options.limit, tell)
    named = options.metrics or spec.evaluation.metrics
    wants_model = not named or any(spec.metric(name).needs_model for name in named)
    job = job_of(folder, spec, config, variants, test, storage, options.max_new_tokens)
    if wants_model:
        job = job.model_copy(update={"bertscore_model": spec.evaluation.bertscore_model})
    job = job.model_copy(update={"metrics_file": metrics_file(spec)})
    is_whole = options.limit is None or options.limit >= len(manifest.splits["test"])
    place = folder.evaluation if is_whole else folder.evaluation_of_some
    result = answer_rows(place, job, start_trainer, tell)
    tell("scoring the answers", 0, 0)
    read = {variant.name: read_answers(place.answers(variant.name)) for variant in job.variants}
    return _scored(folder, config, spec, options, job, result, _grouped(read, _groups(job.test_rows)), train)


def job_of(
    folder: RunFolder,
    spec: StudySpec,
    config: TrialConfig,
    variants: list[Variant],
    rows: Path,
    storage: StorageFolder,
    max_new_tokens: int | None,
) -> EvaluationConfig:
    """Has a final run answer the prepared `rows`."""
    return EvaluationConfig(
        task=config.task,
        model=config.model,
        adapter=folder.adapter.resolve(),
        rows=config.rows,
        answers=answers_of(config, max_new_tokens),
        variants=variants,
        prompts=spec.evaluation.prompts,
        test_rows=rows.resolve(),
        batch_size=config.training.evaluation_batch_size,
        rules=3 if TASKS[config.task].has_images else 2,
        images=images_config(spec, storage),
    )


def answers_of(config: TrialConfig, max_new_tokens: int | None) -> AnswersConfig:
    """The run's own settings, with another maximum answer length where one is given."""
    return config.answers.model_copy(update={"max_new_tokens": max_new_tokens} if max_new_tokens else {})


def _variants(spec: StudySpec, options: EvaluationOptions) -> list[Variant]:
    there: list[PromptName] = spec.evaluation.prompts.names() if spec.task_facts.has_prompts else ["none"]
    prompts = list(dict.fromkeys(options.prompts or there))
    check_prompts(spec, prompts)
    tuned = [Variant(model="tuned", prompt=prompt) for prompt in prompts]
    return [*(variant.model_copy(update={"model": "base"}) for variant in tuned if options.with_base), *tuned]


def check_prompts(spec: StudySpec, wanted: Sequence[PromptName]) -> None:
    """Raises InputError for a prompt that the study doesn't have."""
    if not spec.task_facts.has_prompts and set(wanted) != {"none"}:
        raise InputError(f"a model of task {spec.task} is asked one question only, without a prompt before it")
    for prompt in wanted:
        if prompt not in spec.evaluation.prompts.names():
            raise InputError(f"the study has no {prompt} prompt: write it in its file under evaluation.prompts")


def _check_metrics(spec: StudySpec, wanted: Sequence[str] | None) -> None:
    row_format = spec.data.columns.row_format
    if wanted and not FORMATS[row_format].has_answers:
        raise InputError(f"--metrics: {row_format} rows have no answers to measure; they are evaluated by their loss")
    for name in wanted or []:
        try:
            metric = spec.metric(name)
        except ValueError as error:
            raise InputError(f"--metrics: {error}") from None
        if not spec.task_facts.fits(metric) or metric == LOSS:
            there = ", ".join(other.name for other in spec.fitting_metrics() if other != LOSS)
            raise InputError(f"--metrics {name} does not fit task {spec.task}; it has: {there}")
        if metric.needs_model and not spec.evaluation.bertscore_model:
            raise InputError(f"--metrics {name} needs a model: name it in the study's evaluation.bertscore_model")


def _rows(
    file: StudyFile, manifest: Manifest, folder: Path, data: DataFolder, limit: int | None, tell: Tell
) -> tuple[Path, Path]:
    """Folders of the test rows (at most `limit`) and of all train rows."""
    from datasets import Dataset

    num_rows = len(manifest.splits["test"])
    fraction = 1.0 if limit is None else min(1.0, limit / num_rows)
    try:
        wanted: list[tuple[SplitName, float]] = [("test", fraction), ("train", 1.0)]
        images = file.spec.task_facts.images
        paths = ensure_prepared(manifest, file.spec.data, folder, data, wanted, tell, images)
        test = paths["test", fraction]
        if "group" not in Dataset.load_from_disk(str(test)).column_names:  # by an earlier hpsearch
            shutil.rmtree(test)
            ensure_prepared(manifest, file.spec.data, folder, data, wanted, tell, images)
    except FieldError as error:
        raise file.mistake(error.key, error.message) from None
    return test, paths["train", 1.0]


def _scored(
    folder: RunFolder,
    config: TrialConfig,
    spec: StudySpec,
    options: EvaluationOptions,
    job: EvaluationConfig,
    result: EvaluationResult,
    answers: dict[str, list[AnsweredRow]],
    train: Path,
) -> Evaluation:
    some = next(iter(answers.values()))
    task, named = TASKS[config.task], options.metrics or spec.evaluation.metrics
    metrics = [spec.metric(name) for name in named or []]
    own = spec.evaluation.own_metrics.values()
    if not FORMATS[config.rows.row_format].has_answers:
        metrics = [TEXT_LOSS]
    metrics = metrics or default_metrics(task, texts_of(some)[0], bool(job.bertscore_model), own)
    by_name = {**_guessed(metrics, some, train), **answers}
    tuned = next(variant.name for variant in job.variants if variant.model == "tuned")
    variants = [score_variant(name, rows, metrics) for name, rows in by_name.items()]
    metrics = [metric for metric in metrics if any(metric.name in variant.scores for variant in variants)] or metrics
    base = [variant.name for variant in job.variants if variant.model == "base"]
    bars = [than for than in (*base[:1], MOST_FREQUENT) if than in by_name]
    gaps = [gap_between(metrics[0], tuned, answers[tuned], than, by_name[than]) for than in bars]
    evaluation = Evaluation(
        num_rows=result.num_rows,
        rows_sha256=_checksum(folder, some),
        longer_than_limit=result.longer_than_limit,
        metrics=metrics,
        variants=variants,
        gaps=corrected(gaps),
        notes=result.notes,
        units=units_of(unit_name(spec.data.columns), some),
    )
    _write(folder, evaluation, answers, task)
    return evaluation


def _groups(rows: Path) -> dict[str, int]:
    """Id → group, of prepared test rows."""
    from datasets import Dataset

    table = Dataset.load_from_disk(str(rows))
    return dict(zip(table["id"], table["group"], strict=True))


def _grouped(answers: dict[str, list[AnsweredRow]], groups: dict[str, int]) -> dict[str, list[AnsweredRow]]:
    return {name: [row.model_copy(update={"group": groups[row.id]}) for row in rows] for name, rows in answers.items()}


def unit_name(columns: ColumnsSpec) -> str:
    """What rows of one group share: the data's group column, or else images."""
    if columns.group:
        return f"groups (column {columns.group})"
    return "images" if columns.image else "rows"


def _write(folder: RunFolder, evaluation: Evaluation, answers: dict[str, list[AnsweredRow]], task: TaskFacts) -> None:
    """Writes the scores and the scored rows, and deletes the rows of an earlier evaluation."""
    folder.scores.mkdir(exist_ok=True)
    for file in folder.scores.glob("*.jsonl"):
        if file.stem not in answers:
            file.unlink()
    for name, rows in answers.items():
        write_scored_rows(folder.scores / f"{name}.jsonl", rows, task)
    write_text(folder.scores / "scores.json", evaluation.model_dump_json(indent=2))


def _guessed(metrics: list[Metric], rows: list[AnsweredRow], train: Path) -> dict[str, list[AnsweredRow]]:
    """Answers of the baseline that always guesses the most frequent answer, where metrics compare answers."""
    compares = any(metric.over in ("texts", "classes") for metric in metrics)
    return {MOST_FREQUENT: _frequent(rows, train)} if compares else {}


def _frequent(rows: list[AnsweredRow], train: Path) -> list[AnsweredRow]:
    """The most frequent training answer to each question: a baseline that ignores the input."""
    from datasets import Dataset

    known = [(turns[-2]["content"], turns[-1]["content"]) for turns in Dataset.load_from_disk(str(train))["messages"]]
    said = most_frequent_answers(known, [row.question for row in rows])
    without: dict[str, object] = {"loss": None, "is_cut": False, "numbers": {}}
    return [
        row.model_copy(update=without | {"prediction": answer.strip()}) for row, answer in zip(rows, said, strict=True)
    ]


def _checksum(folder: RunFolder, rows: list[AnsweredRow]) -> str:
    """Checksum of the ids and contents of the evaluated rows: two evaluations with the same one can be compared."""
    manifest = read_file(folder.manifest, Manifest.from_bytes)
    known = dict(manifest.splits["test"])
    return hashlib.sha256("\n".join(f"{row.id} {known[row.id]}" for row in rows).encode()).hexdigest()
