"""Supervised fine-tuning of a language model on text."""

from hpsearch.train.tasks.speaking import Speaking
from hpsearch.train.tasks.task import Task

TASK = Task("text-sft", Speaking)
