"""The trainer's end of the bridge: what its worker said before it listened is not lost."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

from hpsearch.bridge.protocol import Continue, Reported, Run, Stop, to_line
from hpsearch.train.channel import Channel


class Heard(Channel):
    """Has read everything before it is asked anything; its worker lives on."""

    def __init__(self, *said: Run | Stop | Continue) -> None:
        self.ended = threading.Event()
        super().__init__(BytesIO(b"".join(map(to_line, said))), BytesIO())
        assert self.ended.wait(10)

    def _worker_is_gone(self) -> None:  # type: ignore[override]
        self.ended.set()


def test_a_stop_that_came_while_the_trainer_was_starting_is_heard() -> None:
    channel = Heard(Run(folder=Path("a")), Stop())
    assert channel.next_job() == Run(folder=Path("a"))
    assert channel.stop_wanted


def test_a_stop_is_for_the_job_that_it_was_said_to() -> None:
    channel = Heard(Run(folder=Path("a")), Stop(), Run(folder=Path("b")))
    channel.next_job()
    assert channel.next_job() == Run(folder=Path("b"))
    assert not channel.stop_wanted


def test_a_stop_between_a_report_and_its_answer_is_no_answer() -> None:
    channel = Heard(Run(folder=Path("a")), Stop(), Continue())
    channel.next_job()
    assert channel.report(Reported(step=1, num_reports=2, loss=1.0))
    assert channel.stop_wanted
