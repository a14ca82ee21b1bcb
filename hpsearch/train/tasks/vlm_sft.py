"""Supervised fine-tuning of a vision-language model: an image and a question → an answer."""

from hpsearch.train.tasks.speaking import Speaking
from hpsearch.train.tasks.task import Task

TASK = Task("vlm-sft", Speaking)
