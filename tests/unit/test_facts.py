"""Tasks and metrics are rows of tables: no other code names a task, and each has what its row promises."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpsearch.errors import cut
from hpsearch.metrics import COMPUTED, scores
from hpsearch.metrics.overall import _summed
from hpsearch.spec import metrics as spec_metrics
from hpsearch.spec import tasks as spec_tasks
from hpsearch.spec.metrics import ABOUT, LOSS, METRICS, Metric
from hpsearch.spec.rows import FORMATS
from hpsearch.spec.tasks import SECTIONS, TASKS, TaskFacts, find_task
from hpsearch.trial import Report, best_report
from tests.conftest import REPOSITORY

ROOMS_OF_TASKS = ("spec/tasks.py", "train/tasks/")
"""The table, and the files that train them."""
FILES_OF_TASKS = REPOSITORY / "hpsearch/train/tasks"


def file_of(task: str) -> Path:
    return FILES_OF_TASKS / f"{task.replace('-', '_')}.py"


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
    files = [name.replace("-", "_") for name in TASKS if file_of(name).exists()]
    for file in files:
        content = (FILES_OF_TASKS / f"{file}.py").read_text()
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
OTHERS = [*ODD[3:], "", "no", "a cell\n"]
"""Not only another order of the same: a metric over totals, as of the answers' lengths, must be worse of them too."""
PROBES = {
    "ODD, answered by ODD": (ODD, ODD),
    "ODD, answered by OTHERS": (ODD, OTHERS),
    "ODD, answered by nothing": (ODD, [""] * len(ODD)),
    "'', answered by 'yes'": ([""], ["yes"]),
    "'yes', answered by ''": (["yes"], [""]),
}
"""Name → references and predictions. The lists of texts are above."""
HAVE_ROWS = [name for name in COMPUTED if name in METRICS]


@pytest.mark.parametrize("name", HAVE_ROWS)
def test_a_metric_is_what_its_row_says(name: str) -> None:
    metric = METRICS[name]
    low = -math.inf if metric.low is None else metric.low
    high = math.inf if metric.high is None else metric.high
    for probe, (references, predictions) in PROBES.items():
        value = scores(references, predictions, [name])[name]
        assert low <= value <= high, f"{name}: its row says from {low} to {high}, and it is {value} of {probe}"
    right, wrong = scores(ODD, ODD, [name])[name], scores(ODD, OTHERS, [name])[name]
    told = (
        f"{name}: its row says direction={metric.direction!r}, and it is {right} of ODD, answered by ODD,"
        f" and {wrong} of ODD, answered by OTHERS (the lists are in this file)"
    )
    assert metric.is_better(right, wrong), told
    assert metric.cost(right) < metric.cost(wrong), told
    references, predictions = ["a red cell"] * 3 + ["no"], ["a red cell in it", "a red cell", "no", "no"]
    alone = [scores([one], [other], [name])[name] for one, other in zip(references, predictions, strict=True)]
    whole, mean = scores(references, predictions, [name])[name], sum(alone) / len(alone)
    told = (
        f"{name}: its row says is_mean={metric.is_mean}, and it is {whole}; the mean of its rows is {mean}, of {alone}"
        f" (references {references}, predictions {predictions})"
    )
    assert metric.is_mean == (whole == pytest.approx(mean)), told


@pytest.mark.parametrize("name", HAVE_ROWS)
def test_the_sums_of_a_metric_give_its_value(name: str) -> None:
    """`compare` and the intervals take it from sums over the rows that they draw (`Summed`, metrics/comparison.py)."""
    classes = ["a red cell"] * 8 + ["no"] * 5
    said = ["a red cell"] * 5 + ["no"] * 6 + ["a red cell in it", "a red cell"]
    for references, predictions in [(ODD, OTHERS), (ODD, ODD), (classes, said)]:
        sums = _summed(references, predictions, name)
        for rows in (range(len(references)), [0, 0, 3, 5, 11, 11, 11, 12]):
            drawn = np.bincount(rows, minlength=len(references))[None].astype(float)
            value = scores([references[row] for row in rows], [predictions[row] for row in rows], [name])[name]
            (summed,) = sums.of(drawn @ sums.rows)
            told = (
                f"{name}: summed of its line in metrics/overall.py gives {summed}, and score {value}, of the rows"
                f" {[*rows]} of references {cut(str(references))} and predictions {cut(str(predictions))}"
            )
            assert summed == pytest.approx(value), told


@pytest.mark.parametrize("name", [name for name in HAVE_ROWS if METRICS[name].over == "classes"])
def test_a_metric_over_classes_asks_only_whether_an_answer_is_the_class(name: str) -> None:
    references = ["red cell", "red cell", "no", "no"]
    near, far = (scores(references, ["red cell", wrong, "no", "no"], [name])[name] for wrong in ("The red cell.", "x"))
    told = f"{name}: it is {near} where a wrong answer is near and {far} where it is not: its row says over='texts'?"
    assert near == far, told


def test_every_metric_has_a_way_to_be_computed() -> None:
    from_texts = {name for name, row in METRICS.items() if row.over in ("texts", "classes") and not row.needs_model}
    no_code = "no code: a line in ROW_METRICS of metrics/text.py, or in _OVERALL of metrics/overall.py"
    assert from_texts - set(COMPUTED) == set(), no_code
    assert set(COMPUTED) - from_texts == set(), "no row over texts or classes in _ROWS of spec/metrics.py"
    others = METRICS.keys() - from_texts - {LOSS.name}
    stored = "no code: a metric that isn't of texts needs a number of each row, in Answer.numbers (train/tasks/task.py)"
    assert others - _keys(REPOSITORY / "hpsearch" / "train") == set(), stored
    by_a_model = {name for name, row in METRICS.items() if row.needs_model}
    assert by_a_model == {"bertscore"}, "needs_model=True asks for evaluation.bertscore_model, which is BERTScore's"


def _keys(folder: Path) -> set[str]:
    """Texts that are keys of dictionaries in its files."""
    trees = [ast.walk(ast.parse(file.read_text())) for file in folder.rglob("*.py")]
    keys = [key for nodes in trees for node in nodes if isinstance(node, ast.Dict) for key in node.keys]
    return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def test_no_name_is_taken_twice() -> None:
    """The last row of a name would win, without a word."""
    for told, names in [
        ("spec/metrics.py", [row.name for row, _ in spec_metrics._ROWS]),
        ("spec/tasks.py", [row.name for row in spec_tasks._ROWS]),
    ]:
        assert [name for name, count in Counter(names).items() if count > 1] == [], f"two rows in _ROWS of {told}"


def test_every_metric_is_described() -> None:
    for name, metric in METRICS.items():
        told = f"{name}: its description for docs/reference/metrics.md must end with a full stop: {ABOUT[name]!r}"
        assert ABOUT[name].endswith("."), told
        assert metric.title == " ".join(metric.title.split()) != "", (
            f"{name}: its title has blanks too many, or nothing"
        )
        is_share = (metric.low, metric.high) == (0, 1)
        assert (metric.unit == "share") <= is_share, f"{name}: a share is from low=0 to high=1"


@pytest.mark.parametrize(("direction", "best"), [("minimize", 2), ("maximize", 3)])
def test_a_made_up_metric_leads_by_its_direction_alone(direction: str, best: int) -> None:
    metric = Metric.model_validate({"name": "made_up", "title": "made up", "over": "texts", "direction": direction})
    reports = [Report(step=n, loss=0.5, metrics={"made_up": value}) for n, value in enumerate([1.0, 0.0, 2.0], start=1)]
    assert best_report(reports, metric).step == best


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_task_is_what_its_row_says(task: TaskFacts) -> None:
    assert set(task.row_formats) <= set(FORMATS), "its row_formats are of FORMATS in spec/rows.py"
    assert task.sections <= set(SECTIONS), "its sections are of SECTIONS in spec/tasks.py"
    assert any(metric.over == task.judged_over[0] for metric in METRICS.values()), "no metric is over its judged_over"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_its_file(name: str) -> None:
    """The trainer of every study imports them all."""
    file = file_of(name)
    assert file.exists(), f"{name} has a row in spec/tasks.py, and no hpsearch/train/tasks/{file.name}"
    made = {target.id: node.value for node in ast.parse(file.read_text()).body for target in _targets(node)}
    line = f'hpsearch/train/tasks/{file.name} needs the line TASK = Task("{name}", METHOD)'
    assert isinstance(made.get("TASK"), ast.Call), line
    assert name in [getattr(each, "value", None) for each in ast.walk(made["TASK"])], line


def _targets(node: ast.stmt) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target for target in targets if isinstance(target, ast.Name)]


def test_of_two_tasks_with_the_same_properties_the_first_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_task("text", has_images=False)
    assert first is not None
    monkeypatch.setitem(TASKS, "one-more", replace(TASKS[first], name="one-more"))
    assert find_task("text", has_images=False) == first
