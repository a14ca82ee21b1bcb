"""Tasks and metrics are rows of tables: no other code names a task, and each has what its row promises."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import pytest

from hpsearch.metrics import COMPUTED, scores
from hpsearch.spec.metrics import ABOUT, METRICS, Metric
from hpsearch.spec.rows import FORMATS
from hpsearch.spec.tasks import SECTIONS, TASKS, find_task
from hpsearch.trial import Report, best_report
from tests.conftest import REPOSITORY

ROOMS_OF_TASKS = ("spec/tasks.py", "train/tasks/")
"""The table, and the files that train them."""


def test_nobody_else_names_a_task() -> None:
    names = re.compile("|".join(rf"[\"'`]{name}[\"'`]|\b{name}\b" for name in TASKS))
    package = REPOSITORY / "hpsearch"
    files = [file for kind in ("*.py", "*.j2") for file in package.rglob(kind)]
    assert len(files) > 200
    found = [
        f"{file.relative_to(package)}: {line.strip()}"
        for file in files
        if not str(file.relative_to(package)).startswith(ROOMS_OF_TASKS)
        for line in file.read_text().splitlines()
        if names.search(line)
    ]
    assert found == []


def test_tasks_know_nothing_of_each_other() -> None:
    files = [name.replace("-", "_") for name in TASKS]
    for file in files:
        content = (REPOSITORY / "hpsearch/train/tasks" / f"{file}.py").read_text()
        assert [other for other in files if other != file and f"tasks.{other} " in content] == [], file


ROOMS_OF_METRICS = ("spec/metrics.py", "metrics/")
"""The table, and the room that computes them."""


def _compared(file: Path) -> list[str]:
    """Texts that something is compared with."""
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        sides += [node.value] if isinstance(node, ast.MatchValue) else []
        parts = [part for side in sides for part in getattr(side, "elts", [side])]
        found += [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return found


def test_nobody_else_asks_for_a_metric_by_its_name() -> None:
    package = REPOSITORY / "hpsearch"
    found = [
        f"{file.relative_to(package)}: {name}"
        for file in package.rglob("*.py")
        if not str(file.relative_to(package)).startswith(ROOMS_OF_METRICS)
        for name in _compared(file)
        if name in METRICS
    ]
    assert found == []


ODD = ["", " ", "the", "+", "No.", "нет", "答案", "a\u2028b", "1e400", "yes " * 300, "\N{GRINNING FACE}", "ﬁ", "NaN"]


@pytest.mark.parametrize("name", COMPUTED)
def test_a_metric_is_what_its_row_says(name: str) -> None:
    metric = METRICS[name]
    low = -math.inf if metric.low is None else metric.low
    high = math.inf if metric.high is None else metric.high
    others = [*ODD[3:], *ODD[:3]]
    for references, predictions in [
        (ODD, ODD),
        (ODD, others),
        (ODD, [""] * len(ODD)),
        ([""], ["yes"]),
        (["yes"], [""]),
    ]:
        assert low <= scores(references, predictions, [name])[name] <= high, "the range of its row"
    right, wrong = scores(ODD, ODD, [name])[name], scores(ODD, others, [name])[name]
    assert metric.is_better(right, wrong)
    assert metric.cost(right) < metric.cost(wrong)
    references, predictions = ["a red cell"] * 3 + ["no"], ["a red cell in it", "a red cell", "no", "no"]
    alone = [scores([one], [other], [name])[name] for one, other in zip(references, predictions, strict=True)]
    mean = sum(alone) / len(alone)
    assert metric.is_mean == (scores(references, predictions, [name])[name] == pytest.approx(mean))


def test_every_metric_has_a_way_to_be_computed() -> None:
    over_texts = {name for name, row in METRICS.items() if row.over in ("texts", "classes") and not row.needs_model}
    assert over_texts == set(COMPUTED), "metrics/text.py has ROW_METRICS, metrics/overall.py what is over all rows"
    for name, metric in METRICS.items():
        assert metric.name == name
        assert ABOUT[name].endswith("."), f"{name} has no description, a sentence for docs/reference/metrics.md"
        assert metric.title == " ".join(metric.title.split()) != ""
        assert (metric.unit == "share") <= ((metric.low, metric.high) == (0, 1))


@pytest.mark.parametrize(("direction", "best"), [("minimize", 2), ("maximize", 3)])
def test_a_made_up_metric_leads_by_its_direction_alone(direction: str, best: int) -> None:
    metric = Metric.model_validate({"name": "made_up", "title": "made up", "over": "texts", "direction": direction})
    reports = [Report(step=n, loss=0.5, metrics={"made_up": value}) for n, value in enumerate([1.0, 0.0, 2.0], start=1)]
    assert best_report(reports, metric).step == best


def test_each_task_has_a_file_and_takes_rows_that_there_are() -> None:
    for task in TASKS.values():
        assert (REPOSITORY / "hpsearch/train/tasks" / f"{task.name.replace('-', '_')}.py").exists()
        assert set(task.row_formats) <= set(FORMATS)
        assert task.sections <= set(SECTIONS)
        assert find_task(task.learns, has_images=task.has_images, sections=task.sections) == task.name
        assert any(metric.over == task.judged_over[0] for metric in METRICS.values())
