"""The tasks: what kind of model learns what. One file each; a new task is one file and one line here."""

from hpsearch.spec.study import Task as TaskName
from hpsearch.train.tasks.curriculum import TEXT_CURRICULUM, VLM_CURRICULUM
from hpsearch.train.tasks.task import Task
from hpsearch.train.tasks.text_sft import TEXT_SFT
from hpsearch.train.tasks.vlm_classify import VLM_CLASSIFY
from hpsearch.train.tasks.vlm_sft import VLM_SFT

TASKS: dict[TaskName, Task] = {
    "text-sft": TEXT_SFT,
    "vlm-sft": VLM_SFT,
    "vlm-classify": VLM_CLASSIFY,
    "text-curriculum": TEXT_CURRICULUM,
    "vlm-curriculum": VLM_CURRICULUM,
}

__all__ = ["TASKS", "Task"]
