"""The tasks: what kind of model, what kind of processor. One file each; a new task is one file and one line here."""

from hpsearch.spec.study import Task as TaskName
from hpsearch.train.tasks.task import Task
from hpsearch.train.tasks.text_sft import TEXT_SFT
from hpsearch.train.tasks.vlm_sft import VLM_SFT

TASKS: dict[TaskName, Task] = {"text-sft": TEXT_SFT, "vlm-sft": VLM_SFT}

__all__ = ["TASKS", "Task"]
