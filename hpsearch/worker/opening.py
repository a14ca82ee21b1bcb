"""Opening a study: created from its file, or found in the store and checked against the file and the data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpsearch.data.divide import divide, keep_held_out
from hpsearch.data.manifest import Manifest, make_manifest
from hpsearch.data.prepared import DataFolder, ensure_prepared, read_data, write_prepared, write_rows
from hpsearch.data.rows import Row
from hpsearch.data.split import SplitName, Splits, split_rows
from hpsearch.errors import FieldError, HpsearchError, InputError, did_you_mean
from hpsearch.folders import StorageFolder, TrialFolder
from hpsearch.jobs import Example, InspectionConfig, InspectionResult
from hpsearch.protocol import Done, Phase, Run, Tell
from hpsearch.search import Search
from hpsearch.spec import StudyFile, StudySpec
from hpsearch.spec.search import RangeSpec
from hpsearch.spec.study import MAY_CHANGE, flat
from hpsearch.store import Store, StoredStudy
from hpsearch.trial import AnswersConfig, RowsConfig, TrialConfig
from hpsearch.worker.trainer_process import Trainer

StartTrainer = Callable[[], Trainer]


@dataclass(frozen=True)
class OpenStudy:
    """A study that is ready to be worked on, on this machine."""

    spec: StudySpec
    study_id: int
    manifest: Manifest
    train_rows: Path
    validation_rows: Path
    storage: StorageFolder
    folder: Path
    """Where the study file stands: relative paths count from there."""

    def trial_config(self, number: int, values: dict[str, Any]) -> TrialConfig:
        spec = self.spec.with_values(values)
        return TrialConfig(
            name=f"{spec.study} trial {number}",
            task=spec.task,
            model=spec.model.found_from(self.folder),
            lora=spec.lora,
            training=spec.training,
            budget=spec.budget,
            rows=rows_config(spec),
            answers=answers_config(spec, self.manifest),
            objectives=spec.objectives,
            curriculum=spec.curriculum,
            train_rows=self.train_rows,
            validation_rows=self.validation_rows,
        )


@dataclass(frozen=True)
class PreparedStudy:
    """What is known of a study before it is in any store."""

    manifest: Manifest
    splits: Splits
    files: list[Path]
    examples: list[Example]


def rows_config(spec: StudySpec) -> RowsConfig:
    return RowsConfig(
        row_format=spec.data.columns.row_format,
        image_size=spec.data.image_size,
        system_prompt=spec.data.system_prompt,
        max_tokens=spec.data.max_tokens,
    )


def answers_config(spec: StudySpec, manifest: Manifest) -> AnswersConfig:
    classes = manifest.classes if spec.data.columns.learns_label else []
    return AnswersConfig(head=spec.head, classes=classes, max_new_tokens=spec.evaluation.max_new_tokens)


def open_study(
    file: StudyFile, store: Store, storage: StorageFolder, start_trainer: StartTrainer, tell: Tell, *, joins: bool
) -> OpenStudy:
    """Creates the study or resumes it. A worker that only `joins` leaves the stored budget as it is.

    Raises:
        StudyFileErrors: the file doesn't fit its data or base.
        InputError: the stored study says something else than the file.
    """
    spec = file.spec
    if spec.search is None:
        raise file.mistake("search", "is missing: this file can be trained (hpsearch train), not searched")
    with store.reaching():
        stored = store.studies.find(spec.study)
    if stored is None:
        _create(file, store, storage, start_trainer, tell)
        with store.reaching():
            stored = store.studies.find(spec.study)
        assert stored is not None
    _check_unchanged(file, stored)
    manifest = Manifest.from_bytes(stored.manifest)
    if not joins:
        with store.reaching():
            done = store.leases.slots(stored.study_id).finished
        if num_trials(spec) < done:
            message = f"{done} trials are finished already: the budget of a study can grow, not shrink"
            raise file.mistake("search.trials", message)
        with store.reaching():
            store.studies.update(stored.study_id, spec, num_trials(spec), file.path.parent)
    try:
        paths = ensure_prepared(
            manifest, spec.data, file.path.parent, DataFolder(storage.path), wanted_rows(spec), tell
        )
    except FieldError as error:
        raise file.mistake(error.key, error.message) from None
    train_rows, validation_rows = (paths[wanted] for wanted in wanted_rows(spec))
    return OpenStudy(spec, stored.study_id, manifest, train_rows, validation_rows, storage, file.path.parent.resolve())


def num_trials(spec: StudySpec) -> int:
    """The budget; a grid has no more points than it has."""
    trials = spec.searched.trials
    points = spec.grid_size() if spec.searched.sampler.name == "grid" else None
    return trials if points is None else min(trials, points)


def wanted_rows(spec: StudySpec) -> list[tuple[SplitName, float]]:
    return [("train", spec.budget.train_fraction), ("validation", spec.budget.validation_fraction)]


def _create(file: StudyFile, store: Store, storage: StorageFolder, start_trainer: StartTrainer, tell: Tell) -> None:
    prepared = prepare_study(file, storage, start_trainer, tell)
    write_prepared(prepared.manifest, prepared.splits, prepared.files, DataFolder(storage.path), wanted_rows(file.spec))
    keep_held_out(prepared.splits, file.spec.data, file.path.parent)
    with store.reaching():
        search = Search(store, file.spec)
        manifest = prepared.manifest.to_bytes()
        created = store.studies.create(search.study_id, file.spec, num_trials(file.spec), manifest, file.path.parent)
        if created:
            search.describe()
            search.enqueue_defaults()


def prepare_study(
    file: StudyFile, storage: StorageFolder, start_trainer: StartTrainer, tell: Tell, num_examples: int = 0
) -> PreparedStudy:
    """Reads the data, has a trainer look at rows and base, and splits.

    Raises:
        StudyFileErrors: with the line of what doesn't fit.
    """
    spec = file.spec
    try:
        read, files = read_data(spec.data, file.path.parent, DataFolder(storage.path), tell)
        if not read.rows:
            split_rows(read, spec.data.split)
        _check_local_bases(file)
        inspection = _inspect(file, read.rows, storage, start_trainer, tell, num_examples)
        _check_target_modules(spec, inspection)
        fits = [count <= spec.data.max_tokens for count in inspection.num_tokens]
        for row, fit in zip(read.rows, fits, strict=True):
            if not fit:
                read.leave_out(f"longer than {spec.data.max_tokens} tokens", row.id)
        read.rows = [row for row, fit in zip(read.rows, fits, strict=True) if fit]
        splits = divide(read, spec.data, spec.curriculum, file.path.parent)
        manifest = make_manifest(splits, read.left_out)
    except FieldError as error:
        raise file.mistake(error.key, error.message) from None
    return PreparedStudy(manifest, splits, files, inspection.examples)


def _check_local_bases(file: StudyFile) -> None:
    """Raises FieldError where a base is a folder's path and there is no such folder: no trainer needs to tell that."""
    for base in file.spec.bases():
        path = (file.path.parent / base).expanduser()
        if base.startswith(("./", "../", "/", "~")) and not path.is_dir():
            raise FieldError("model.base", f"{base!r}: there is no folder {path.resolve()}")


def _inspect(
    file: StudyFile,
    rows: list[Row],
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
    num_examples: int,
) -> InspectionResult:
    """In a folder of its own, which stays only where the job failed: its log says why."""
    spec = file.spec
    folder = storage.new_inspection(spec.study)
    candidates = folder.path / "candidates"
    config = InspectionConfig(
        task=spec.task,
        models=[spec.model.model_copy(update={"base": base}).found_from(file.path.parent) for base in spec.bases()],
        rows=rows_config(spec),
        candidate_rows=candidates,
        num_examples=min(num_examples, len(rows)),
    )
    folder.prepare(config)
    try:
        write_rows(rows, candidates)
        do_job(folder, start_trainer, tell)
    finally:
        shutil.rmtree(candidates, ignore_errors=True)
    result = folder.read(InspectionResult)
    shutil.rmtree(folder.path)
    if result.mistake:
        raise FieldError(*result.mistake)
    return result


def do_job(folder: TrialFolder, start_trainer: StartTrainer, tell: Tell) -> None:
    """Has a trainer of its own do the prepared job, one that reports no losses.

    Raises:
        HpsearchError: the job failed.
    """
    tell("starting the trainer", 0, 0)
    trainer = start_trainer()
    try:
        trainer.send(Run(folder=folder.path))
        while True:
            event = trainer.next_event(1.0)
            if isinstance(event, Phase):
                tell(event.name, event.done, event.total)
            if isinstance(event, Done):
                break
    finally:
        trainer.end()
    if failure := folder.failure():
        raise HpsearchError(f"{failure.reason}\nthe whole story is in {folder.log} and {folder.result}")


def _check_target_modules(spec: StudySpec, inspection: InspectionResult) -> None:
    for base, known in inspection.linear_layers.items():
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


def _check_unchanged(file: StudyFile, stored: StoredStudy) -> None:
    """A study is one experiment: what its trials depend on may not change under it."""
    was, now = flat(stored.spec.model_dump()), flat(file.spec.model_dump())
    changed = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key) and not _may_change(key)]
    if changed:
        lines = [f"  {key}: {was.get(key)} → {now.get(key)}" for key in changed]
        raise InputError(
            f"{file.path} has changed since study {stored.name!r} was created:\n"
            + "\n".join(lines)
            + "\nThe trials so far ran with the old values. Either bring the old values back, "
            f"or start another study: --set study={stored.name}-2"
        )


def _may_change(key: str) -> bool:
    return any(key == may or key.startswith(f"{may}.") for may in MAY_CHANGE)
