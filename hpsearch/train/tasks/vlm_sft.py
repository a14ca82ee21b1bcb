"""Supervised fine-tuning of a vision-language model: an image and a question → an answer."""

from hpsearch.train.tasks.generation import Generation
from hpsearch.train.tasks.task import Task

TASK = Task("vlm-sft", Generation)
