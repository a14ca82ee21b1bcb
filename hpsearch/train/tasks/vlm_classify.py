"""Classification of images."""

from hpsearch.train.tasks.classification import Classification
from hpsearch.train.tasks.task import Task

TASK = Task("vlm-classify", Classification)
