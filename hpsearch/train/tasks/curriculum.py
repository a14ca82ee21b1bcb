"""A curriculum: supervised fine-tuning in stages, each from the adapter of the one before, or in another order."""

from __future__ import annotations

import math
import random

from datasets import Dataset

from hpsearch.train.tasks.task import Stage
from hpsearch.trial import TrialConfig


def curriculum_stages(config: TrialConfig, rows: Dataset) -> list[Stage]:
    """All orders visit each row equally often, except for the remainder of a partial pass."""
    curriculum, rate = config.curriculum, config.training.learning_rate
    names = [curriculum.stage_of(value) for value in rows["stage"]]
    of_stage = [[i for i, name in enumerate(names) if name == stage.name] for stage in curriculum.stages]
    if curriculum.order == "stages":
        return [
            Stage(
                stage.name,
                rows.select(positions),
                config.budget.epochs * stage.epochs,
                rate * curriculum.learning_rate_decay**number,
            )
            for number, (stage, positions) in enumerate(zip(curriculum.stages, of_stage, strict=True))
        ]
    return [Stage("", rows.select(_in_one_training(config, of_stage)), 1.0, rate, is_shuffled=False)]


def _in_one_training(config: TrialConfig, of_stage: list[list[int]]) -> list[int]:
    """Positions of the rows in one training: pass after pass, each over all stages.

    Written out, because a training that ends within a pass would otherwise never reach the last stages.
    """
    epochs = _epochs(config, of_stage)
    num_passes = max(1, round(epochs))
    order = []
    for number in range(num_passes):
        one_pass = []
        for stage, positions in zip(config.curriculum.stages, of_stage, strict=True):
            share = epochs * stage.epochs * len(positions) / num_passes
            met = range(_up(number * share), _up((number + 1) * share))
            one_pass += [positions[i % len(positions)] for i in met]
        if config.curriculum.order == "random":
            random.Random(config.training.seed + number).shuffle(one_pass)
        order += one_pass
    return order


def _up(number: float) -> int:
    """Rounds up, ignoring floating-point errors in a product of fractions."""
    return math.ceil(round(number, 6))


def _epochs(config: TrialConfig, of_stage: list[list[int]]) -> float:
    training, max_steps = config.training, config.budget.max_steps
    if max_steps is None:
        return config.budget.epochs
    rows_in_a_pass = sum(
        stage.epochs * len(positions) for stage, positions in zip(config.curriculum.stages, of_stage, strict=True)
    )
    return max_steps * training.batch_size / rows_in_a_pass
