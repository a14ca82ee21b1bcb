"""hpsearch's side: a study in a store of its own, and a worker that runs one trial at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from datasets import disable_progress_bars
from optuna.trial import TrialState

from bench.shapes import NUM_TRAIN_ROWS, NUM_VALIDATION_ROWS, Shape
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import TrainerProcess
from hpsearch.folders import StorageFolder
from hpsearch.spec import load_study
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.workers import own_worker_id
from hpsearch.study.open import OpenStudy, open_study
from hpsearch.worker.worker import Worker


class RunningSearch:
    """A worker on its study, and the trainer processes that it started for trials."""

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
    """A study of `trials` trials, opened in `folder`, which is made. Its trainers are gone afterwards."""
    disable_progress_bars()
    folder.mkdir()
    shape.write_rows(folder / "rows.jsonl")
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study(shape, trials, trials_per_process)))
    log = folder / "trainer.txt"
    storage = StorageFolder(folder / "storage")
    with Store(parse_url(f"sqlite:///{storage.database}", from_argv=False)) as store:
        opened = open_study(load_study(file), store, storage, lambda: TrainerProcess(log), lambda *_: None, joins=False)
        search = RunningSearch(opened, store, log)
        try:
            yield search
        finally:
            for trainer in search.trainers:
                trainer.end()


def study(shape: Shape, trials: int, trials_per_process: int | None) -> dict[str, Any]:
    """What the study file says."""
    num_rows = NUM_TRAIN_ROWS + 2 * NUM_VALIDATION_ROWS
    share = NUM_VALIDATION_ROWS / num_rows
    return {
        "study": "bench",
        "task": "text-sft",
        "model": {"base": shape.base},
        "data": {"source": "rows.jsonl", "split": {"train": 1 - 2 * share, "validation": share, "test": share}},
        "lora": {"r": 8, "alpha": 16, "dropout": 0.05},
        "training": {
            "batch_size": 4,
            "evaluation_batch_size": 4,
            "gradient_checkpointing": False,
        },
        "budget": {"max_steps": shape.steps, "reports": 1},
        "search": {
            "trials": trials,
            "sampler": "random",
            "pruner": "none",
            "trials_per_process": trials_per_process,
            "space": {"training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
        },
    }
