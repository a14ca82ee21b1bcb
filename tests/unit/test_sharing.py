"""What a user sees about several workers on one card."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpsearch.search.sharing import sharing
from hpsearch.search.view import StudyView
from hpsearch.trial import GIB, Fit
from hpsearch.watch.tables import study_panel
from tests.unit.view_fixtures import finished, seen

H100 = "NVIDIA H100"


def after(view: StudyView, *taken_gib: float, device: str = H100, room_gib: float = 70.0) -> StudyView:
    fits = [
        Fit(
            device=device,
            shape="s",
            rows=16,
            gradient_checkpointing=False,
            predicted_bytes=int(taken * GIB),
            room_bytes=int(room_gib * GIB),
        )
        for taken in taken_gib
    ]
    trials = [
        replace(trial, facts={**trial.facts, "fit": fit.model_dump_json()})
        for trial, fit in zip(view.trials, fits, strict=False)
    ]
    return replace(view, trials=[*trials, *view.trials[len(fits) :]])


def test_the_most_demanding_trial_counts(view: StudyView) -> None:
    line = "a trial takes up to 20.0 of 70.0 GiB on a NVIDIA H100: hpsearch run --workers-per-device 3 would fit"
    assert sharing(after(view, 6.0, 20.0, 3.0)) == line
    assert line in seen(study_panel(after(view, 6.0, 20.0, 3.0)))
    assert line not in seen(study_panel(finished(after(view, 6.0, 20.0, 3.0))))


@pytest.mark.parametrize(
    ("taken_gib", "device"),
    [((40.0,), H100), ((), H100), ((3.0,), "CPU, 2 threads"), ((3.0,), f"{H100}, one of 3 parts")],
    ids=["large trials", "no trial yet", "no card", "shared already"],
)
def test_nothing_is_said(view: StudyView, taken_gib: tuple[float, ...], device: str) -> None:
    assert sharing(after(view, *taken_gib, device=device)) is None
