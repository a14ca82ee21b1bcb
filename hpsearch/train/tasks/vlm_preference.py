"""Preferences of a vision-language model: of two answers to an image and a question the better one."""

from hpsearch.train.tasks.preference import Preference
from hpsearch.train.tasks.task import Task

TASK = Task("vlm-preference", Preference)
