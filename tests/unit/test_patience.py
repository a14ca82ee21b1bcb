"""What is done before there is a worker: it waits for the store, and obeys a stop meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer

from hpsearch.bridge.stopping import StopFlag
from hpsearch.cli import run as run_verb
from hpsearch.cli.options import stoppable
from hpsearch.errors import Interrupted, StoreUnreachable
from hpsearch.watch.console import open_console
from hpsearch.worker.patience import patiently
from tests.unit.worker_fixtures import Demo, MakeDemo, plays, steadily


class Watch(StopFlag):
    """Notes what would be slept; may be asked to stop meanwhile."""

    def __init__(self, stops_after: int = 99) -> None:
        super().__init__()
        self.slept: list[float] = []
        self._stops_after = stops_after

    def wait(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) >= self._stops_after:
            self.ask()


def away(times: int) -> Callable[[], str]:
    left = [None] * times

    def do() -> str:
        if left:
            left.pop()
            raise StoreUnreachable("the store x can't be reached: no route")
        return "done"

    return do


def test_an_outage_is_waited_for_and_said_once() -> None:
    stop, said = Watch(), list[str]()
    assert patiently(away(12), 3600.0, stop, said.append) == "done"
    assert said == ["the store x can't be reached: no route; trying again for 60 minutes"]
    assert len(stop.slept) == 12
    assert max(stop.slept) <= 15


def test_without_an_outage_nothing_is_said() -> None:
    said = list[str]()
    assert patiently(away(0), 3600.0, Watch(), said.append) == "done"
    assert said == []


def test_the_limit_is_the_end() -> None:
    with pytest.raises(StoreUnreachable, match="no route"):
        patiently(away(1), 0.0, Watch(), lambda _: None)


def test_a_stop_in_an_outage_is_no_failure() -> None:
    stop = Watch(stops_after=2)
    with pytest.raises(Interrupted, match="no route") as interrupted:
        patiently(away(99), 3600.0, stop, lambda _: None)
    assert interrupted.value.exit_code == 130
    assert len(stop.slept) == 2


def test_preparation_ends_at_the_first_stop() -> None:
    stop, told = StopFlag(), list[str]()
    tell = stoppable(lambda name, _done, _total: told.append(name), stop)
    tell("reading rows", 1, 2)
    stop.ask()
    with pytest.raises(Interrupted, match="stopped while preparing the study") as interrupted:
        tell("reading rows", 2, 2)
    assert interrupted.value.exit_code == 130
    assert told == ["reading rows"]


@pytest.mark.usefixtures("undrawn")
class TestTheEndOfARun:
    @staticmethod
    def conclude(demo: Demo) -> None:
        run_verb._conclude(open_console(), demo.store, demo.view, StopFlag())

    def test_workers_that_hpsearch_stop_has_ended(self, demo: Demo, workplace: object) -> None:
        del workplace
        with pytest.raises(typer.Exit) as ended:
            self.conclude(demo)
        assert ended.value.exit_code == 130

    def test_a_limit_is_an_end_as_it_was_asked_for(self, make_demo: MakeDemo, workplace: object) -> None:
        del workplace
        self.conclude(make_demo(limits={"until": "2020-01-01"}))

    def test_a_finished_study(self, demo: Demo, workplace: object) -> None:
        del workplace
        demo.run(plays(steadily(1.0)))
        self.conclude(demo)
