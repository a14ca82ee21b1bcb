"""Preferences of a language model: of two answers to a text the better one."""

from hpsearch.train.tasks.preference import Preference
from hpsearch.train.tasks.task import Task

TASK = Task("text-preference", Preference)
