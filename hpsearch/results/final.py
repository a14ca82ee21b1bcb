"""The final training: all of the train split, the final budget, in a run folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from hpsearch.bridge.follow import Watcher, run_to_end
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import StartTrainer, one_trainer
from hpsearch.checkpoints import last_checkpoint
from hpsearch.data.divide import keep_held_out
from hpsearch.data.manifest import Manifest
from hpsearch.data.prepared import DataFolder, write_prepared
from hpsearch.data.source import local_source
from hpsearch.data.split import SplitName
from hpsearch.errors import FieldError, InputError, UnreadableFile, did_you_mean
from hpsearch.files import read_file
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.jobs import Tell
from hpsearch.spec import StudyFile, StudySpec, dump_study, load_study
from hpsearch.study.configs import training_config
from hpsearch.study.prepare import prepare_study
from hpsearch.trial import Outcome, TrialConfig, TrialResult


class RunFolder(JobFolder):
    """A final run's folder: a trial's, with the study file and the manifest that it came from.

    A run has its folder to itself. The manifest is the first file in it, so a folder that holds other files and
    no manifest is somebody else's: nothing in it is overwritten, and nothing deleted.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.study = path / "study.yaml"
        self.manifest = path / "manifest.json.gz"
        self.evaluation = JobFolder(path / "evaluation")
        self.scores = path / "scores"
        self.plots = path / "plots"
        self.predictions = path / "predictions"
        self.exports = path / "exports"

    @property
    def is_free(self) -> bool:
        """Whether a run may begin here, or has."""
        if self.manifest.exists() or not self.path.exists():
            return True
        return self.path.is_dir() and not any(self.path.iterdir())

    def is_trained(self) -> bool:
        is_run = self.manifest.exists() and self.result.exists()
        return is_run and self.read(TrialResult).outcome is Outcome.COMPLETE

    def load(self) -> tuple[StudyFile, Manifest, TrialConfig]:
        """Raises InputError where this is no run folder, or its training is not done."""
        for file in (self.config, self.study, self.manifest):
            if not file.exists():
                raise InputError(f"{self.path} is no run folder: it has no {file.name} (hpsearch train makes them)")
        if not self.is_trained():
            raise InputError(f"{self.path}: its training is not complete; continue it with hpsearch train --resume")
        config = self.job()
        if not isinstance(config, TrialConfig):
            raise UnreadableFile(self.config, f"it is no training run's, but of a job {config.job!r}")
        return load_study(self.study), read_file(self.manifest, Manifest.from_bytes), config


def find_run(name: str, storage: StorageFolder) -> RunFolder:
    """A run folder by its path, or the final run of a study by its name.

    Raises:
        InputError: there is none, or several.
    """
    path = Path(name)
    if path.is_dir():
        return RunFolder(path.resolve())
    study = path.name if path.resolve().parent == storage.runs else name
    usual = storage.runs / study
    found = [usual] if usual.is_dir() else sorted(storage.runs.glob(f"{study}-trial-*"))
    if len(found) > 1:
        raise InputError(f"study {study!r} has several final runs: name one of {', '.join(map(str, found))}")
    if not found:
        runs = [folder.name for folder in sorted(storage.runs.glob("*")) if folder.is_dir()]
        there = f"; {did_you_mean(study, runs)}" if runs else ""
        raise InputError(
            f"{name!r} is no run folder, and {storage.runs} has no final run of it{there}. "
            f"hpsearch train {study} makes one"
        )
    return RunFolder(found[0])


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
) -> TrialResult:
    """Trains, or gives the result of a training that is complete already.

    Raises:
        InputError: the folder is not a run's, or holds another run, or an interrupted one and nothing says what to
            do with it.
        TrainingFailed: with the reason and the log.
    """
    if not folder.is_free:
        raise InputError(f"{folder.path} holds something that is no run: choose another folder with --out")
    if restart and folder.path.exists():
        shutil.rmtree(folder.path)
    if folder.is_trained() and _same_run(folder, file):
        return folder.read(TrialResult)
    if folder.config.exists():
        if not _same_run(folder, file):
            raise InputError(f"{folder.path} holds another run: choose another folder with --out, or --restart")
        checkpoint = last_checkpoint(folder)
        if checkpoint and not resume:
            at = checkpoint.name.replace("checkpoint-", "step ")
            raise InputError(f"{folder.path} was interrupted at {at}: continue with --resume, or --restart")
    with one_trainer(start_trainer) as lend:
        if not folder.config.exists():
            _prepare(file, folder, storage, lend, tell)
        folder.result.unlink(missing_ok=True)
        return run_to_end(folder, lend, stop, watch, file.spec.silence)


def _same_run(folder: RunFolder, file: StudyFile) -> bool:
    return load_study(folder.study).spec == _final_spec(file)


def _final_spec(file: StudyFile) -> StudySpec:
    """What the run's own study file says: nothing to search, and data that is found from the run's folder too."""
    folder = file.path.parent
    data, model = local_source(file.spec.data, folder), file.spec.model.found_from(folder)
    return file.spec.model_copy(update={"search": None, "data": data, "model": model})


def _prepare(
    file: StudyFile, folder: RunFolder, storage: StorageFolder, start_trainer: StartTrainer, tell: Tell
) -> None:
    spec = file.spec
    prepared = prepare_study(file, storage, start_trainer, tell)
    if spec.data.manifest and prepared.manifest.sha256 != spec.data.manifest:
        message = (
            f"these rows split to {prepared.manifest.sha256[:12]}…, not to {spec.data.manifest[:12]}… as in the study"
        )
        raise file.mistake("data.manifest", message)
    data = DataFolder(storage.path)
    wanted: list[tuple[SplitName, float]] = [
        ("train", spec.final.train_fraction),
        ("validation", spec.final.validation_fraction),
    ]
    try:
        write_prepared(prepared.manifest, prepared.splits, prepared.files, data, wanted)
    except FieldError as error:
        raise file.mistake(error.key, error.message) from None
    keep_held_out(prepared.splits, spec.data, file.path.parent)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.manifest.write_bytes(prepared.manifest.to_bytes())
    folder.study.write_text(dump_study(_final_spec(file)))
    folder.prepare(
        training_config(
            spec,
            f"{spec.study} final",
            spec.final,
            prepared.manifest,
            file.path.parent,
            data.rows(prepared.manifest, *wanted[0]),
            data.rows(prepared.manifest, *wanted[1]),
            is_final=True,
        )
    )
