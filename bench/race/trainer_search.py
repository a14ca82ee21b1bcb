"""`transformers.Trainer.hyperparameter_search` with Optuna: one trainer, a model from `model_init` for each trial."""

from __future__ import annotations

from typing import Any

import optuna
from transformers import Trainer, TrainerCallback, TrainingArguments

from bench.race import stock
from bench.race.lane import Lane
from bench.race.setting import ALPHA_CHOICES, PRUNED_FROM, PRUNER_STARTUP, R_CHOICES, Point


class Losses(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        del args, state, control
        self.seen.append(metrics["eval_loss"])


def main() -> None:
    lane = Lane()
    setting = lane.setting
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    processor = stock.load_processor(setting)
    losses = Losses()
    begun = 0

    def point_of(trial: optuna.Trial) -> Point:
        return Point(
            trial.suggest_float("learning_rate", setting.lowest_rate, setting.highest_rate, log=True),
            trial.suggest_categorical("r", R_CHOICES),
            trial.suggest_categorical("alpha", ALPHA_CHOICES),
        )

    def model_init(trial: optuna.Trial | None) -> Any:
        """Called first in each trial, which is the end of the one before; and once before there is any."""
        nonlocal begun
        if trial is None:
            return stock.load_model(setting, setting.points()[0])
        if begun:
            lane.ran(losses.seen)
        losses.seen = []
        begun += 1
        lane.wait_for_turn()
        return stock.rounded(stock.load_model(setting, point_of(trial)))

    trainer = Trainer(
        model_init=model_init,
        args=TrainingArguments(**stock.arguments(setting, lane.folder)),
        train_dataset=stock.load_rows(lane.folder.parent, "train"),
        eval_dataset=stock.load_rows(lane.folder.parent, "validation"),
        data_collator=stock.Collator(processor),
        callbacks=[losses],
    )
    storage = f"sqlite:///{lane.folder / 'study.db'}"
    study = optuna.create_study(study_name="race", storage=storage, direction="minimize")
    for point in setting.points():
        study.enqueue_trial(point.params())
    lane.ready()
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": point_of(trial).learning_rate},
        n_trials=setting.trials,
        direction="minimize",
        backend="optuna",
        study_name="race",
        storage=storage,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(PRUNER_STARTUP, PRUNED_FROM * setting.steps_per_report),
        gc_after_trial=True,
    )
    lane.ran(losses.seen)


if __name__ == "__main__":
    main()
