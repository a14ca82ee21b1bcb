"""Supervised fine-tuning on text, in stages."""

from hpsearch.train.tasks.curriculum import curriculum_stages
from hpsearch.train.tasks.speaking import Speaking
from hpsearch.train.tasks.task import Task

TASK = Task("text-curriculum", Speaking, curriculum_stages)
