"""`hpsearch status STUDY --plots [FOLDER]`: what is drawn where, what is said instead, and that it only reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.picture_fixtures import training
from tests.unit.worker_fixtures import Demo, plays

Main = Callable[..., tuple[object, str, str]]


@pytest.mark.usefixtures("undrawn")
def test_every_picture_has_a_line_and_nothing_is_written_into_the_store(main: Main, demo: Demo) -> None:
    demo.worker(plays(training(3.0, 2.0, 1.0))).step()
    before = demo.store.optuna.get_study_system_attrs(demo.study.study_id)
    with demo.store.optuna.engine.begin():  # a writer's transaction: SQLite has one at a time, and readers beside it
        code, said, complained = main("status", "demo", "--plots", "looked/at")
    assert (code, complained) == (0, "")
    assert said.splitlines() == [
        "learning-curves: looked/at/learning-curves.png and .svg",
        "importance: not yet: importance needs two complete trials with different results",
        "memory: not yet: no trial has reported its memory yet",
        "time: looked/at/time.png and .svg",
        "timeline: looked/at/timeline.png and .svg",
    ]
    assert len(list(Path("looked/at").iterdir())) == 6
    assert demo.store.optuna.get_study_system_attrs(demo.study.study_id) == before


@pytest.mark.usefixtures("undrawn")
def test_the_usual_folder_is_the_studys_own_and_before_the_first_trial_there_are_words(main: Main, demo: Demo) -> None:
    code, said, _ = main("status", "demo", "--plots")
    assert (code, said.count(": not yet: ")) == (0, 5)
    assert not demo.study.storage.plots("demo").exists()
    demo.claim("host:1:1.00")
    assert main("status", "demo", "--plots")[1].endswith("timeline.png and .svg\n")
    assert sorted(file.name for file in demo.study.storage.plots("demo").iterdir()) == ["timeline.png", "timeline.svg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plots"], "--plots draws one study, once: hpsearch status STUDY --plots [FOLDER]"),
        (["demo", "--plots", "--watch"], "--plots draws one study, once"),
        (["demo", "--plots", "--json"], "--plots draws one study, once"),
        (["demo", "folder"], "folder: a folder goes with --plots"),
        (["damo", "--plots"], "has no study 'damo'"),
        (["demo", "--plots", "file.txt"], "--plots: file.txt can't be written"),
    ],
)
def test_what_can_not_be_drawn_so_is_refused_in_words(main: Main, demo: Demo, arguments: list[str], words: str) -> None:
    demo.claim("host:1:1.00")
    Path("file.txt").touch()
    code, _, complained = main("status", *arguments)
    assert code == 2
    assert words in complained
