"""Classification of texts."""

from hpsearch.train.tasks.classification import Classification
from hpsearch.train.tasks.task import Task

TASK = Task("text-classify", Classification)
