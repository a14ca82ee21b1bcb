"""The final training: all of the train split, the final budget, in a run folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from hpsearch.bridge.follow import Watcher, run_to_end
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import StartTrainer, one_trainer
from hpsearch.checkpoints import last_checkpoint
from hpsearch.data.divide import keep_held_out
from hpsearch.data.manifest import Manifest
from hpsearch.data.prepared import DataFolder, ensure_prepared, write_prepared
from hpsearch.data.source import local_source
from hpsearch.errors import FieldError, InputError, UnreadableFile
from hpsearch.files import read_file
from hpsearch.folders import JobFolder, StorageFolder, why_unwritable
from hpsearch.jobs import Tell
from hpsearch.spec import StudyFile, StudySpec, dump_study, load_study
from hpsearch.spec.study import changes
from hpsearch.study.adapter import with_adapter
from hpsearch.study.configs import training_config
from hpsearch.study.open import check_trackers, final_rows
from hpsearch.study.preparation import find_preparation, keep_preparation
from hpsearch.study.prepare import check_target_modules, prepare_study
from hpsearch.trial import Outcome, TrackingConfig, TrialConfig, TrialResult


class RunFolder(JobFolder):
    """A final run's folder: a job folder with the study file and the manifest that it is based on.

    It belongs to one run. The manifest is written first, so a folder with other files and no manifest belongs to
    somebody else: nothing in it is overwritten or deleted.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.study = path / "study.yaml"
        self.manifest = path / "manifest.json.gz"
        self.evaluation = JobFolder(path / "evaluation")
        self.evaluation_of_some = JobFolder(path / "evaluation-of-some")
        self.scores = path / "scores"
        self.plots = path / "plots"
        self.predictions = path / "predictions"
        self.exports = path / "exports"

    @property
    def is_free(self) -> bool:
        """Whether a run may begin here, or has begun."""
        if self.manifest.exists() or not self.path.exists():
            return True
        return self.path.is_dir() and not any(self.path.iterdir())

    def is_trained(self) -> bool:
        is_run = self.manifest.exists() and self.result.exists()
        return is_run and self.read(TrialResult).outcome is Outcome.COMPLETE

    def load(self) -> tuple[StudyFile, Manifest, TrialConfig]:
        """Raises InputError where this is no run folder, or its training is not complete."""
        for file in (self.config, self.study, self.manifest):
            if not file.exists():
                raise InputError(f"{self.path} is not a run folder: it has no {file.name} (hpsearch train makes them)")
        if not self.is_trained():
            raise InputError(f"{self.path}: its training is not complete; continue it with hpsearch train --resume")
        config = self.job()
        if not isinstance(config, TrialConfig):
            raise UnreadableFile(self.config, f"it is no training run's, but of a job {config.job!r}")
        return load_study(self.study, is_kept=True), read_file(self.manifest, Manifest.from_bytes), config


def find_run(name: str, storage: StorageFolder) -> RunFolder | None:
    """A run folder by its path, or the final run of a study by its name; None where there is neither.

    Raises:
        InputError: there are several.
    """
    path = Path(name)
    if path.is_dir() and RunFolder(path).manifest.exists():
        return RunFolder(path.resolve())
    study = path.name if path.resolve().parent == storage.runs else name
    found = runs_of(study, storage)
    if len(found) > 1:
        raise InputError(f"{several_runs(study, found)}; name one of them")
    if not found and path.is_dir():
        return RunFolder(path.resolve())
    return found[0] if found else None


def runs_of(study: str, storage: StorageFolder) -> list[RunFolder]:
    """The final run with the study's name; where there is none, those of single trials (`hpsearch train --trial`)."""
    usual = storage.runs / study
    return [RunFolder(path) for path in ([usual] if usual.is_dir() else sorted(storage.runs.glob(f"{study}-trial-*")))]


def several_runs(study: str, found: Sequence[RunFolder]) -> str:
    return f"study {study!r} has several final runs: {', '.join(str(run.path) for run in found)}"


def train_final(
    file: StudyFile,
    folder: RunFolder,
    storage: StorageFolder,
    start_trainer: StartTrainer,
    stop: StopFlag,
    tell: Tell,
    watch: Watcher,
    *,
    resume: bool,
    restart: bool,
    searched: Manifest | None = None,
) -> TrialResult:
    """Trains, or returns the result of a training that is complete already.

    `searched` is the manifest of the search that the values come from, where its store is available: rows are then
    neither inspected nor split again, even if they must be read again.

    Raises:
        InputError: the folder is not a run's, holds another run, or an interrupted one that nothing says how to
            continue; or it can't be written, or another process trains it.
        TrainingFailed: with the reason and the log.
    """
    check_trackers(file)
    file = with_adapter(file, storage)
    with _one_process(folder):
        if result := _result_there(file, folder, resume, restart):
            return result
        with one_trainer(start_trainer) as lend:
            if not folder.config.exists():
                _prepare(file, folder, storage, lend, tell, searched)
            else:
                _rows_again(file, folder, storage, tell)
                _track_again(file, folder)
            return run_to_end(folder, lend, stop, watch, file.spec.silence)


@contextmanager
def _one_process(folder: RunFolder) -> Iterator[None]:
    """Two processes in one folder would overwrite each other's checkpoints; the system frees a dead one's lock."""
    if why := why_unwritable(folder.path.parent):  # of which the lock would say that another process has it
        hint = "choose another one with --out, or set HPSEARCH_STORAGE to a folder of yours"
        raise InputError(f"the run folder {folder.path} can't be written: {why}; {hint}")
    try:
        with FileLock(folder.path.with_name(f".{folder.path.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise InputError(f"another process trains {folder.path}: wait for its end, or choose --out") from None


def _result_there(file: StudyFile, folder: RunFolder, resume: bool, restart: bool) -> TrialResult | None:
    """The result of this very run, if it is complete; refuses a folder that may not be trained in."""
    if not folder.is_free:
        raise InputError(f"{folder.path} holds something that is not a run: choose another folder with --out")
    if restart and folder.path.exists():
        shutil.rmtree(folder.path)
    if folder.is_trained() and _same_run(folder, file):
        return folder.read(TrialResult)
    if folder.config.exists():
        if not _same_run(folder, file):
            raise InputError(_other_run(folder, file))
        checkpoint = last_checkpoint(folder)
        if checkpoint and not resume:
            at = checkpoint.name.replace("checkpoint-", "step ")
            raise InputError(f"{folder.path} was interrupted at {at}: continue with --resume, or --restart")
    return None


def _same_run(folder: RunFolder, file: StudyFile) -> bool:
    """Different trackers do not make it another run."""
    there = load_study(folder.study, is_kept=True).spec
    return not changes(there.model_copy(update={"tracking": file.spec.tracking}), _final_spec(file))


def _other_run(folder: RunFolder, file: StudyFile) -> str:
    """Names the fields that differ: the cause may be a default that has changed since, not the person."""
    lines = changes(load_study(folder.study, is_kept=True).spec, _final_spec(file)).values()
    restore = "Restore the old values in the file, choose" if file.path.exists() else "Choose"
    return (
        f"{folder.path} holds another run; {file.path} differs from it in:\n"
        + "\n".join(lines)
        + f"\n{restore} another folder with --out, or delete that run with --restart"
    )


def _final_spec(file: StudyFile) -> StudySpec:
    """The run's own study file: without a search, and with paths that also hold from the run's folder."""
    folder = file.path.parent
    data, model = local_source(file.spec.data, folder), file.spec.model.found_from(folder)
    evaluation = file.spec.evaluation.found_from(folder)
    return file.spec.model_copy(update={"search": None, "data": data, "model": model, "evaluation": evaluation})


def _prepare(
    file: StudyFile,
    folder: RunFolder,
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
    searched: Manifest | None,
) -> None:
    spec, data = file.spec, DataFolder(storage.path)
    train, validation = final_rows(spec)
    try:
        if searched:
            manifest = searched
            ensure_prepared(
                manifest, spec.data, file.path.parent, data, [train, validation], tell, spec.task_facts.images
            )
        else:
            manifest = _prepared_rows(file, storage, start_trainer, tell)
        keep_held_out(manifest, spec.data, file.path.parent)
    except FieldError as error:
        raise file.mistake(error.key, error.message, error.others) from None
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.manifest.write_bytes(manifest.to_bytes())
    folder.study.write_text(dump_study(_final_spec(file)))
    folder.prepare(
        training_config(
            spec,
            f"{spec.study} final",
            spec.final,
            manifest,
            file.path.parent,
            storage,
            data.rows(manifest, *train),
            data.rows(manifest, *validation),
            _tracking(file, folder, uuid4().hex),
            is_final=True,
        )
    )


def _rows_again(file: StudyFile, folder: RunFolder, storage: StorageFolder, tell: Tell) -> None:
    """Writes the rows of an interrupted run where they are missing: it may have begun on another machine."""
    spec, manifest = file.spec, read_file(folder.manifest, Manifest.from_bytes)
    try:
        data, images = DataFolder(storage.path), spec.task_facts.images
        ensure_prepared(manifest, spec.data, file.path.parent, data, final_rows(spec), tell, images)
    except FieldError as error:
        raise file.mistake(error.key, error.message, error.others) from None


def _tracking(file: StudyFile, folder: RunFolder, run_id: str) -> TrackingConfig:
    """TensorBoard's files are always written: they are local, and `hpsearch dashboard` shows them."""
    study = file.spec.study
    name = "final" if folder.path.name == study else f"final-{folder.path.name}"
    return TrackingConfig(
        trackers=list(dict.fromkeys(["tensorboard", *file.spec.tracking])),
        id=run_id,
        name=f"{study}/{name}",
        group=study,
        tensorboard=folder.tensorboard,
    )


def _track_again(file: StudyFile, folder: RunFolder) -> None:
    """The trackers that the file names now, and the run's id in them."""
    config = folder.job()
    if isinstance(config, TrialConfig):
        run_id = config.tracking.id if config.tracking else uuid4().hex
        folder.prepare(config.model_copy(update={"tracking": _tracking(file, folder, run_id)}))


def _prepared_rows(file: StudyFile, storage: StorageFolder, start_trainer: StartTrainer, tell: Tell) -> Manifest:
    """The manifest of prepared rows: the search's, if its data is unchanged and it ran on this machine."""
    spec, data = file.spec, DataFolder(storage.path)
    if found := find_preparation(file, data):
        manifest, linear_layers = found
        check_target_modules(spec, linear_layers)
        ensure_prepared(manifest, spec.data, file.path.parent, data, final_rows(spec), tell, spec.task_facts.images)
        return manifest
    prepared = prepare_study(file, storage, start_trainer, tell)
    manifest, wanted = prepared.manifest, spec.data.manifest
    if wanted and manifest.sha256 != wanted:
        message = f"these rows split to {manifest.sha256[:12]}…, not to {wanted[:12]}… as in the study"
        raise FieldError("data.manifest", message)
    write_prepared(manifest, prepared.splits, prepared.files, data, final_rows(spec))
    keep_preparation(file, manifest, prepared.linear_layers, data)
    return manifest
