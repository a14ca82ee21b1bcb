"""A small trial that is interrupted, the same one that is not, and what to look at in both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpsearch.bridge.protocol import Began, Phase, Progress, Reported
from hpsearch.folders import JobFolder
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import Record, TrialConfig, TrialResult
from tests.integration.conftest import text_config
from tests.integration.inside import Answering

Rows = tuple[Path, Path]
STATE = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
"""Of a checkpoint, what training goes on from."""


class Killed(BaseException):
    """Nobody catches it, as nobody catches a SIGKILL."""


def config_of(rows: Rows, *earlier: Path, **changes: Any) -> TrialConfig:
    """Six steps, half an epoch, with a report at each second, validated in four batches."""
    budget = BudgetSpec(max_steps=6, reports=3)
    return text_config(
        rows,
        **{
            "budget": budget,
            "earlier": [*earlier],
            "training__batch_size": 2,
            "training__evaluation_batch_size": 2,
            **changes,
        },
    )


def assert_same_bits(folder: JobFolder, whole: JobFolder) -> None:
    assert folder.journal.read_bytes() == whole.journal.read_bytes()
    assert folder.read_history() == whole.read_history()
    for name in STATE:
        one, other = (each.checkpoints / "checkpoint-6" / name for each in (folder, whole))
        assert one.read_bytes() == other.read_bytes(), name
    assert folder.read(TrialResult).reports == folder.read_journal()


def begun(worker: Answering) -> list[int]:
    """The numbers of the reports that it began with."""
    (event,) = (event for event in worker.sent if isinstance(event, Began))
    return [report.step for report in event.reports]


def reported(worker: Answering) -> list[int]:
    return [event.step for event in worker.sent if isinstance(event, Reported)]


def steps(worker: Answering) -> list[int]:
    return [event.step for event in worker.sent if isinstance(event, Progress)]


def at_validation(number: int) -> Callable[[Record], bool]:
    """Holds from the beginning of the validation with that number, counted from 1."""
    seen = 0

    def act(event: Record) -> bool:
        nonlocal seen
        seen += isinstance(event, Phase) and event.name == "validating" and event.done == 0
        return seen >= number

    return act


def kill(when: Callable[[Record], bool]) -> Callable[[Record], bool]:
    def act(event: Record) -> bool:
        if when(event):
            raise Killed
        return False

    return act


def names(folder: JobFolder) -> list[str]:
    return sorted(path.name for path in folder.checkpoints.glob("checkpoint-*"))
