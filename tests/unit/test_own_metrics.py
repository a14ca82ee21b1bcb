"""A user's own metrics: read from their file's text without running it, kept with the study, refused in words."""

from __future__ import annotations

import pytest

import hpsearch
from hpsearch.errors import InputError, StudyFileErrors
from hpsearch.search.view import read_view
from hpsearch.spec import StudySpec, dump_study, load_study
from hpsearch.spec.metrics import METRICS
from hpsearch.spec.own_metrics import MOST_BYTES, code_of, own_metrics, sha256_of
from hpsearch.store import specs
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.worker_fixtures import plays

FILE = '''\
"""Numbers."""
import hpsearch as hp
from hpsearch import metric
import a_library_that_is_not_here

a_library_that_is_not_here.work()

@metric(direction="maximize", low=0, high=1, unit="share", title="the same number")
def same_number(reference: str, prediction: str) -> float:
    return float(int(reference) == int(prediction))

@hp.metric(direction="minimize", low=-0.5)
def distance(prediction, *, reference, power=1, **more):
    return abs(int(reference) - int(prediction)) ** power

def same(reference, prediction):
    """No metric: it is not decorated."""
'''
ABOVE = "from hpsearch import metric\n\n"


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    def same(reference: str, prediction: str) -> float:
        return float(reference == prediction)

    assert hpsearch.metric(direction="maximize", low=0)(same) is same


def test_names_and_facts_are_read_without_running_the_file() -> None:
    found = own_metrics(FILE)
    assert found.mistakes == []
    same, distance = found.metrics["same_number"], found.metrics["distance"]
    assert list(found.metrics) == ["same_number", "distance"]
    assert (same.title, same.direction, same.low, same.high, same.unit) == (
        "the same number",
        "maximize",
        0,
        1,
        "share",
    )
    assert (distance.title, distance.direction, distance.low, distance.high) == ("distance", "minimize", -0.5, None)
    assert same.is_own
    assert same.sha256 == sha256_of(FILE)
    assert not any(metric.is_own for metric in METRICS.values())


WRONG = {
    "x = (": "line 1: is no Python: '(' was never closed",
    "x = 1\nreturn x": "line 2: is no Python: 'return' outside function",
    "x = 1\0": "is no Python: source code string cannot contain null bytes",
    "def same(reference, prediction): ...": "has no metric: `from hpsearch import metric`, ",
    "from other import metric\n@metric(direction='maximize')\ndef f(reference, prediction): ...": "has no metric",
    ABOVE + "@metric\ndef f(reference, prediction): ...": "line 3: @metric needs a direction",
    ABOVE + "@metric(low=0)\ndef f(reference, prediction): ...": "line 3: @metric needs a direction",
    ABOVE + "@metric('maximize')\ndef f(reference, prediction): ...": "line 3: @metric takes each value by its name",
    ABOVE + "@metric(direction='up')\ndef f(reference, prediction): ...": (
        "line 3: @metric of f: direction: 'minimize' or 'maximize', found 'up'"
    ),
    ABOVE + "@metric(direction='maximize',\n  hihg=1)\ndef f(reference, prediction): ...": (
        "line 4: @metric takes no hihg=1; did you mean 'high'?"
    ),
    ABOVE
    + "@metric(direction='maximize', **more)\ndef f(reference, prediction): ...": "line 3: @metric takes no **more",
    ABOVE + "@metric(direction='maximize', high=limit())\ndef f(reference, prediction): ...": (
        "line 3: high=limit(): write the plain value; it is read without running the file"
    ),
    ABOVE
    + "@metric(direction='maximize', high=1e999)\ndef f(reference, prediction): ...": "line 3: @metric of f: high: ",
    ABOVE + "@metric(direction='maximize', low=1, high=0)\ndef f(reference, prediction): ...": (
        "line 3: @metric of f: low=1 is not below high=0"
    ),
    ABOVE + "@metric(direction='maximize', title='a\\nb')\ndef f(reference, prediction): ...": (
        "line 3: @metric of f: title: at most 60 letters in one line"
    ),
    ABOVE + "@metric(direction='maximize')\ndef f(expected, said): ...": (
        "line 4: f(expected, said): a metric takes (reference, prediction)"
    ),
    ABOVE
    + "@metric(direction='maximize')\ndef f(reference, prediction, model): ...": "line 4: f(reference, prediction, ",
    ABOVE
    + "@metric(direction='maximize')\ndef f(reference, prediction, /): ...": "line 4: f(reference, prediction, /)",
    ABOVE + "@metric(direction='maximize')\nasync def f(reference, prediction): ...": "line 4: f is async",
    ABOVE + "@metric(direction='maximize')\ndef token_f1(reference, prediction): ...": (
        "line 4: token_f1 is one of hpsearch's own metrics: call it something else"
    ),
    ABOVE + "if True:\n  @metric(direction='maximize')\n  def f(reference, prediction): ...": "line 5: f stands inside",
    ABOVE
    + 2 * "@metric(direction='maximize')\ndef f(reference, prediction): ...\n": "line 6: there is a metric f already",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: WRONG[text][:40])
def test_a_mistake_is_reported_with_its_line(text: str) -> None:
    (mistake,) = own_metrics(text).mistakes
    assert mistake.startswith(WRONG[text])


def with_metrics(desk: Desk, text: str = FILE, name: str = "numbers.py") -> str:
    (desk.folder / name).write_text(text)
    return f"evaluation.metrics_file={name}"


def test_a_study_knows_its_own_metrics_and_so_does_a_store_without_the_file(desk: Desk) -> None:
    named = with_metrics(desk)
    study = desk.open(named, "objective=distance", start=plays(inspecting()))
    (desk.folder / "numbers.py").unlink()
    stored = desk.store.studies.find("demo")
    assert stored is not None
    assert [metric.direction for metric in stored.spec.objectives] == ["minimize"]
    assert stored.spec.metric("same_number").unit == "share"
    assert specs.from_text(specs.to_text(stored.spec)) == stored.spec
    view = read_view(desk.store, stored)
    assert view.objective == stored.spec.metric("distance")
    config = study.trial_config(0, {"training.learning_rate": 1e-4})
    assert config.metrics_file is not None
    assert (config.metrics_file.name, config.metrics_file.text) == ("numbers.py", FILE)
    assert config.objectives == [stored.spec.metric("distance")]


def test_objectives_of_ones_own_go_both_ways(desk: Desk) -> None:
    named = with_metrics(desk)
    desk.open(named, "objective=[distance, same_number, loss]", start=plays(inspecting()))
    stored = desk.store.studies.find("demo")
    assert stored is not None
    directions = [direction.name for direction in desk.store.optuna.get_study_directions(stored.study_id)]
    assert directions == ["MINIMIZE", "MAXIMIZE", "MINIMIZE"]


def test_a_changed_file_is_refused_and_a_moved_one_is_not(desk: Desk) -> None:
    named = with_metrics(desk)
    desk.open(named, start=plays(inspecting()))
    desk.open(with_metrics(desk, name="moved.py"))
    with_metrics(desk, FILE.replace("import hpsearch as hp", "import hpsearch as hp  # a comment\n\n"))
    desk.open(named)
    other = FILE.replace("-0.5", "-1.5")
    with_metrics(desk, other)
    with pytest.raises(InputError) as raised:
        desk.open(named)
    (line,) = [line for line in str(raised.value).splitlines() if line.startswith("  ")]
    was, now = (f"SHA-256 {sha256_of(code_of(text))[:12]}…" for text in (FILE, other))
    assert line == f"  the text of evaluation.metrics_file: {was} → {now}"


def test_a_file_of_a_study_that_is_not_there_or_wrong_is_reported(desk: Desk) -> None:
    with_metrics(desk, name="number.py")
    with pytest.raises(StudyFileErrors) as raised:
        desk.file("evaluation.metrics_file=numbers.py", "objective=same_number")
    (mistake,) = raised.value.mistakes
    assert mistake.key == "evaluation.metrics_file"
    assert mistake.message == f"there is no file {desk.folder / 'numbers.py'}; did you mean 'number.py'?"
    for content, told in (
        (b"x" * (MOST_BYTES + 1), "more than 64 KiB"),
        (b"x = 1\n\xff", "line 2: is no text in UTF-8"),
    ):
        (desk.folder / "numbers.py").write_bytes(content)
        with pytest.raises(StudyFileErrors, match=told):
            desk.file("evaluation.metrics_file=numbers.py")
    with pytest.raises(StudyFileErrors, match=r"evaluation.metrics_file: numbers.py line 1: is no Python"):
        desk.file(with_metrics(desk, "x = ("), "objective=same_number")
    with pytest.raises(StudyFileErrors, match="did you mean 'same_number'"):
        desk.file(with_metrics(desk), "objective=same_numbers")


def test_a_best_file_trains_without_the_file_and_knows_where_it_was(desk: Desk) -> None:
    named = with_metrics(desk)
    final = desk.file(named).spec.evaluation.found_from(desk.folder)
    assert final.metrics_file == str(desk.folder / "numbers.py")


def test_rows_without_answers_have_nothing_to_compare(desk: Desk) -> None:
    with pytest.raises(StudyFileErrors, match="its metrics compare answers, and text rows have none"):
        desk.file(with_metrics(desk), "data.columns={text: q}")


def test_a_file_that_hpsearch_made_holds_the_metrics_too(desk: Desk) -> None:
    text = FILE + 'ODD = "tab\\t", "ü", " "  \n\n\n'
    desk.open(with_metrics(desk, text), "objective=distance", start=plays(inspecting()))
    (desk.folder / "numbers.py").unlink()
    stored = desk.store.studies.find("demo")
    assert stored is not None
    spec = stored.spec.model_copy(update={"search": None})
    elsewhere = desk.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "best.yaml").write_text(dump_study(spec))
    assert load_study(elsewhere / "best.yaml").spec == spec
    (elsewhere / "other.py").write_text(FILE)
    other = load_study(elsewhere / "best.yaml", ["evaluation.metrics_file=other.py"]).spec
    assert other.evaluation.metrics_text == FILE


def test_a_class_has_a_text_too() -> None:
    study = {
        "study": "demo",
        "task": "vlm-classify",
        "model": {"base": "tiny:gemma3"},
        "data": {"source": "rows.jsonl", "columns": {"image": "i", "label": "l"}},
        "objective": "distance",
        "evaluation": {"metrics_text": FILE},
    }
    spec = StudySpec.model_validate(study)
    assert spec.task_facts.fits(spec.metric("distance"))
    assert "same_number" in [metric.name for metric in spec.fitting_metrics()]
