"""Supervised fine-tuning of a language model on text."""

from transformers import AutoModelForCausalLM, AutoTokenizer

from hpsearch.train.tasks.speaking import Speaking
from hpsearch.train.tasks.task import Task

TEXT_SFT = Task(AutoModelForCausalLM, AutoTokenizer, has_images=False, skill=Speaking)
