"""A user's own metrics, computed by the trainer: at each report, over an evaluation's answers, on a study's first rows;
and the messages about those that fail."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch.bridge.protocol import Phase, Reported
from hpsearch.folders import JobFolder
from hpsearch.jobs import AnsweredRow, EvaluationConfig, InspectionConfig, Variant
from hpsearch.spec.model import ModelSpec
from hpsearch.spec.own_metrics import own_metrics
from hpsearch.train.evaluation import evaluate
from hpsearch.train.inspection import inspect
from hpsearch.train.own_metrics import MetricFailed, loaded
from hpsearch.trial import AnswersConfig, MetricsFile, Outcome, Record, TrialConfig, best_report
from tests.conftest import REPOSITORY
from tests.integration.conftest import ROWS, text_config
from tests.integration.inside import Answering, Inside

Rows = tuple[Path, Path]

HEAD = """\
from __future__ import annotations
import random
from dataclasses import dataclass, field
from hpsearch import metric

@dataclass
class Pair:
    a: str
    said: list[str] = field(default_factory=list)

"""
LENGTH = (
    HEAD
    + """
@metric(direction="minimize", low=0)
def length(reference, prediction):
    random.seed(0)
    return len(Pair(prediction).a)
"""
)


def file_of(text: str) -> MetricsFile:
    assert own_metrics(text).mistakes == []
    return MetricsFile(name="mine.py", text=text)


def one(body: str, decorator: str = 'direction="maximize", low=0, high=1') -> MetricsFile:
    """`body` is on line 5."""
    return file_of(
        f"from hpsearch import metric\n\n@metric({decorator})\ndef mine(reference, prediction):\n    {body}\n"
    )


def judged(rows: Rows, text: str, *names: str, **changes: object) -> TrialConfig:
    facts = own_metrics(text).metrics
    return text_config(
        rows,
        objectives=[facts[name] for name in names],
        metrics_file=file_of(text),
        answers=AnswersConfig(max_new_tokens=3),
        **changes,
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return int(prediction)", "raised ValueError: invalid literal for int() with base 10: 'so' (line 5)"),
        ("assert False", "raised AssertionError (line 5)"),
        ("import sys; sys.exit('no')", "raised SystemExit: no (line 5)"),
        ("return mine(reference, prediction)", "raised RecursionError: "),
        ("return float('nan')", "gave nan"),
        ("return float('inf')", "gave inf"),
        ("return None", "gave no number but None"),
        ("return '0.5'", "gave no number but '0.5'"),
        ("return [1, 2]", "gave no number but [1, 2]"),
        ("yield 1", "gave no number but"),
        ("return 1.5", "gave 1.5, and its range ends at high=1"),
        ("return -0.001", "gave -0.001, and its range begins at low=0"),
    ],
)
def test_what_gives_no_number_is_reported_with_the_row(body: str, told: str) -> None:
    with loaded(one(body)) as metrics, pytest.raises(MetricFailed) as raised:
        metrics["mine"].of("row 7", "so", "so")
    assert raised.value.message.startswith(f"mine.py: mine {told}")
    assert raised.value.message.endswith("for row 'row 7'")


@pytest.mark.parametrize(
    ("body", "number"),
    [
        ("return reference == prediction", 1.0),
        ("return 1 + 1e-12", 1.0),
        ("return -1e-12", 0.0),
        ("import numpy; return numpy.float32(0.5)", 0.5),
        ("import torch; return torch.tensor(0.25)", 0.25),
    ],
)
def test_numbers_are_of_many_kinds(body: str, number: float) -> None:
    with loaded(one(body)) as metrics:
        assert metrics["mine"].of("7", "so", "so") == number


def test_nothing_of_the_file_stays_and_nothing_drawn_in_it_shows() -> None:
    before, drawn = set(sys.modules), random.getstate()
    with loaded(file_of(LENGTH + "random.seed(3)\n")) as metrics:
        assert random.getstate() == drawn
        function: Any = metrics["length"].function
        assert metrics["length"].of("1", "yes", "four") == 4
    assert set(sys.modules) == before
    assert function.__globals__ == {}
    with loaded(None) as none:
        assert none == {}


def test_a_file_that_cannot_run_is_reported_with_its_line() -> None:
    text = "import not_there_at_all\n" + LENGTH.replace("from __future__ import annotations\n", "")
    with pytest.raises(MetricFailed) as raised, loaded(file_of(text)):
        pass
    told = "mine.py can't be run: ModuleNotFoundError: No module named 'not_there_at_all' (line 1)"
    assert raised.value.message == told


def test_out_of_memory_in_a_metric_is_out_of_memory() -> None:
    body = "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')"
    with loaded(one(body)) as metrics, pytest.raises(torch.OutOfMemoryError):
        metrics["mine"].of("7", "so", "so")


def test_a_trial_is_judged_by_it_at_each_report(inside: Inside, text_rows: Rows, tmp_path: Path) -> None:
    config = judged(text_rows, LENGTH, "length", is_final=True)
    plain = inside.run(tmp_path / "plain", text_config(text_rows, answers=config.answers))
    drawn: list[object] = []

    def note(event: Record) -> bool:
        if isinstance(event, Reported) or (isinstance(event, Phase) and event.name == "computing length"):
            drawn.append(random.getstate())
        return False

    result = inside.run_for(Answering(stops_at=note), tmp_path / "judged", config)
    assert result.outcome is Outcome.COMPLETE
    assert result.ledger is not None
    assert result.ledger.closes
    lengths = [report.metrics["length"] for report in result.reports]
    assert all(0 <= length < 100 for length in lengths)
    assert best_report(result.reports, config.objectives[0]).metrics["length"] == min(lengths)
    assert [report.loss for report in result.reports] == [report.loss for report in plain.reports], "bit for bit"
    assert len(drawn) == 4
    assert drawn[0] == drawn[1], "what it seeds is its own"


def test_a_trial_fails_in_words_where_its_objective_does(inside: Inside, text_rows: Rows, tmp_path: Path) -> None:
    text = LENGTH.replace("return len", "return 1 / len(Pair(reference).said) #")
    config = judged(text_rows, text, "length")
    folder = JobFolder(tmp_path)
    folder.prepare(config)
    result = inside.attempt(Answering(), folder, config)
    assert (result.outcome, result.traceback) == (Outcome.FAILED, None)
    assert result.reason is not None
    told = "evaluation.metrics_file: mine.py: length raised ZeroDivisionError: division by zero (line 15), for row '24'"
    assert result.reason == told
    assert result.ledger is not None
    assert result.ledger.closes


def test_a_metric_that_was_asked_to_stop_stops_between_rows(inside: Inside, text_rows: Rows, tmp_path: Path) -> None:
    worker = Answering(stops_at=lambda event: isinstance(event, Phase) and event.name.startswith("computing"))
    result = inside.run_for(worker, tmp_path, judged(text_rows, LENGTH, "length"))
    assert (result.outcome, result.reports) == (Outcome.STOPPED, [])


def evaluation(rows: Path, text: str | None, folder: Path) -> EvaluationConfig:
    return EvaluationConfig(
        task="text-sft",
        model=ModelSpec(base="tiny:qwen2"),
        adapter=folder,
        rows=ROWS,
        answers=AnswersConfig(max_new_tokens=2),
        variants=[Variant(model="base")],
        test_rows=rows,
        batch_size="auto",
        rules=2,
        metrics_file=None if text is None else file_of(text),
    )


def test_an_evaluation_gives_every_row_its_number_and_asks_no_row_again(
    inside: Inside, text_rows: Rows, tmp_path: Path
) -> None:
    folder = JobFolder(tmp_path / "evaluation")

    def evaluated(text: str) -> tuple[list[AnsweredRow], list[str], list[str]]:
        job, worker = evaluation(text_rows[1], text, tmp_path), Answering()
        folder.prepare(job)
        notes = evaluate(job, folder, inside.bases, worker).notes
        lines = folder.answers("base").read_text().splitlines()
        told = [f"{event.name} {event.done}" for event in worker.sent if isinstance(event, Phase)]
        return [AnsweredRow.model_validate_json(line) for line in lines], notes, told

    rows, notes, _ = evaluated(LENGTH)
    assert [row.numbers for row in rows] == [{"length": len(row.prediction)} for row in rows]
    assert notes == []
    again, _, told = evaluated(LENGTH.replace("return len", "return 2 * len"))
    assert [row.numbers["length"] for row in again] == [2 * len(row.prediction) for row in rows]
    assert [row.prediction for row in again] == [row.prediction for row in rows]
    assert not [event for event in told if "answers" in event or "model" in event], "all of them were there"
    second = "\n@metric(direction='maximize')\ndef other(reference, prediction):\n    return 3\n"
    rows, notes, _ = evaluated(LENGTH.replace("return len", "return -1 - len") + second)
    assert [row.numbers for row in rows] == [{"other": 3.0}] * 8
    (note,) = notes
    assert note.startswith("base goes without length: mine.py: length gave -")
    rows, (note,), _ = evaluated(
        "import not_there_at_all\n" + second.replace("\n", "\nfrom hpsearch import metric\n", 1)
    )
    assert [row.numbers for row in rows] == [{}] * 8
    assert note.startswith("mine.py can't be run: ModuleNotFoundError")


def test_an_inspection_tries_it_on_a_few_rows(text_rows: Rows) -> None:
    config = InspectionConfig(
        task="text-sft",
        models=[ModelSpec(base="tiny:qwen2")],
        rows=ROWS,
        candidate_rows=text_rows[0],
        metrics_file=one("return prediction.index(reference[0]) * 0"),
    )
    found = inspect(config, Answering())
    assert found.mistake is not None
    key, message = found.mistake
    assert key == "evaluation.metrics_file"
    assert message == "mine.py: mine raised ValueError: substring not found (line 5), for row '0'"
    fine = config.model_copy(update={"metrics_file": one("return prediction.startswith(reference[0])")})
    assert inspect(fine, Answering()).mistake is None


def test_the_example_that_ships() -> None:
    text = (REPOSITORY / "studies/medical_cost.py").read_text()
    with loaded(file_of(text)) as metrics:
        asked = [("benign", "benign "), ("benign", "malignant"), ("malignant", "Benign"), ("malignant", "")]
        assert [metrics["cost"].of("7", *pair) for pair in asked] == [0, 1, 10, 1]
