"""hpsearch's side: a study in a store of its own, and a worker that runs one trial at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets import disable_progress_bars
from optuna.trial import TrialState

from bench.shapes import Shape
from hpsearch.data.manifest import Manifest
from hpsearch.data.prepared import write_rows
from hpsearch.folders import StorageFolder
from hpsearch.search import Search
from hpsearch.spec import StudySpec
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.workers import own_worker_id
from hpsearch.worker.opening import OpenStudy
from hpsearch.worker.stopping import StopFlag
from hpsearch.worker.trainer_process import TrainerProcess
from hpsearch.worker.worker import Worker

NO_MANIFEST = Manifest(splits={"train": [], "validation": [], "test": []}, left_out={})
"""These studies bring their rows along: there is no source to check them against."""


class RunningSearch:
    """A worker on its study, and the trainer processes that it started; the last one is alive or none is."""

    def __init__(self, study: OpenStudy, store: Store, log: Path) -> None:
        self.trainers: list[TrainerProcess] = []
        self._store = store
        self._study_id = study.study_id
        self._log = log
        self._worker = Worker(study, store, own_worker_id(), self._start_trainer, StopFlag())

    def _start_trainer(self) -> TrainerProcess:
        self.trainers.append(TrainerProcess(self._log))
        return self.trainers[-1]

    @property
    def pid(self) -> int:
        """Of the current trainer."""
        return self.trainers[-1].pid

    def run_trial(self) -> None:
        """Claim → run → finish, once.

        Raises:
            RuntimeError: the trial did not get to its end.
        """
        self._worker.step()
        trial = self._store.optuna.get_all_trials(self._study_id)[-1]
        if trial.state is not TrialState.COMPLETE:
            raise RuntimeError(f"trial {trial.number} is {trial.state.name}: {trial.user_attrs.get('reason')}")


@contextmanager
def running_search(folder: Path, shape: Shape, trials: int, trials_per_process: int | None) -> Iterator[RunningSearch]:
    """A study of `trials` trials in `folder`, which is made. Its trainers are gone afterwards."""
    spec = study_spec(shape, trials, trials_per_process)
    storage = StorageFolder(folder)
    with Store(parse_url(f"sqlite:///{storage.database}", from_argv=False)) as store:
        study_id = Search(store, spec).study_id
        store.studies.create(study_id, spec, trials, NO_MANIFEST.to_bytes(), folder)
        disable_progress_bars()
        paths = (folder / "train", folder / "validation")
        for path, rows in zip(paths, shape.rows(), strict=True):
            write_rows(rows, path)
        study = OpenStudy(spec, study_id, NO_MANIFEST, *paths, storage)
        search = RunningSearch(study, store, folder / "trainer.txt")
        try:
            yield search
        finally:
            for trainer in search.trainers:
                trainer.end()


def study_spec(shape: Shape, trials: int, trials_per_process: int | None) -> StudySpec:
    return StudySpec.model_validate(
        {
            "study": "bench",
            "task": "text-sft",
            "model": shape.model.model_dump(),
            "data": {"source": "rows.jsonl", "max_tokens": 1024},
            "lora": shape.lora.model_dump(),
            "training": shape.training.model_dump(),
            "budget": shape.budget.model_dump(),
            "search": {
                "trials": trials,
                "sampler": "random",
                "pruner": "none",
                "trials_per_process": trials_per_process,
                "space": {"training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
            },
        }
    )
