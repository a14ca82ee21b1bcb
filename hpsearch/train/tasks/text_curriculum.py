"""Supervised fine-tuning on text, in stages."""

from hpsearch.train.tasks.curriculum import curriculum_stages
from hpsearch.train.tasks.generation import Generation
from hpsearch.train.tasks.task import Task

TASK = Task("text-curriculum", Generation, curriculum_stages)
