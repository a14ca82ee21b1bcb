"""Evaluating with a user's own metrics: every row's number comes from the trainer, and failures are reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from hpsearch.bridge.protocol import Done, Event
from hpsearch.errors import InputError, StudyFileErrors
from hpsearch.evaluation import Evaluation
from hpsearch.folders import JobFolder
from hpsearch.jobs import AnsweredRow, EvaluationConfig, EvaluationResult
from hpsearch.results.card import model_card
from hpsearch.results.compare import compare_runs
from hpsearch.results.evaluate import MOST_FREQUENT, EvaluationOptions, evaluate_run
from hpsearch.results.final import RunFolder
from hpsearch.spec.own_metrics import sha256_of
from hpsearch.watch.evaluation import evaluation_table, evaluation_words
from hpsearch.watch.plots.configurations import configurations_figure
from tests.unit.answer_fixtures import answering, read_jsonl, train_anew
from tests.unit.opening_fixtures import Desk
from tests.unit.view_fixtures import seen
from tests.unit.worker_fixtures import Play, ScriptedTrainer, nobody, plays

FILE = """\
from hpsearch import metric

@metric(direction="minimize", low=0, title="distance in digits")
def distance(reference, prediction):
    raise AssertionError("nobody but a trainer runs it")
"""
OTHER = FILE + "# and more\n"


def counting(
    number: Callable[[AnsweredRow], float], asked: list[tuple[str, str]] | None = None, notes: tuple[str, ...] = ()
) -> Play:
    """Answers, and then does as the trainer does with a metrics file: `number` is what `distance` gives."""

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        config = folder.job()
        assert isinstance(config, EvaluationConfig)
        assert config.metrics_file is not None
        for event in answering(asked=asked)(trainer, folder):
            if isinstance(event, Done):
                for variant in [] if notes else config.variants:
                    file = folder.answers(variant.name)
                    rows = [AnsweredRow.model_validate(row) for row in read_jsonl(file)]
                    counted = [row.model_copy(update={"numbers": {"distance": number(row)}}) for row in rows]
                    file.write_text("".join(row.model_dump_json() + "\n" for row in counted))
                folder.write_result(folder.read(EvaluationResult).model_copy(update={"notes": list(notes)}))
            yield event

    return play


def far(row: AnsweredRow) -> float:
    return 0.0 if row.prediction == row.reference else 250.0


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    return run_of(desk, "own")


def run_of(desk: Desk, name: str, text: str = FILE) -> RunFolder:
    desk.write_rows([{"q": f"question {number}", "a": str(number % 2)} for number in range(100)])
    (desk.folder / "mine.py").write_text(text)
    train_anew(desk, ["evaluation.metrics_file=mine.py"], name)
    return RunFolder(desk.storage.runs / name)


def evaluated(desk: Desk, folder: RunFolder, *turns: Play, metrics: list[str] | None = None) -> Evaluation:
    start = plays(*turns) if turns else nobody
    return evaluate_run(folder, EvaluationOptions(metrics=metrics), desk.storage, start, desk.tell)


def test_it_is_scored_beside_the_others_and_less_is_better_where_it_says_so(desk: Desk, folder: RunFolder) -> None:
    found = evaluated(desk, folder, counting(far))
    own = found.metrics[-1]
    assert (own.name, own.direction, own.sha256) == ("distance", "minimize", sha256_of(FILE))
    assert [variant.scores.get("distance") is None for variant in found.variants] == [True, False, False]
    assert found.variant("tuned").scores["distance"].value == 0.0
    assert "distance in digits" in seen(evaluation_table(found, "text-sft"), width=100)
    alone = evaluated(desk, folder, metrics=["distance"])
    assert [(gap.than, gap.difference, gap.shown) for gap in alone.gaps] == [("base", -250.0, True)]
    assert "tuned against base: better, -250.0000, p = " in evaluation_words(alone, folder.scores)
    assert read_jsonl(folder.scores / "base.jsonl")[0]["numbers"] == {"distance": 250.0}
    assert "250.0000" in model_card(folder, "adapter")
    assert found.variant(MOST_FREQUENT).scores["exact_match"] is not None


def test_a_comment_makes_no_other_run_of_it(desk: Desk) -> None:
    first = run_of(desk, "own")
    trained_at = first.result.stat().st_mtime_ns
    run_of(desk, "own", f"# mine\n{FILE}")
    assert first.result.stat().st_mtime_ns == trained_at
    with pytest.raises(InputError, match="holds another run"):
        run_of(desk, "own", FILE.replace("low=0", "low=1"))


def test_it_is_drawn_on_an_axis_of_its_own(desk: Desk, folder: RunFolder) -> None:
    figure = configurations_figure(evaluated(desk, folder, counting(far), metrics=["exact_match", "distance"]))
    share, own = figure.axes[:2]
    assert share.get_ylim() == (0, 1.1)
    assert own.get_ylim()[1] >= 250
    assert "250" in [text.get_text() for text in own.texts]


def test_a_changed_file_is_computed_again_and_no_row_is_asked_again(desk: Desk, folder: RunFolder) -> None:
    evaluated(desk, folder, counting(far))
    evaluated(desk, folder)  # by nobody: nothing has changed
    (desk.folder / "mine.py").write_text(OTHER)
    asked: list[tuple[str, str]] = []
    found = evaluated(desk, folder, counting(lambda row: 2 * far(row), asked))
    assert asked == []
    assert found.variant("base").scores["distance"].value == 500.0
    assert found.metrics[-1].sha256 == sha256_of(OTHER)
    (desk.folder / "mine.py").unlink()
    back = evaluated(desk, folder, counting(far, asked))
    assert asked == []
    assert back.metrics[-1].sha256 == sha256_of(FILE), "as it was when the run was trained"


def test_a_changed_file_with_a_mistake_is_reported(desk: Desk, folder: RunFolder) -> None:
    (desk.folder / "mine.py").write_text("def (")
    with pytest.raises(StudyFileErrors, match=r"mine.py line 1: is no Python"):
        evaluated(desk, folder)
    (desk.folder / "mine.py").write_text(FILE.replace("def distance", "def range_of"))
    with pytest.raises(InputError, match=r"--metrics: there is no metric 'distance'"):
        evaluated(desk, folder, metrics=["distance"])


def test_what_could_not_be_computed_is_reported_and_the_rest_is_there(desk: Desk, folder: RunFolder) -> None:
    why = "mine.py: distance gave nan, for row '7'"
    found = evaluated(desk, folder, counting(far, notes=(why,)), metrics=["distance", "exact_match"])
    assert found.notes == [why]
    assert why in evaluation_words(found, folder.scores)
    assert "distance" not in found.variant("tuned").scores
    assert found.variant("tuned").scores["exact_match"].value == 1.0
    configurations_figure(found)
    assert json.loads((folder.scores / "scores.json").read_text())["notes"] == [why]


def test_two_runs_are_compared_in_it_where_it_is_the_same(desk: Desk, folder: RunFolder) -> None:
    other = run_of(desk, "other", FILE)
    for run in (folder, other):
        evaluated(desk, run, counting(far), metrics=["exact_match", "distance"])
    comparison = compare_runs([folder, other], "none", desk.tell, common=False)
    assert [metric.name for metric in comparison.metrics] == ["exact_match", "distance"]
    changed = run_of(desk, "changed", OTHER)
    evaluated(desk, changed, counting(far), metrics=["exact_match", "distance"])
    comparison = compare_runs([folder, changed], "none", desk.tell, common=False)
    assert [metric.name for metric in comparison.metrics] == ["exact_match"]
