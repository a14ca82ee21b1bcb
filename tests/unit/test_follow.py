"""One job, followed from its first message to its result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpsearch.bridge.follow import run_to_end
from hpsearch.bridge.protocol import Continue, Event
from hpsearch.bridge.stopping import StopFlag
from hpsearch.folders import JobFolder
from hpsearch.spec.limits import SilenceSpec
from hpsearch.trial import Outcome
from tests.unit.worker_fixtures import ScriptedTrainer, Starter, ending, report


def test_every_report_is_answered(tmp_path: Path) -> None:
    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        for step in (1, 2, 3):
            yield report(step, 9.0)
            assert trainer.told[step:] == [Continue()]
        yield from ending(folder, Outcome.COMPLETE, 9.0, 9.0, 9.0)

    start = Starter(lambda: ScriptedTrainer(play))
    result = run_to_end(JobFolder(tmp_path), start, StopFlag(), lambda _: None, SilenceSpec())
    assert [report.loss for report in result.reports] == [9.0, 9.0, 9.0]
