"""Asking a final run: the same job as an evaluation, on rows without an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.data.examples import Examples
from hpsearch.data.images import NO_IMAGE
from hpsearch.data.prepared import DataFolder, ensure_prepared, read_written, write_rows
from hpsearch.data.rows import Row
from hpsearch.errors import FieldError, InputError
from hpsearch.files import read_json, write_output, write_text
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.jobs import AnsweredRow, Tell, Variant
from hpsearch.results.answers import answer_rows
from hpsearch.results.evaluate import check_prompts, job_of
from hpsearch.results.final import RunFolder
from hpsearch.results.questions import (
    Lines,
    Values,
    asked_columns,
    asked_rows,
    check_columns,
    question_rows,
    read_lines,
    wants_image,
)
from hpsearch.results.scoring import read_answers
from hpsearch.spec.evaluation import PromptName
from hpsearch.trial import Record

_ADDED = ("prediction", "base_prediction", "error")
"""Columns that the output has besides those of the input."""


class PredictionOptions(Record):
    """`with_base`: the base model answers too."""

    with_base: bool = False
    prompt: PromptName = "none"
    max_new_tokens: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Prediction:
    """A run's answer to one question. `base`: the base model's answer, if requested."""

    question: str
    answer: str
    base: str | None
    is_cut: bool


@dataclass(frozen=True)
class FilePrediction:
    """`errors`: the reasons why rows have no answer, with their lines."""

    output: Path
    num_answers: int
    num_cut: int
    errors: dict[str, list[int]]


def ask(
    folder: RunFolder,
    images: Sequence[Path],
    questions: Sequence[str],
    options: PredictionOptions,
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
) -> list[Prediction]:
    """The run's answer to each question about the images; all images belong to every question.

    Raises:
        InputError: not a run folder, or an image or question that is missing, not expected or unusable.
        HpsearchError: the job failed.
    """
    file, manifest, _ = folder.load()
    spec = file.spec
    lines = dict(enumerate(asked_rows(spec, manifest, images, questions), start=1))
    store = DataFolder(storage.path).images
    found = question_rows(lines, spec.data, Path.cwd(), store, tell, spec.task_facts.images)
    rows = []
    for row in found.values():
        if isinstance(row, str):
            names = ", ".join(map(str, images))
            raise InputError(f"{names}: {row}" if images and "image" in row else f"--question: {row}")
        rows.append(row)
    rows = _with_examples(folder, rows, storage, tell)
    base, tuned = _answered(folder, rows, options, storage, start_trainer, tell)
    texts: list[str | None] = [row.prediction for row in base] if base else [None] * len(rows)
    return [Prediction(row.question, row.prediction, text, row.is_cut) for row, text in zip(tuned, texts, strict=True)]


def predict_file(
    folder: RunFolder,
    source: Path,
    output: Path,
    options: PredictionOptions,
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
    *,
    force: bool,
) -> FilePrediction:
    """Writes each row of `source`, a JSONL file with the study's columns, to `output` with the run's answer.

    Unusable rows are written with an `error`. An interrupted call continues where it stopped.

    Raises:
        InputError: not a run folder, a file that can't be read, written or overwritten, or no usable row.
        HpsearchError: the job failed.
    """
    folder.load()
    lines = read_lines(source)
    if output.exists() and output.samefile(source):
        raise InputError(f"{output}: is the file to read from; give another name with --output")
    found = _found(folder, lines, str(source), source.parent, storage, tell)
    rows = _with_examples(folder, [row for row in found.values() if isinstance(row, Row)], storage, tell)
    place = _place(folder, rows, options)
    mine = _Written(place, output, [variant.name for variant in _variants(options)])
    if output.exists() and not force and not mine.is_unchanged():
        raise InputError(f"{output}: is there already; --force overwrites it, or give another name with --output")
    base, tuned = _answered(folder, rows, options, storage, start_trainer, tell)
    done = _completed(lines, found, base, tuned)
    write_output(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in done))
    mine.note()
    return FilePrediction(output, len(tuned), sum(row.is_cut for row in tuned), _by_reason(found))


def predict_rows(
    folder: RunFolder,
    asked: Sequence[Values],
    options: PredictionOptions,
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
) -> list[Values]:
    """Each row, with the study's columns, with the run's answer or with an `error`.

    Raises:
        InputError: not a run folder, or no usable row.
        HpsearchError: the job failed.
    """
    lines = dict(enumerate(asked, start=1))
    found = _found(folder, lines, "rows", Path.cwd(), storage, tell)
    rows = _with_examples(folder, [row for row in found.values() if isinstance(row, Row)], storage, tell)
    return _completed(lines, found, *_answered(folder, rows, options, storage, start_trainer, tell))


def _found(
    folder: RunFolder, lines: Lines, source: str, images: Path, storage: StorageFolder, tell: Tell
) -> dict[int, Row | str]:
    """For each line a row to answer, or what is wrong with it; relative paths of images start at `images`."""
    file, manifest, _ = folder.load()
    spec, needs_image = file.spec, wants_image(file.spec, manifest)
    check_columns(source, lines, asked_columns(spec.data, needs_image=needs_image))
    store = DataFolder(storage.path).images
    found = question_rows(lines, spec.data, images, store, tell, spec.task_facts.images)
    if needs_image:
        found = {line: NO_IMAGE if isinstance(row, Row) and not row.images else row for line, row in found.items()}
    if not any(isinstance(row, Row) for row in found.values()):
        raise InputError(f"{source}: no row can be answered: {format_errors(_by_reason(found))}")
    return found


def _with_examples(folder: RunFolder, rows: list[Row], storage: StorageFolder, tell: Tell) -> list[Row]:
    """The same training examples before each question as in an evaluation, where the study has few-shot examples."""
    file, manifest, _ = folder.load()
    if not manifest.examples:
        return rows
    data, train = DataFolder(storage.path), [("train", 1.0)]
    try:
        images = file.spec.task_facts.images
        paths = ensure_prepared(manifest, file.spec.data, folder.path, data, train, tell, images)  # type: ignore[arg-type]
        examples = Examples(read_written(paths["train", 1.0]), manifest.examples)
        return [examples.before(row) for row in rows]
    except FieldError as error:
        raise file.mistake(error.key, error.message) from None


def _by_reason(found: dict[int, Row | str]) -> dict[str, list[int]]:
    errors: dict[str, list[int]] = {}
    for number, row in found.items():
        if isinstance(row, str):
            errors.setdefault(row, []).append(number)
    return errors


def format_errors(errors: dict[str, list[int]], most: int = 5) -> str:
    """Every reason with its line numbers, shortened where there are many."""
    parts = []
    for reason, numbers in errors.items():
        more = " …" if len(numbers) > most else ""
        parts.append(f"{len(numbers)} × {reason} (line {', '.join(map(str, numbers[:most]))}{more})")
    return ", ".join(parts)


def _completed(
    lines: Lines, found: dict[int, Row | str], base: list[AnsweredRow], tuned: list[AnsweredRow]
) -> list[Values]:
    """Every line with its answers, or with its error."""
    added: dict[str, dict[str, str]] = {row.id: {"prediction": row.prediction} for row in tuned}
    for row in base:
        added[row.id]["base_prediction"] = row.prediction
    return [_with_answer(lines[number], found[number], added.get(str(number), {})) for number in lines]


def _with_answer(values: Values | str, row: Row | str, added: dict[str, str]) -> Values:
    if isinstance(values, str):
        return {"line": values, "error": row}
    kept = {name: value for name, value in values.items() if name not in _ADDED}
    return {**kept, "error": row} if isinstance(row, str) else {**kept, **added}


def _answered(
    folder: RunFolder,
    rows: list[Row],
    options: PredictionOptions,
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
) -> tuple[list[AnsweredRow], list[AnsweredRow]]:
    """The answers of the base model (none if not requested) and of the tuned one."""
    file, _, config = folder.load()
    check_prompts(file.spec, [options.prompt])
    place = _place(folder, rows, options)
    if not (place / "rows").is_dir():
        place.mkdir(parents=True, exist_ok=True)
        write_rows(rows, place / "rows")
    variants = _variants(options)
    batch_size = options.batch_size or config.training.evaluation_batch_size
    job = job_of(folder, file.spec, config, variants, place / "rows", storage, options.max_new_tokens).model_copy(
        update={"has_references": False, "batch_size": batch_size}
    )
    answers = JobFolder(place / "answers")
    answer_rows(answers, job, start_trainer, tell)
    found = {variant.model: read_answers(answers.answers(variant.name)) for variant in variants}
    return found.get("base", []), found["tuned"]


def _variants(options: PredictionOptions) -> list[Variant]:
    tuned = Variant(model="tuned", prompt=options.prompt)
    return [Variant(model="base", prompt=options.prompt), tuned] if options.with_base else [tuned]


def _place(folder: RunFolder, rows: list[Row], options: PredictionOptions) -> Path:
    """A folder for these rows and settings: an equal call reuses its answers, another one starts over."""
    digest = hashlib.sha256(str(options.max_new_tokens).encode())
    for row in rows:
        images = [[str(image.path), image.sha256] for image in row.images]
        shown = [list(row.examples)] if row.examples else []
        digest.update(json.dumps([row.id, row.messages, images, *shown]).encode())
    return folder.predictions / digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Written:
    """Records which file these rows' answers under `variants` were written to: the same call may overwrite it."""

    place: Path
    output: Path
    variants: list[str]

    def note(self) -> None:
        write_text(self._file, json.dumps(self._content()))

    def is_unchanged(self) -> bool:
        return self._file.exists() and read_json(self._file) == self._content()

    @property
    def _file(self) -> Path:
        return self.place / "written.json"

    def _content(self) -> dict[str, object]:
        sha256 = hashlib.sha256(self.output.read_bytes()).hexdigest()
        return {"output": str(self.output.resolve()), "sha256": sha256, "variants": self.variants}
