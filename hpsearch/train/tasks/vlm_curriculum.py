"""Supervised fine-tuning of a vision-language model, in stages."""

from hpsearch.train.tasks.curriculum import curriculum_stages
from hpsearch.train.tasks.speaking import Speaking
from hpsearch.train.tasks.task import Task

TASK = Task("vlm-curriculum", Speaking, curriculum_stages)
