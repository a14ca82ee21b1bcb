"""What each device did when: from what is kept of every claim to a picture of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.axes import Axes
from sqlalchemy import text

from hpsearch.errors import NothingToDraw
from hpsearch.search.timeline import Timeline, read_timeline, timeline_of
from hpsearch.search.times import RUNNING, SILENT, ends
from hpsearch.store import StoredWorker
from hpsearch.store.attempts import StoredAttempt
from hpsearch.watch.plots import timeline_figure
from hpsearch.watch.plots.timeline import MOST_IN_A_ROW, MOST_ROWS
from tests.unit.picture_fixtures import stored_worker, timeline
from tests.unit.view_fixtures import reporting
from tests.unit.worker_fixtures import Demo, plays, steadily


def begun(slot: int, worker: str, began_at: float, ended_at: float) -> StoredAttempt:
    return StoredAttempt(slot, slot, 1, worker, began_at, ended_at, "complete")


def rows_of(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def told(figure_axes: Axes) -> list[str]:
    (legend,) = figure_axes.figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_each_attempt_is_a_bar_on_its_device_from_its_claim_to_its_end() -> None:
    found = timeline()
    assert found.devices == ["box #1, H100", "box #2, H100"]
    assert (found.began_at, found.seconds, found.pauses) == (1000.0, 250.0, [])
    assert [
        (bar.device[:6], bar.trial, bar.began_s, bar.ended_s, bar.ending, bar.is_takeover) for bar in found.bars
    ] == [
        ("box #1", 0, 0.0, 30.0, SILENT, False),
        ("box #2", 1, 10.0, 50.0, "pruned", False),
        ("box #2", 0, 50.0, 60.0, "stopped", True),
        ("box #1", 0, 100.0, 200.0, "complete", True),
        ("box #1", 2, 200.0, 250.0, RUNNING, False),
    ]


def test_a_worker_that_fell_silent_does_not_run_a_trial_until_now() -> None:
    lost = replace(stored_worker("box:1:1", 0.0, 30.0), seconds_since_beat=600.0)
    found = timeline_of([StoredAttempt(0, None, 1, "box:1:1", 10.0, None, None)], [lost], 630.0)
    assert [(bar.trial, bar.seconds, bar.ending) for bar in found.bars] == [(None, 20.0, SILENT)]
    of_nobody = timeline_of([begun(0, "gone:1:1", 10.0, 20.0)], [], 630.0)
    assert of_nobody.devices == ["unknown device"]


def test_without_a_word_an_attempt_ends_with_its_worker_or_at_the_next_claim_of_its_trial() -> None:
    live, lost = stored_worker("box:1:1", 0.0, 99.0), stored_worker("box:2:1", 0.0, 30.0, gone=True)
    attempts = [
        StoredAttempt(0, 0, 1, "box:1:1", 10.0, None, None),
        StoredAttempt(0, 0, 2, "box:2:1", 20.0, None, None),
        StoredAttempt(1, 1, 1, "box:1:1", 25.0, None, None),
        StoredAttempt(2, 2, 1, "box:2:1", 40.0, None, None),
    ]
    assert ends(attempts, [live, lost], {"box:1:1"}, 99.0) == [
        (20.0, SILENT),  # of a worker that lives, and lost its trial
        (30.0, SILENT),
        (99.0, RUNNING),
        (40.0, SILENT),  # the last sign of life came before its claim
    ]


def test_a_worker_that_goes_on_with_its_own_trial_takes_nothing_over() -> None:
    died = StoredAttempt(0, 0, 1, "box:1:1", 0.0, 10.0, "trainer died")
    again = replace(begun(0, "box:1:1", 10.0, 20.0), attempt=2)
    found = timeline_of([died, again], [stored_worker("box:1:1", 0.0, 20.0)], 20.0)
    assert [bar.is_takeover for bar in found.bars] == [False, False]


def test_workers_that_share_a_card_have_lanes_and_those_one_after_the_other_share_one() -> None:
    attempts = [begun(0, "box:1:1", 0, 50), begun(1, "box:2:1", 10, 60), begun(2, "box:3:1", 55, 90)]
    workers = [stored_worker(f"box:{number}:1", number, 99, gone=True) for number in (1, 2, 3)]
    found = timeline_of(attempts, workers, 100)
    assert [(bar.trial, bar.lane) for bar in found.bars] == [(0, 0), (1, 1), (2, 0)]
    (axes,) = timeline_figure("demo", found).axes
    assert rows_of(axes) == ["box, H100", ""]


def test_a_worker_whose_trainer_starts_is_on_the_device_that_others_had_before() -> None:
    before, starting = (stored_worker(f"box:{number}:1", number, 99, gone=True) for number in (1, 2))
    attempts = [begun(0, "box:1:1", 0, 10), begun(1, "box:2:1", 20, 30)]
    found = timeline_of(attempts, [before, replace(starting, device="starting")], 99)
    assert found.devices == ["box, H100"]
    elsewhere = replace(starting, device="starting", device_uuid="b")
    assert timeline_of(attempts, [before, elsewhere], 99).devices == ["box, H100", "box, starting"]


def test_a_long_pause_of_everybody_is_taken_out_and_said() -> None:
    attempts = [begun(0, "box:1:1", 0, 100), begun(1, "box:1:1", 110, 200), begun(2, "box:1:1", 90000, 90100)]
    found = timeline_of(attempts, [stored_worker("box:1:1", 0, 90100)], 90100)
    assert found.pauses == [(200.0, 89800.0)]
    assert [(bar.began_s, bar.ended_s) for bar in found.bars] == [(0, 100), (110, 200), (200, 300)]
    (axes,) = timeline_figure("demo", found).axes
    assert "no worker for 24 h 56 min" in [text.get_text() for text in axes.texts]
    assert axes.get_xlabel() == "minutes since 1970-01-01 00:00 UTC, without long pauses"


def test_the_picture_says_how_each_ended_who_stopped_and_who_took_over() -> None:
    (axes,) = timeline_figure("demo", timeline()).axes
    assert rows_of(axes) == ["box #1, H100", "box #2, H100"]
    assert told(axes) == [
        "complete (1)",
        "pruned (1)",
        "running (1)",
        "ended without a word (1)",
        "stopped (1)",
        "taken over (2)",
    ]
    marks = {str(line.get_label()): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.lines}
    assert marks["stopped (1)"] == [(1.0, 1)]
    assert marks["died (1)"] == [(0.5, 0)]
    assert marks["taken over (2)"] == [(50 / 60, 1), (100 / 60, 0)]
    assert [text.get_text() for text in axes.texts] == ["0", "1", "0", "0", "2"]
    with pytest.raises(NothingToDraw, match="no trial has been claimed yet"):
        timeline_figure("demo", Timeline([], [], 0.0, []))


def test_what_a_trial_took_is_the_time_of_its_attempts_and_no_night_between_them(demo: Demo) -> None:
    demo.kill(demo.worker(plays(reporting(None, 1.5)), name="one:1:1.00"))
    assert demo.view.trials[0].seconds is None, "it has not ended"
    changes = (
        "UPDATE hpsearch_attempts SET began_at = began_at - 28800",
        "UPDATE hpsearch_attempts SET ended_at = began_at + 20, ending = 'stopped'",
        "UPDATE trials SET datetime_start = datetime(datetime_start, '-8 hours')",
    )
    with demo.store.optuna.engine.begin() as connection:
        for change in changes:
            connection.execute(text(change))
    demo.worker(plays(steadily(3.0, 2.0, 1.0)), name="two:1:1.00").step()
    trial = demo.view.trials[0]
    assert trial.outcome == "complete"
    assert trial.seconds is not None
    assert 20 <= trial.seconds < 600
    assert read_timeline(demo.store, demo.view).pauses != []
    with demo.store.optuna.engine.begin() as connection:
        connection.execute(text("DELETE FROM hpsearch_attempts"))
    older = demo.view.trials[0].seconds
    assert older is not None
    assert older > 8 * 3600, "where attempts are not known, from its beginning to its end"


def test_of_many_devices_and_trials_the_picture_stays_small_and_says_so() -> None:
    workers: list[StoredWorker] = []
    attempts: list[StoredAttempt] = []
    for card in range(64):
        workers.append(stored_worker(f"box:{card}:1", card, 1e6, f"card {card}"))
        num = 400 if card == 0 else 75
        attempts += [begun(1000 * card + at, f"box:{card}:1", at * 10 + card / 8, at * 10 + 9) for at in range(num)]
    figure = timeline_figure("demo", timeline_of(attempts, workers, 1e6))
    (axes,) = figure.axes
    assert len(rows_of(axes)) == MOST_ROWS
    assert axes.get_title(loc="left").splitlines()[1:] == [
        "(the 40 of 64 devices that worked the longest)",
        "(the last 24 min 59 s of 1 h 06 min)",
    ]
    assert figure.get_size_inches()[1] < 16
    assert sum(len(drawn.get_paths()) for drawn in axes.collections) == MOST_IN_A_ROW


def test_a_study_with_kills_and_takeovers_has_its_timeline(demo: Demo) -> None:
    demo.kill(demo.worker(plays(reporting(None, 1.5)), name="one:1:1.00"))
    demo.run(plays(steadily(3.0, 2.0, 1.0)), name="two:1:1.00")
    found = read_timeline(demo.store, demo.view)
    assert [(bar.trial, bar.attempt, bar.ending, bar.is_takeover) for bar in found.bars] == [
        (0, 1, SILENT, False),
        (0, 2, "complete", True),
        (1, 1, "complete", False),
        (2, 1, "complete", False),
    ]
