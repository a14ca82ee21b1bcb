"""Supervised fine-tuning of a vision-language model: an image and a question → an answer."""

from transformers import AutoModelForImageTextToText, AutoProcessor

from hpsearch.train.tasks.speaking import Speaking
from hpsearch.train.tasks.task import Task

VLM_SFT = Task(AutoModelForImageTextToText, AutoProcessor, has_images=True, skill=Speaking)
