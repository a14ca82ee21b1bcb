"""Parts of the report's page: drawings, small images, and which answers it shows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hpsearch.search.importance import Importance
from hpsearch.search.view import StudyView
from hpsearch.spec.metrics import LOSS
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import Outcome
from hpsearch.watch.report.drawings import Drawings, small_image
from hpsearch.watch.report.final import Example, right_ones, wrong_ones
from hpsearch.watch.report.story import question_facts, trial_rows
from tests.conftest import REPOSITORY
from tests.unit.view_fixtures import reporting
from tests.unit.worker_fixtures import Demo, plays


def test_drawings_take_on_the_pages_colours() -> None:
    from hpsearch.watch.plots import importance_figure
    from hpsearch.watch.plots.style import GRID, INK, PAGE

    figure = importance_figure("demo", [Importance("loss", 2, {"lora.r": 1.0})])
    drawings = Drawings()
    first, second = drawings.inline(figure, 'what "mattered"'), drawings.inline(figure, "again")
    assert first.startswith("<svg viewBox=")
    assert 'aria-label="what &#34;mattered&#34;"' in first
    assert not [colour for colour in (INK, GRID, PAGE) if colour in first]
    assert "var(--ink)" in first
    assert not set(re.findall(r'\bid="([^"]*)"', first)) & set(re.findall(r'\bid="([^"]*)"', second))
    assert "<!--" not in first


def test_in_a_narrow_window_a_picture_scrolls_in_a_box_that_shows_it() -> None:
    """Shrunk to 400 pixels its letters would be 6 pixels high."""
    from hpsearch.watch.plots import importance_figure

    drawing = Drawings().inline(importance_figure("demo", [Importance(LOSS, 2, {"lora.r": 1.0})]), "importances")
    assert drawing.startswith('<svg viewBox="0 0 576 116.64" style="--drawn: 576px"')
    assert "fill: var(--page)" not in drawing, "the picture's own ground would hide the shade of its box"
    folder = REPOSITORY / "hpsearch/watch/report"
    assert '<div class="wide">{{ pictures[name].drawing }}</div>' in (folder / "report.html.j2").read_text()
    assert "figure svg { min-width: var(--drawn); }" in (folder / "report.css").read_text()


@pytest.mark.parametrize(
    ("size", "name", "kind", "shown"),
    [((4, 2), "small.png", "png", (176, 88)), ((900, 300), "large.jpg", "jpeg", (176, 59))],
)
def test_images_are_shown_small(
    tmp_path: Path, size: tuple[int, int], name: str, kind: str, shown: tuple[int, int]
) -> None:
    import base64
    import io

    Image.new("RGB", size, "red").save(tmp_path / name)
    url = small_image(tmp_path / name)
    assert url is not None
    head, _, content = url.partition(",")
    assert head == f"data:image/{kind};base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == shown


def test_what_is_no_image_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    assert small_image(tmp_path / "text.png") is None
    assert small_image(tmp_path / "missing.png") is None


def examples(*scores: tuple[str, float]) -> list[Example]:
    return [Example(str(n), "?", [], reference, "", None, score) for n, (reference, score) in enumerate(scores)]


def test_the_shown_answers_are_of_as_many_kinds_as_there_are() -> None:
    answers = examples(*[("cat", 1.0)] * 8, ("dog", 1.0), *[("cat", 0.0)] * 8, ("dog", 0.0), ("dog", 0.5))
    assert [answer.reference for answer in right_ones(answers)] == ["cat", "dog", "cat", "cat", "cat", "cat"]
    assert [answer.id for answer in wrong_ones(answers)][:2] == ["9", "17"]
    assert "18" not in {answer.id for answer in wrong_ones(answers)}


def test_where_no_answer_is_right_the_nearest_are_shown() -> None:
    answers = examples(("a", 0.25), ("b", 0.0), ("c", 0.75))
    assert [answer.id for answer in right_ones(answers)] == ["2", "0"]
    assert [answer.id for answer in wrong_ones(answers)] == ["1", "0", "2"]
    assert (right_ones([]), wrong_ones([])) == ([], [])


def test_the_final_budget_is_that_of_the_run(view: StudyView) -> None:
    """A person may have changed it in best.yaml; without a run it is the study's."""
    trained = BudgetSpec(max_steps=200, train_fraction=0.5, reports=1)
    assert dict(question_facts(view.study.spec, trained))["budget of the final run"] == (
        "200 optimizer steps on 50% of the train rows, 1 validation report"
    )


def test_a_trials_time_is_the_same_everywhere(view: StudyView) -> None:
    """With loading and pauses; `facts["seconds"]` is of training alone."""
    trained = replace(view, trials=[replace(trial, facts=trial.facts | {"seconds": 18.0}) for trial in view.trials])
    assert [row.seconds for row in trial_rows(trained)] == [*["1 min 05 s"] * 6, ""]


def test_a_complete_trials_value_is_that_of_its_best_report(demo: Demo) -> None:
    demo.run(plays(reporting(Outcome.COMPLETE, 3.0, 0.5, 2.0), reporting(Outcome.PRUNED, 4.0, 5.0)))
    assert [row.values for row in trial_rows(demo.view)][:2] == [["0.5000"], ["5.0000"]]
