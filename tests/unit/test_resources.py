"""What each trial took: memory with the study's own limit, and time in its parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.axes import Axes

from hpsearch.errors import NothingToDraw
from hpsearch.search.facts import facts
from hpsearch.search.view import StudyView
from hpsearch.spec.metrics import LOSS
from hpsearch.trial import GIB, Outcome, Pace, TrialResult
from hpsearch.watch.plots import memory_figure, time_figure
from hpsearch.watch.plots.resources import FEW_TRIALS
from tests.unit.view_fixtures import with_spec


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_peak_of_each_trial_stands_on_its_device_and_on_its_host(view: StudyView) -> None:
    device, host = memory_figure(view).axes
    assert legend(device) == ["complete (2)", "out of memory, need unknown (1)"]
    assert list(device.lines[0].get_xdata()) == [0, 5]
    assert list(device.lines[0].get_ydata()) == [2.5, 3.0]
    assert list(host.lines[0].get_ydata()) == [1.0, 1.0]
    assert (device.get_ylabel(), host.get_ylabel()) == ("device memory (GiB)", "host memory (GiB)")


def test_the_studys_own_limit_is_a_line_and_what_needed_more_is_marked(view: StudyView) -> None:
    needed = {"bytes_needed": 9 * GIB}
    trials = [replace(t, facts=t.facts | needed) if t.outcome == "out of memory" else t for t in view.trials]
    device, _ = memory_figure(with_spec(replace(view, trials=trials), budget={"memory_gib": 8})).axes
    assert legend(device) == ["complete (2)", "out of memory (1)", "budget.memory_gib: 8"]
    assert list(device.lines[1].get_ydata()) == [9.0]
    assert device.get_ylim()[1] > 9


def test_where_no_card_is_there_is_no_panel_for_one(view: StudyView) -> None:
    trials = [replace(t, facts=t.facts | {"ledger.peak_device_gib": 0.0}) for t in view.trials if t.number == 0]
    (host,) = memory_figure(replace(view, trials=trials)).axes
    assert host.get_ylabel() == "host memory (GiB)"
    with pytest.raises(NothingToDraw, match="no trial has reported its memory yet"):
        memory_figure(replace(view, trials=[]))


def test_the_time_of_each_trial_is_reported_and_its_parts_where_they_are_known(view: StudyView) -> None:
    (axes,) = time_figure(view).axes
    assert axes.get_ylabel() == "seconds"
    assert [bar for container in axes.containers for bar in container] == []
    pace = Pace(start_s=9, base_s=[10.0], fit_s=[2.0], step_s=[1.0], validation_s=[20.0, 28.0], whole_s=300.0)
    parts = facts(TrialResult(outcome=Outcome.COMPLETE, pace=pace), LOSS)
    trials = [replace(t, facts=t.facts | parts, seconds=390.0) if t.number == 0 else t for t in view.trials]
    (axes,) = time_figure(replace(view, trials=trials)).axes
    assert axes.get_ylabel() == "minutes"
    found = {container.get_label(): [round(bar.get_height(), 2) for bar in container] for container in axes.containers}
    assert found == {"loading": [0.2], "training": [4.0], "validation": [0.8], "starts and earlier attempts": [1.5]}
    assert axes.lines[0].get_ydata()[0] > 6.5, "the bar ends at the time that tables say"
    with pytest.raises(NothingToDraw, match="no trial has ended yet"):
        time_figure(replace(view, trials=[]))


def test_many_trials_are_points(view: StudyView) -> None:
    done = next(trial for trial in view.trials if trial.outcome == "complete")
    trials = [replace(done, number=number) for number in range(FEW_TRIALS + 1)]
    (axes,) = time_figure(replace(view, trials=trials)).axes
    assert len(axes.collections) == 0
    assert len(axes.lines[0].get_xdata()) == FEW_TRIALS + 1
