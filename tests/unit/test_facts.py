"""Tasks and metrics are facts, one row each: nobody else names a task, and each has what its row promises."""

from __future__ import annotations

import re

from hpsearch.spec.metrics import METRICS
from hpsearch.spec.rows import FORMATS
from hpsearch.spec.tasks import SECTIONS, TASKS, find_task
from tests.conftest import REPOSITORY

ROOMS_OF_TASKS = ("spec/tasks.py", "train/tasks/")
"""The table, and the files that train them."""


def test_nobody_else_names_a_task() -> None:
    names = re.compile("|".join(rf"[\"'`]{name}[\"'`]|\b{name}\b" for name in TASKS))
    package = REPOSITORY / "hpsearch"
    files = [file for kind in ("*.py", "*.j2") for file in package.rglob(kind)]
    assert len(files) > 200
    told = [
        f"{file.relative_to(package)}: {line.strip()}"
        for file in files
        if not str(file.relative_to(package)).startswith(ROOMS_OF_TASKS)
        for line in file.read_text().splitlines()
        if names.search(line)
    ]
    assert told == []


def test_tasks_know_nothing_of_each_other() -> None:
    files = [name.replace("-", "_") for name in TASKS]
    for file in files:
        content = (REPOSITORY / "hpsearch/train/tasks" / f"{file}.py").read_text()
        assert [other for other in files if other != file and f"tasks.{other} " in content] == [], file


def test_each_task_has_a_file_and_takes_rows_that_there_are() -> None:
    for task in TASKS.values():
        assert (REPOSITORY / "hpsearch/train/tasks" / f"{task.name.replace('-', '_')}.py").exists()
        assert set(task.row_formats) <= set(FORMATS)
        assert task.sections <= set(SECTIONS)
        assert find_task(task.learns, has_images=task.has_images, sections=task.sections) == task.name
        assert any(metric.over == task.judged_over[0] for metric in METRICS.values())
