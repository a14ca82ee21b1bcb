"""Opening a study: created from its file, or found in the store and checked against the file and the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.data.divide import keep_held_out
from hpsearch.data.manifest import Manifest
from hpsearch.data.prepared import DataFolder, ensure_prepared, write_prepared
from hpsearch.data.split import SplitName
from hpsearch.errors import FieldError, InputError
from hpsearch.folders import StorageFolder
from hpsearch.jobs import Tell
from hpsearch.search import Search
from hpsearch.search.former import refuse_former
from hpsearch.spec import StudyFile, StudySpec
from hpsearch.spec.study import MAY_CHANGE, changes
from hpsearch.spec.tracking import missing_trackers
from hpsearch.store import Store, StoredStudy
from hpsearch.study.adapter import IN_THE_RUN_S_WORDS, with_adapter
from hpsearch.study.configs import training_config
from hpsearch.study.preparation import keep_preparation
from hpsearch.study.prepare import PreparedStudy, prepare_study
from hpsearch.trial import TrackingConfig, TrialConfig


@dataclass(frozen=True)
class OpenStudy:
    """A study that is ready to be worked on, on this machine."""

    spec: StudySpec
    study_id: int
    uid: str
    manifest: Manifest
    train_rows: Path
    validation_rows: Path
    storage: StorageFolder
    folder: Path
    """The study file's folder: relative paths start there."""

    def trial_config(self, number: int, values: dict[str, Any], earlier: Sequence[Path] = ()) -> TrialConfig:
        """`earlier` are the folders of the trial's attempts so far, the latest first."""
        spec = self.spec.with_values(values)
        config = training_config(
            spec,
            f"{spec.study} trial {number}",
            spec.budget,
            self.manifest,
            self.folder,
            self.storage,
            self.train_rows,
            self.validation_rows,
            self._tracking(number),
            is_final=False,
        )
        return config.model_copy(update={"earlier": list(earlier)})

    def _tracking(self, number: int) -> TrackingConfig | None:
        trackers, name = self.spec.tracking, f"trial-{number:04d}"
        if not trackers:
            return None
        return TrackingConfig(
            trackers=trackers,
            id=f"{self.uid}-{number:04d}",
            name=f"{self.spec.study}/{name}",
            group=self.spec.study,
            tensorboard=self.storage.tensorboard(self.uid) / name,
        )


def open_study(
    file: StudyFile,
    store: Store,
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
    *,
    joins: bool,
    prepared: PreparedStudy | None = None,
) -> OpenStudy:
    """Creates the study (from `prepared`, if that was done before) or resumes it. A worker that only `joins` leaves the
    stored budget as it is.

    Raises:
        StudyFileErrors: the file doesn't fit its data or base.
        InputError: the stored study differs from the file.
    """
    if file.spec.search is None:
        raise file.mistake("search", "is missing: this file can be trained (hpsearch train), not searched")
    check_trackers(file)
    file = with_adapter(file, storage)
    spec = file.spec
    with store.reaching():
        stored = store.studies.find(spec.study)
    if stored is None:
        _create(file, store, prepared or prepare_new(file, storage, start_trainer, tell))
        with store.reaching():
            stored = store.studies.find(spec.study)
        assert stored is not None
    with store.reaching():
        refuse_former(store, stored.study_id, stored.spec)
    _check_unchanged(file, stored)
    manifest = Manifest.from_bytes(stored.manifest)
    if not joins:
        with store.reaching():
            begun = store.studies.update(stored.study_id, spec, num_trials(spec), file.path.parent)
        if begun is not None:
            message = f"{begun} trials have begun already: give {begun} or more"
            raise file.mistake("search.trials", message)
    try:
        data, images = DataFolder(storage.path), spec.task_facts.images
        paths = ensure_prepared(manifest, spec.data, file.path.parent, data, wanted_rows(spec), tell, images)
    except FieldError as error:
        raise file.mistake(error.key, error.message, error.others) from None
    train_rows, validation_rows = (paths[wanted] for wanted in wanted_rows(spec))
    return OpenStudy(
        spec, stored.study_id, stored.uid, manifest, train_rows, validation_rows, storage, file.path.parent.resolve()
    )


def check_trackers(file: StudyFile) -> None:
    """Raises StudyFileErrors where a tracker's library is not installed."""
    if missing := missing_trackers(file.spec.tracking):
        commands = " and ".join(f"pip install 'hpsearch[{name}]'" for name in missing)
        raise file.mistake("tracking", f"{' and '.join(missing)} can't be imported here: {commands}")


def num_trials(spec: StudySpec) -> int:
    """The budget; a grid has at most as many trials as points."""
    trials = spec.searched.trials
    points = spec.grid_size() if spec.searched.sampler.name == "grid" else None
    return trials if points is None else min(trials, points)


def wanted_rows(spec: StudySpec) -> list[tuple[SplitName, float]]:
    return [("train", spec.budget.train_fraction), ("validation", spec.budget.validation_fraction)]


def final_rows(spec: StudySpec) -> list[tuple[SplitName, float]]:
    return [("train", spec.final.train_fraction), ("validation", spec.final.validation_fraction)]


def prepare_new(file: StudyFile, storage: StorageFolder, start_trainer: StartTrainer, tell: Tell) -> PreparedStudy:
    """Prepares a study that is in no store yet, and writes its rows for trials and for the final run.

    Raises:
        StudyFileErrors: the file doesn't fit its data or base.
    """
    prepared = prepare_study(file, storage, start_trainer, tell)
    keep_prepared(file, prepared, storage)
    return prepared


def keep_prepared(file: StudyFile, prepared: PreparedStudy, storage: StorageFolder) -> None:
    """Writes its rows, for trials and for the final run, and the results of the preparation."""
    data, wanted = DataFolder(storage.path), [*wanted_rows(file.spec), *final_rows(file.spec)]
    write_prepared(prepared.manifest, prepared.splits, prepared.files, data, wanted)
    keep_preparation(file, prepared.manifest, prepared.linear_layers, data)


def _create(file: StudyFile, store: Store, prepared: PreparedStudy) -> None:
    keep_held_out(prepared.manifest, file.spec.data, file.path.parent)
    with store.reaching():
        search = Search(store, file.spec)
        manifest = prepared.manifest.to_bytes()
        search.describe()
        store.studies.create(search.study_id, file.spec, num_trials(file.spec), manifest, file.path.parent)


def _check_unchanged(file: StudyFile, stored: StoredStudy) -> None:
    """Raises InputError where the file changes something that finished trials depend on: a study is one experiment."""
    was, now = stored.spec.model, file.spec.model
    if None not in (was.adapter, now.adapter) and was.adapter_sha256 != now.adapter_sha256:
        message = f"{now.adapter} is not the adapter that study {stored.name!r} began with: it has changed since"
        raise file.mistake("model.adapter", f"{message}. Restore it, or start another study")
    same = [f"lora.{name}" for name in IN_THE_RUN_S_WORDS] if now.adapter is not None else []
    lines = [line for key, line in changes(stored.spec, file.spec).items() if not _may_change(key) and key not in same]
    if lines:
        raise InputError(
            f"{file.path} is not what study {stored.name!r} was created with; it says now, or leaves to a default:\n"
            + "\n".join(lines)
            + "\nThe trials so far ran with the old values. Either write the old values into it, "
            f"or start another study: --set study={stored.name}-2"
        )


def _may_change(key: str) -> bool:
    return any(key == may or key.startswith(f"{may}.") for may in MAY_CHANGE)
