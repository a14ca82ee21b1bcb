"""Classification of images."""

from hpsearch.train.tasks.classifying import Classifying
from hpsearch.train.tasks.task import Task

TASK = Task("vlm-classify", Classifying)
