"""Optuna and SFTTrainer by hand, in one process, as tutorials have it: load, train, prune, delete, collect garbage."""

from __future__ import annotations

import gc
from typing import Any

import optuna
import torch
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from bench.race import stock
from bench.race.lane import Lane
from bench.race.setting import ALPHA_CHOICES, PRUNED_FROM, PRUNER_STARTUP, R_CHOICES, Point


class PruningCallback(TrainerCallback):
    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self.losses: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        del args, control
        self.losses.append(metrics["eval_loss"])
        self._trial.report(metrics["eval_loss"], step=len(self.losses))
        if self._trial.should_prune() and state.global_step < state.max_steps:
            raise optuna.TrialPruned


def main() -> None:
    lane = Lane()
    setting = lane.setting
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train = stock.load_rows(lane.folder.parent, "train")
    validation = stock.load_rows(lane.folder.parent, "validation")

    def objective(trial: optuna.Trial) -> float:
        point = Point(
            trial.suggest_float("learning_rate", setting.lowest_rate, setting.highest_rate, log=True),
            trial.suggest_categorical("r", R_CHOICES),
            trial.suggest_categorical("alpha", ALPHA_CHOICES),
        )
        processor = stock.load_processor(setting)
        model = stock.load_model(setting, point)
        pruning = PruningCallback(trial)
        more = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**stock.arguments(setting, lane.folder, learning_rate=point.learning_rate, **more)),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=stock.Collator(processor),
            processing_class=processor,
            callbacks=[pruning],
        )
        stock.in_float32(model)
        try:
            trainer.train()
            return pruning.losses[-1]
        finally:
            trial.set_user_attr("losses", pruning.losses)
            del trainer, model, processor
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    study = optuna.create_study(direction="minimize", pruner=optuna.pruners.MedianPruner(PRUNER_STARTUP, PRUNED_FROM))
    for point in setting.points():
        study.enqueue_trial(point.params())
    lane.ready()
    for number in range(setting.trials):
        lane.wait_for_turn()
        study.optimize(objective, n_trials=1)
        lane.ran(study.trials[number].user_attrs["losses"])


if __name__ == "__main__":
    main()
