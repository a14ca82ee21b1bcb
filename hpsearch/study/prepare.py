"""Preparing a study before it is stored: its data is read, inspected by a trainer, and split."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.bridge.follow import do_job
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.data.divide import divide
from hpsearch.data.examples import Length, fitting
from hpsearch.data.manifest import Manifest, make_manifest
from hpsearch.data.places import Places
from hpsearch.data.prepared import DataFolder, read_data, write_rows
from hpsearch.data.rows import LeftOut, ReadRows, Row
from hpsearch.data.split import Splits, check_any_left, joined_groups
from hpsearch.errors import FieldError, HpsearchError, InputError, did_you_mean
from hpsearch.folders import StorageFolder
from hpsearch.jobs import Example, InspectionConfig, InspectionResult, Tell
from hpsearch.spec import StudyFile, StudySpec
from hpsearch.spec.search import RangeSpec
from hpsearch.study.adapter import learned_before
from hpsearch.study.configs import metrics_file, rows_config


@dataclass(frozen=True)
class PreparedStudy:
    """What is known of a study before it is in a store."""

    manifest: Manifest
    splits: Splits
    files: list[Path]
    linear_layers: dict[str, list[str]]
    """Base → names that target_modules may hold."""
    examples: list[Example]
    places: Places | None = None


def prepare_study(
    file: StudyFile, storage: StorageFolder, start_trainer: StartTrainer, tell: Tell, num_examples: int = 0
) -> PreparedStudy:
    """Reads the data, has a trainer inspect rows and base, and splits.

    Raises:
        StudyFileErrors: with the line that doesn't fit.
        InputError: the storage folder can't be written.
        HpsearchError: the hub of a base or of the data can't be reached.
    """
    spec = file.spec
    if why := storage.why_unwritable():
        raise InputError(f"{why}; set HPSEARCH_STORAGE to a folder of yours")
    try:
        read, files = read_data(spec.data, file.path.parent, DataFolder(storage.path), tell, spec.task_facts.images)
        check_any_left(read)
        _check_local_bases(file)
        inspection = _inspect(file, read.rows, storage, start_trainer, tell, num_examples)
        check_target_modules(spec, inspection.linear_layers)
        lengths = _lengths(read.rows, inspection)
        counted = zip(read.rows, inspection.num_tokens, strict=True)
        too_long = [row.id for row, count in counted if count > spec.data.max_tokens]
        read = read.without(dict.fromkeys(too_long, f"longer than {spec.data.max_tokens} tokens"))
        check_any_left(read, "data.max_tokens")  # before, there were some
        splits, left_out = divide(read, spec.data, spec.curriculum, file.path.parent)
        examples = inspection.examples
        if spec.data.examples:
            splits, left_out = _with_examples(file, splits, left_out, lengths)
            shown = [row for rows in splits.values() for row in rows][:num_examples]
            examples = _inspect(file, shown, storage, start_trainer, tell, num_examples).examples if shown else []
        used = [row for rows in splits.values() for row in rows]
        notes = [*read.notes, *joined_groups(used, spec.data.columns.group), *learned_before(spec.model, splits)]
        manifest = make_manifest(splits, left_out, spec.data.examples, notes, read.places)
    except FieldError as error:
        raise file.mistake(error.key, error.message, error.others) from None
    return PreparedStudy(manifest, splits, files, inspection.linear_layers, examples, read.places)


def _lengths(rows: Sequence[Row], inspection: InspectionResult) -> dict[str, Length]:
    counted = zip(rows, inspection.num_tokens, inspection.num_shown or inspection.num_tokens, strict=True)
    return {row.id: Length(alone, shown) for row, alone, shown in counted}


def _with_examples(
    file: StudyFile, splits: Splits, left_out: LeftOut, lengths: dict[str, Length]
) -> tuple[Splits, LeftOut]:
    """Raises FieldError where a held-out row is too long with its examples: the held-out rows must not change."""
    data = file.spec.data
    found, too_long = fitting(splits, data, lengths)
    if data.held_out and (file.path.parent / data.held_out).exists():
        for row in splits["test"]:
            if row.id in too_long:
                raise FieldError("data.held_out", f"row {row.id!r} of {data.held_out} is {too_long[row.id]}")
    rows = [row for split in splits.values() for row in split]
    return found, ReadRows(rows, left_out).without(too_long).left_out


def _check_local_bases(file: StudyFile) -> None:
    """Raises FieldError where a base is a path and there is no such folder; no trainer is needed to see that."""
    for base in file.spec.bases():
        path = (file.path.parent / base).expanduser()
        if base.startswith(("./", "../", "/", "~")) and not path.is_dir():
            raise FieldError("model.base", f"{base!r}: there is no folder {path.resolve()}")


def _inspect(
    file: StudyFile,
    rows: Sequence[Row],
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
    num_examples: int,
) -> InspectionResult:
    """Uses a job folder of its own, which is kept only where the job failed: its log says why."""
    spec = file.spec
    folder = storage.new_inspection(spec.study)
    candidates = folder.path / "candidates"
    config = InspectionConfig(
        task=spec.task,
        models=[spec.model.model_copy(update={"base": base}).found_from(file.path.parent) for base in spec.bases()],
        rows=rows_config(spec),
        candidate_rows=candidates,
        counts_shown=spec.data.examples > 0,
        num_examples=min(num_examples, len(rows)),
        metrics_file=metrics_file(spec),
        counted=DataFolder(storage.path).counted,
    )
    folder.prepare(config)
    try:
        write_rows(rows, candidates)
        do_job(folder, start_trainer, tell)
    finally:
        shutil.rmtree(candidates, ignore_errors=True)
    result = folder.read(InspectionResult)
    shutil.rmtree(folder.path)
    if result.unreachable:
        raise HpsearchError(result.unreachable)
    if result.mistake:
        raise FieldError(*result.mistake)
    return result


def check_target_modules(spec: StudySpec, linear_layers: dict[str, list[str]]) -> None:
    """Raises FieldError where a base has no linear layer of that name."""
    if spec.model.adapter is not None:
        return  # the layers are fixed by the adapter; the inspection has checked that it fits the base
    for base, known in linear_layers.items():
        for key, wanted in _target_modules(spec):
            unknown = [name for name in wanted if name not in known]
            if unknown:
                raise FieldError(
                    key,
                    f"{base} has no linear layer {unknown[0]!r}; {did_you_mean(unknown[0], known)} "
                    f"(it has {', '.join(known)})",
                )


def _target_modules(spec: StudySpec) -> list[tuple[str, list[str]]]:
    """Every list of target modules that a trial may use, with its key in the file."""
    lists = [("lora.target_modules", spec.lora.target_modules)]
    space = spec.search.space if spec.search else {}
    parameter = space.get("lora.target_modules", [])
    if not isinstance(parameter, RangeSpec):
        lists += [("search.space.lora.target_modules", choice) for choice in parameter]  # type: ignore[misc]
    return [(key, names) for key, names in lists if isinstance(names, list)]
