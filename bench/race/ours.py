"""hpsearch's way: a study file, a store, a worker. The rows per forward are its own choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from datasets import disable_progress_bars

from bench.race.lane import Lane
from bench.race.setting import ALPHA_CHOICES, PRUNED_FROM, PRUNER_STARTUP, R_CHOICES, ROWS, SEED, Setting
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import TrainerProcess
from hpsearch.folders import StorageFolder
from hpsearch.spec import load_study
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.workers import own_worker_id
from hpsearch.study.open import open_study
from hpsearch.worker.worker import Worker

KNOBS = {"learning_rate": "training.learning_rate", "r": "lora.r", "alpha": "lora.alpha"}


def study(setting: Setting, rows: Path) -> dict[str, Any]:
    """What the study file says."""
    return {
        "study": "race",
        "task": "vlm-sft",
        "model": {"base": setting.base, "dtype": "auto"},
        "data": {
            "source": str(rows),
            "columns": {"image": "image", "question": "question", "answer": "answer"},
            "max_tokens": 4096,
            "split": {"column": "split"},
        },
        "lora": {"dropout": 0.0, "vision": False},
        "training": {
            "batch_size": setting.rows_per_step,
            "warmup_ratio": 0.0,
            "gradient_checkpointing": setting.gradient_checkpointing,
            "seed": SEED,
        },
        "budget": {"max_steps": setting.steps, "reports": setting.reports},
        "search": {
            "trials": setting.trials,
            "sampler": "random",
            "pruner": {"name": "median", "startup_trials": PRUNER_STARTUP, "warmup_reports": PRUNED_FROM - 1},
            "space": {
                "training.learning_rate": {"low": setting.lowest_rate, "high": setting.highest_rate, "log": True},
                "lora.r": list(R_CHOICES),
                "lora.alpha": list(ALPHA_CHOICES),
            },
        },
    }


def main() -> None:
    lane = Lane()
    disable_progress_bars()
    file = lane.folder / "study.yaml"
    file.write_text(yaml.safe_dump(study(lane.setting, lane.folder.parent / ROWS)))
    log = lane.folder / "trainer.txt"
    storage = StorageFolder(lane.folder / "storage")
    trainers: list[TrainerProcess] = []

    def start() -> TrainerProcess:
        trainers.append(TrainerProcess(log))
        return trainers[-1]

    with Store(parse_url(f"sqlite:///{storage.database}", from_argv=False)) as store:
        opened = open_study(load_study(file), store, storage, start, lambda *_: None, joins=False)
        _enqueue(store, opened.spec.study, lane.setting)
        worker = Worker(opened, store, own_worker_id(), start, StopFlag())
        lane.ready()
        try:
            for number in range(lane.setting.trials):
                lane.wait_for_turn()
                worker.step()
                trial = store.optuna.get_all_trials(opened.study_id)[number]
                assert trial.state.is_finished(), trial
                lane.ran([value for _, value in sorted(trial.intermediate_values.items())])
        finally:
            for trainer in trainers:
                trainer.end()


def _enqueue(store: Store, name: str, setting: Setting) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=name, storage=store.optuna)
    for point in setting.points():
        study.enqueue_trial({KNOBS[key]: value for key, value in point.params().items()})


if __name__ == "__main__":
    main()
