"""A study with a trial of every kind, as `hpsearch status` reads it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from hpsearch.bridge.protocol import Event
from hpsearch.folders import JobFolder
from hpsearch.search.view import StudyView
from hpsearch.store import Activity, Store
from hpsearch.trial import GIB, Outcome
from hpsearch.watch.console import open_console
from tests.unit.worker_fixtures import Killed, Play, ScriptedTrainer, emptied, ending, ledger, new_demo, plays, report

GPU_WORKER = "gpu-box:4242:1.00"


def reporting(outcome: Outcome | None, *losses: float, **more: Any) -> Play:
    """Reports these losses, then ends so; without an outcome its worker is killed."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        for step, loss in enumerate(losses, start=1):
            yield report(step, loss)
        if outcome is None:
            raise Killed
        yield from ending(folder, outcome, *losses, **more)

    return play


def watched(store: Store, folder: Path) -> StudyView:
    """Eight trials are wanted: five are done, one was given up, one runs and one waits."""
    demo = new_demo(emptied(store), folder, trials=8)
    rates = (1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 1e-5)
    demo.enqueue(*({"training.learning_rate": rate, "lora.r": 16} for rate in rates))
    worker = demo.worker(
        plays(
            reporting(Outcome.COMPLETE, 3.0, 2.0, 0.5, ledger=ledger(2.5)),
            reporting(Outcome.PRUNED, 4.0),
            reporting(Outcome.DIVERGED, 2.0, math.nan),
            reporting(Outcome.OUT_OF_MEMORY, clean=False, reason="tried to allocate 9 GiB"),
            reporting(Outcome.FAILED, clean=False, reason="Bus error", traceback="Traceback …"),
            reporting(Outcome.COMPLETE, 3.0, 2.0, ledger=ledger(3.0, ["a hook"])),
            reporting(None, 1.5),
        )
    )
    for _ in range(6):
        worker.step()
    with pytest.raises(Killed):
        worker.step()
    demo.store.workers.register(GPU_WORKER, demo.study.study_id, "NVIDIA H200")
    doing = Activity(doing="training", trial=6, done=3, total=12, loss=1.43214, host_bytes=GIB, device_bytes=3 * GIB)
    demo.store.workers.give_sign(GPU_WORKER, doing, "NVIDIA H200")
    trials = [replace(trial, seconds=65.0 if trial.is_finished else None) for trial in demo.view.trials]
    return replace(demo.view, trials=trials)  # a slow machine takes longer, and it would show


def with_spec(view: StudyView, **changes: Any) -> StudyView:
    """The same view of a study whose file says something else."""
    spec = type(view.study.spec).model_validate(view.study.spec.model_dump() | changes)
    return replace(view, study=replace(view.study, spec=spec))


def finished(view: StudyView) -> StudyView:
    """The same view once every trial that is wanted has ended."""
    done = [trial for trial in view.trials if trial.is_finished]
    return replace(view, trials=done, slots=replace(view.slots, wanted=len(done), finished=len(done)))


def seen(*shown: RenderableType, width: int = 120) -> str:
    """What a terminal of this width shows."""
    console = open_console(record=True, width=width, file=io.StringIO())
    for renderable in shown:
        console.print(renderable)
    return console.export_text()


def cells(shown: str) -> list[list[str]]:
    return [line.split() for line in shown.splitlines() if line.strip()]


def lines_of(console: Console, show: Callable[[], None]) -> list[str]:
    """The lines that are new on a console after something was shown."""
    assert isinstance(console.file, io.StringIO)
    before = len(console.file.getvalue())
    show()
    return console.file.getvalue()[before:].splitlines()


def plain_console() -> Console:
    """A console that is no terminal."""
    return open_console(file=io.StringIO(), width=100)
