"""Supervised fine-tuning of a vision-language model, in stages."""

from hpsearch.train.tasks.curriculum import curriculum_stages
from hpsearch.train.tasks.generation import Generation
from hpsearch.train.tasks.task import Task

TASK = Task("vlm-curriculum", Generation, curriculum_stages)
