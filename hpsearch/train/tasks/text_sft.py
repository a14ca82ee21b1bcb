"""Supervised fine-tuning of a language model on text."""

from hpsearch.train.tasks.generation import Generation
from hpsearch.train.tasks.task import Task

TASK = Task("text-sft", Generation)
