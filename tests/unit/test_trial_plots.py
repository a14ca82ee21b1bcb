"""Figures of a study's trials: their curves, what stands out, and what two objectives cost each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hpsearch.errors import NothingToDraw
from hpsearch.search.view import StudyView
from hpsearch.spec.metrics import LOSS, METRICS
from hpsearch.watch.document import OUTCOMES
from hpsearch.watch.plots import learning_curves_figure, trade_off_figure
from hpsearch.watch.plots.style import BLUE, ORANGE
from tests.unit.picture_fixtures import legend, words_of
from tests.unit.view_fixtures import with_spec


def test_the_trials_are_drawn_by_their_outcome_and_the_best_in_front(view: StudyView) -> None:
    (axes,) = learning_curves_figure(view, LOSS).axes
    assert legend(axes) == ["best, trial 0: 0.5000", "running (1)", "complete (1)", "diverged (1)", "pruned (1)"]
    best = max(axes.lines, key=lambda line: line.get_zorder())
    assert list(best.get_ydata()) == [3.0, 2.0, 0.5]
    crossed = [line for line in axes.lines if line.get_marker() == "x"]
    assert [list(line.get_ydata()) for line in crossed] == [[4.0]]
    assert axes.get_ylabel() == "validation loss (nats per token)"
    assert axes.get_xlabel() == "report (of 3)"


def test_the_value_beside_a_curve_is_the_trial_s_own_and_marked(view: StudyView) -> None:
    """A complete trial's is that of its best report, which need not be the last one."""
    best = replace(view.trials[0], reports={1: 3.0, 2: 0.5, 3: 0.6}, facts=view.trials[0].facts | {"best_report": 2})
    (axes,) = learning_curves_figure(replace(view, trials=[best, *view.trials[1:]]), LOSS).axes
    assert legend(axes)[0] == "best, trial 0: 0.5000"
    line = max(axes.lines, key=lambda line: line.get_zorder())
    assert [line.get_ydata()[index] for index in line.get_markevery()] == [0.5]
    foreign = replace(best, facts={"best_report": ["what?"]})
    (axes,) = learning_curves_figure(replace(view, trials=[foreign, *view.trials[1:]]), LOSS).axes
    assert legend(axes)[0] == "best, trial 0: 0.6000"


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("facts", [{}, {"defaults": True}])
def test_a_trial_of_every_outcome_is_drawn(view: StudyView, outcome: str, facts: dict[str, Any]) -> None:
    """Also one that waits for the next worker, with the reports of its first attempt."""
    trial = replace(view.trials[1], outcome=outcome, reports={1: 2.5}, facts=facts)
    (axes,) = learning_curves_figure(replace(view, trials=[view.trials[0], trial]), LOSS).axes
    assert outcome in " ".join(legend(axes)) or (outcome == "complete" and "the file's own" in legend(axes)[1])


def test_the_files_own_values_stand_out(view: StudyView) -> None:
    trials = [replace(t, facts={"defaults": True} | t.facts) if t.number == 5 else t for t in view.trials]
    (axes,) = learning_curves_figure(replace(view, trials=trials), LOSS).axes
    assert legend(axes)[:2] == ["best, trial 0: 0.5000", "the file's own values: 2.0000"]
    assert "complete (1)" not in legend(axes)
    own, best = (next(line for line in axes.lines if line.get_color() == color) for color in (ORANGE, BLUE))
    assert own.get_zorder() > best.get_zorder()
    assert own.get_linestyle() == "--", "where both are the same curve, both are seen"


def test_a_trial_that_got_lost_does_not_press_the_others_flat(view: StudyView) -> None:
    trials = [replace(t, reports={1: 9000.0}) if t.number == 1 else t for t in view.trials]
    (axes,) = learning_curves_figure(replace(view, trials=trials), LOSS).axes
    assert axes.get_ylim()[1] < 10
    assert words_of(axes) == ["1 trial reaches above this"]


def test_of_few_trials_all_are_seen(view: StudyView) -> None:
    losses = {0: {1: 4.25, 2: 4.06}, 1: {1: 4.65, 2: 4.46}, 5: {1: 5.9, 2: 5.7}, 6: {1: 5.6, 2: 5.5}}
    done = next(t for t in view.trials if t.outcome == "complete")
    trials = [replace(done, number=n, reports=losses.get(n, {})) for n in range(7)]
    (axes,) = learning_curves_figure(replace(view, trials=trials), LOSS).axes
    assert words_of(axes) == []
    assert axes.get_ylim()[1] > 5.9
    many = [replace(done, number=n, reports=losses.get(n, {1: 4.3, 2: 4.2})) for n in range(12)]
    (axes,) = learning_curves_figure(replace(view, trials=many), LOSS).axes
    assert words_of(axes) == ["2 trials reach above this"]


def test_a_complete_trial_that_got_lost_does_not_either(view: StudyView) -> None:
    trials = [replace(t, reports={1: 19.0, 2: 18.0}) if t.number == 5 else t for t in view.trials]
    (axes,) = learning_curves_figure(replace(view, trials=trials), LOSS).axes
    assert axes.get_ylim()[1] < 18
    assert words_of(axes) == ["1 trial reaches above this"]


def test_before_the_first_report_there_are_words(view: StudyView) -> None:
    with pytest.raises(NothingToDraw, match="no trial has reported anything yet"):
        learning_curves_figure(replace(view, trials=[]), LOSS)


@pytest.fixture
def two_goals(view: StudyView) -> StudyView:
    """Trial 0 has the lower loss, trial 5 the higher accuracy, trial 1 neither."""
    goals = {0: (0.5, 0.6), 1: (0.9, 0.5), 5: (0.7, 0.8)}
    trials = [
        replace(
            trial, outcome="complete", values=values, facts={"report 1": {"loss": values[0], "accuracy": values[1]}}
        )
        for trial in view.trials
        if (values := goals.get(trial.number))
    ]
    return with_spec(replace(view, trials=trials), objective=["loss", "accuracy"])


def test_several_objectives_have_a_picture_each(two_goals: StudyView) -> None:
    for objective, told in {"loss": "best, trial 0: 0.5000", "accuracy": "best, trial 0: 60.0%"}.items():
        (axes,) = learning_curves_figure(two_goals, METRICS[objective]).axes
        assert legend(axes)[0] == told
        assert axes.get_ylabel().startswith(objective if objective != "loss" else "validation loss")


def test_what_two_objectives_cost_each_other_is_drawn(two_goals: StudyView, view: StudyView) -> None:
    (axes,) = trade_off_figure(two_goals).axes
    assert words_of(axes) == ["trial 0", "trial 5"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("validation loss (nats per token)", "accuracy")
    with pytest.raises(NothingToDraw, match="two objectives"):
        trade_off_figure(view)
