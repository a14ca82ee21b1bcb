"""A curriculum: supervised fine-tuning in stages, each from the adapter of the one before, or in another order."""

from __future__ import annotations

from datasets import Dataset, concatenate_datasets
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from hpsearch.train.generate import Speaking
from hpsearch.train.tasks.task import Stage, Task
from hpsearch.trial import TrialConfig


def curriculum_stages(config: TrialConfig, rows: Dataset) -> list[Stage]:
    """Each order sees each row equally often: what differs is when."""
    curriculum, rate = config.curriculum, config.training.learning_rate
    names = [curriculum.stage_of(value) for value in rows["stage"]]
    of_stage = {
        stage.name: rows.select([i for i, name in enumerate(names) if name == stage.name])
        for stage in curriculum.stages
    }
    if curriculum.order == "stages":
        return [
            Stage(
                stage.name,
                of_stage[stage.name],
                config.budget.epochs * stage.epochs,
                rate * curriculum.learning_rate_decay**position,
            )
            for position, stage in enumerate(curriculum.stages)
        ]
    in_order = concatenate_datasets(list(of_stage.values()))
    passes = sum(stage.epochs * len(of_stage[stage.name]) for stage in curriculum.stages) / len(in_order)
    return [
        Stage("", in_order, config.budget.epochs * passes, rate, is_shuffled=curriculum.order == "random"),
    ]


TEXT_CURRICULUM = Task(AutoModelForCausalLM, AutoTokenizer, has_images=False, skill=Speaking, stages=curriculum_stages)
VLM_CURRICULUM = Task(
    AutoModelForImageTextToText, AutoProcessor, has_images=True, skill=Speaking, stages=curriculum_stages
)
