"""The tasks: what a model learns to do with a row. One file each, with the name that its row has in `spec/tasks`."""

from importlib import import_module

from hpsearch.spec.tasks import TASKS as FACTS
from hpsearch.train.tasks.task import Task

TASKS: dict[str, Task] = {name: import_module(f"{__name__}.{name.replace('-', '_')}").TASK for name in FACTS}

__all__ = ["TASKS", "Task"]
