"""A person's folder in which studies run within the test's process, all on one warm trainer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import Borrowed, Trainer
from hpsearch.data.manifest import Manifest
from hpsearch.folders import StorageFolder
from hpsearch.results.best import as_yaml, choose
from hpsearch.results.final import RunFolder, train_final
from hpsearch.search.view import StudyView, read_view
from hpsearch.spec import load_study
from hpsearch.spec.load import StudyFile
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.study.open import OpenStudy, open_study
from hpsearch.trial import Outcome, TrialConfig, TrialResult
from hpsearch.worker.endings import Step
from hpsearch.worker.worker import Worker
from tests.conftest import REPOSITORY


class Workplace:
    """Study files copied to where their data is, a store, and a trainer."""

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.folder = folder
        self.storage = StorageFolder(folder / "storage")
        self.storage.path.mkdir()
        self.store = Store(parse_url(f"sqlite:///{self.storage.database}", from_argv=False))
        self._trainer = trainer

    def close(self) -> None:
        self.store.close()

    def tell(self, *_: Any) -> None:
        pass

    def search(
        self, name: str, base: str, *overrides: str, trials: int = 1
    ) -> tuple[StudyView, TrialConfig, TrialResult]:
        """The study after its trials, and the first of them, which has the file's own values."""
        copied = shutil.copy(REPOSITORY / "studies" / f"{name}.yaml", self.folder)
        file = load_study(Path(copied), [f"model.base={base}", f"search.trials={trials}", *overrides])
        self.run(file)
        stored = self.store.studies.find(name)
        assert stored is not None
        folder = self.storage.trial(stored.uid, 0).last
        assert folder is not None
        config, result = folder.job(), folder.read(TrialResult)
        assert isinstance(config, TrialConfig)
        assert result.outcome is Outcome.COMPLETE, result.traceback or result.reason
        assert result.ledger is not None
        assert result.ledger.closes, result.ledger.not_given_back
        return self.view(name), config, result

    def run(self, file: StudyFile) -> None:
        """All trials of the study."""
        worker = Worker(self.open(file), self.store, f"{file.spec.study}:1:1.00", self.start, StopFlag())
        assert worker.run() is Step.FINISHED

    def open(self, file: StudyFile) -> OpenStudy:
        """Creates the study, or resumes it."""
        return open_study(file, self.store, self.storage, self.start, self.tell, joins=False)

    def train(self, name: str, *overrides: str) -> TrialResult:
        """The final training with the best trial's values."""
        best = self.folder / f"{name}.best.yaml"
        best.write_text(as_yaml(choose(self.view(name), None)))
        file, folder = load_study(best, list(overrides)), RunFolder(self.storage.runs / name)
        return train_final(
            file, folder, self.storage, self.start, StopFlag(), self.tell, self.tell, resume=False, restart=False
        )

    def view(self, name: str) -> StudyView:
        stored = self.store.studies.find(name)
        assert stored is not None
        return read_view(self.store, stored)

    def manifest(self, name: str) -> Manifest:
        return Manifest.from_bytes(self.view(name).study.manifest)

    def start(self) -> Borrowed:
        return Borrowed(self._trainer)


def photograph(file: Path, number: int, size: tuple[int, int] = (60, 48)) -> str:
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, (number % 256, 3 * number % 256, 7 * number % 256)).save(file)
    return file.name
