"""Ray Tune with OptunaSearch and ASHA, one trial at a time, around the tutorial's training function."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from bench.race.lane import Lane
from bench.race.setting import ALPHA_CHOICES, PRUNED_FROM, R_CHOICES, Point, Setting


def train(values: dict[str, Any], setting: Setting, folder: Path) -> None:
    """In a process of Ray's."""
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from bench.race import stock

    class Reporting(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            del args, state, control
            tune.report({"loss": metrics["eval_loss"]})

    point = Point(**values)
    processor = stock.load_processor(setting)
    model = stock.load_model(setting, point)
    more = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**stock.arguments(setting, Path.cwd(), learning_rate=point.learning_rate, **more)),
        train_dataset=stock.load_rows(folder, "train"),
        eval_dataset=stock.load_rows(folder, "validation"),
        data_collator=stock.Collator(processor),
        processing_class=processor,
        callbacks=[Reporting()],
    )
    stock.in_float32(model)
    trainer.train()


class TakingTurns(OptunaSearch):
    """Waits for its turn before a trial begins."""

    lane: Lane
    losses: dict[str, list[float]]

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        self.lane.wait_for_turn()
        self.losses[trial_id] = []
        return super().suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.losses[trial_id].append(result["loss"])
        super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result and len(self.losses[trial_id]) < result["training_iteration"]:
            self.losses[trial_id].append(result["loss"])  # the one at which the scheduler stopped it
        super().on_trial_complete(trial_id, result, error)
        self.lane.ran(self.losses[trial_id])


def main() -> None:
    lane = Lane()
    setting = lane.setting
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # 15 by default: beside other processes it would wait for all of them. Ray reads it in these letters.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    num_gpus = int(torch.cuda.is_available())
    with tempfile.TemporaryDirectory(prefix="r") as short:  # Ray's sockets lie in it: their paths may not be long
        ray.init(
            num_cpus=1, num_gpus=num_gpus, include_dashboard=False, log_to_driver=False, _temp_dir=short, runtime_env={}
        )
        search = TakingTurns(
            space={
                "learning_rate": optuna.distributions.FloatDistribution(
                    setting.lowest_rate, setting.highest_rate, log=True
                ),
                "r": optuna.distributions.CategoricalDistribution(R_CHOICES),
                "alpha": optuna.distributions.CategoricalDistribution(ALPHA_CHOICES),
            },
            metric="loss",
            mode="min",
            points_to_evaluate=[point.params() for point in setting.points()],
        )
        search.lane, search.losses = lane, {}
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(train, setting=setting, folder=lane.folder.parent), {"cpu": 1, "gpu": num_gpus}
            ),
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=setting.trials,
                max_concurrent_trials=1,
                search_alg=search,
                scheduler=ASHAScheduler(max_t=setting.reports, grace_period=PRUNED_FROM, reduction_factor=2),
            ),
            run_config=tune.RunConfig(storage_path=str(lane.folder), verbose=0),
        )
        lane.ready()
        tuner.fit()
        ray.shutdown()


if __name__ == "__main__":
    main()
