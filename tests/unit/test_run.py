"""The verbs that run for long: `run` keeps its workers going, `train` says how the training ended."""

from __future__ import annotations

import io
import math
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from hpsearch.bridge.stopping import StopFlag
from hpsearch.cli import run as run_verb
from hpsearch.cli import train as train_verb
from hpsearch.errors import HpsearchError, InputError
from hpsearch.launch.crew import MAX_FAILURES, Crew
from hpsearch.trial import Outcome
from hpsearch.watch.console import open_console
from hpsearch.worker.endings import CONTINUES, NO_MORE_TRIALS
from hpsearch.worker.relay import Relay
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.outage_fixtures import Outage
from tests.unit.worker_fixtures import Demo, Play, ends, plays, steadily


@dataclass
class Job:
    """A worker that another process would be: it fails or ends at the look that `run` takes at it."""

    exit_codes: list[int | None]
    """At each look; None while it runs."""
    log: Path = Path("worker.txt")
    stops: list[bool] = field(default_factory=list)
    """For each time that it was asked to stop: whether at once."""

    def _look(self) -> int | None:
        return self.exit_codes[0]

    @property
    def is_running(self) -> bool:
        return self._look() is None

    @property
    def exit_code(self) -> int | None:
        return self._look()

    @property
    def has_failed(self) -> bool:
        return self._look() not in (None, 0)

    @property
    def is_final(self) -> bool:
        return self._look() in (NO_MORE_TRIALS, InputError.exit_code)

    @property
    def was_killed(self) -> bool:
        return (self._look() or 0) < 0

    def stop(self, *, now: bool = False) -> None:
        self.stops.append(now)

    def last_line(self) -> str:
        return "Bus error"


class Watch(StopFlag):
    """Between two looks: time passes for every job, and something may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.happens: list[Callable[[], Any]] = []

    def wait(self, seconds: float) -> None:
        assert 0 < seconds < 1
        for job in self.jobs:
            job.exit_codes = job.exit_codes[1:] or job.exit_codes
        if self.happens:
            self.happens.pop(0)()


@dataclass
class Running:
    """`hpsearch run` at work on the demo, with jobs in place of worker processes."""

    demo: Demo
    console: Console = field(default_factory=lambda: open_console(file=io.StringIO(), width=200))
    stop: Watch = field(default_factory=Watch)
    now: float = 0.0

    @cached_property
    def relay(self) -> Relay:
        return Relay(self.demo.store, self.stop)

    def start(self, *jobs: list[int | None], num_workers: int = 1, log: Path = Path("worker.txt")) -> Crew:
        """Each job that is started takes the next list of exit codes."""
        scripts = list(jobs)

        def start(*_: object) -> Job:
            self.stop.jobs.append(Job(scripts.pop(0), log))
            return self.stop.jobs[-1]

        def clock() -> float:
            """A minute goes by from look to look."""
            self.now += 60
            return self.now

        return Crew(start, num_workers, self.console.print, clock)

    def work(self, *jobs: list[int | None], **how: Any) -> list[Job]:
        """Gives the jobs that were started."""
        stored = self.demo.store.studies.find("demo")
        assert stored is not None
        crew = self.start(*jobs, **how)
        run_verb._work(self.console, self.relay, lambda: run_verb._read(self.demo.store, stored), crew, self.stop)
        run_verb._refuse_failures(run_verb._read(self.demo.store, stored), crew, self.stop)
        return self.stop.jobs

    @property
    def said(self) -> str:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue()


@pytest.fixture
def running(demo: Demo) -> Iterator[Running]:
    running = Running(demo)
    yield running
    running.relay.close()


def test_run_waits_until_every_worker_has_ended(running: Running) -> None:
    jobs = running.work([None, 0], [None, None, None, 0], num_workers=2)
    assert [job.exit_codes for job in jobs] == [[0], [0]]


def test_a_worker_that_dies_is_replaced_and_it_is_said_why(running: Running) -> None:
    jobs = running.work([None, -9], [None, 0])
    assert len(jobs) == 2
    assert "worker 0 ended: Bus error; another one starts" in running.said


def test_a_trainer_that_died_is_said_as_its_workers_log_says_it(running: Running, tmp_path: Path) -> None:
    log = tmp_path / "worker.txt"
    log.write_text(f"09:00:00 trial 7: the trainer died long ago; {CONTINUES}\n")
    died = f"09:18:07 trial 1: the trainer was killed (signal 9); {CONTINUES}"

    def write() -> None:
        log.write_text(log.read_text() + f"{died}\n09:18:08 trial 1 starts: lora.r 32\n")

    running.stop.happens.append(write)
    running.work([None, None, None, 0], log=log)
    assert running.said.count(died) == 1
    assert "long ago" not in running.said
    assert "starts: lora.r" not in running.said


def test_a_worker_that_keeps_dying_is_given_up_and_the_others_go_on(running: Running) -> None:
    with pytest.raises(HpsearchError, match=r"workers keep failing: Bus error\nthe log is worker.txt"):
        running.work([*[None] * 60, 0], *[[1]] * MAX_FAILURES, num_workers=2)
    assert len(running.stop.jobs) == 1 + MAX_FAILURES
    assert running.stop.jobs[0].exit_codes == [0]
    assert "8 times in a row: it is not replaced" in running.said


@pytest.mark.parametrize("pause_s", [1.0, 60.0])
def test_a_worker_that_is_killed_again_and_again_is_replaced_each_time(pause_s: float) -> None:
    """A night of preemptions; sooner and sooner after its start, it is replaced later and later."""
    now = 0.0
    jobs: list[Job] = []
    said: list[str] = []

    def start(_: int) -> Any:
        jobs.append(Job([None]))
        return jobs[-1]

    crew = Crew(start, 1, said.append, lambda: now)
    for _ in range(500):
        now += pause_s
        jobs[-1].exit_codes = [-9]
        started = len(jobs)
        while len(jobs) == started:
            assert crew.works
            crew.look(stopping=False)
            now += 1
    waits = [line.rpartition("starts in ")[2] for line in said]
    assert len(jobs) == 501
    assert set(waits[:1]) == {"1 s"}
    assert waits[-1] == ("120 s" if pause_s < 30 else "1 s")


def test_a_worker_whose_device_is_set_aside_is_not_replaced(running: Running) -> None:
    store, study_id = running.demo.store, running.demo.study.study_id
    for name in ("host:1:1.00", "host:2:1.00"):
        store.workers.register(name, study_id, "a GPU")
    assert not store.workers.set_aside("host:1:1.00", "no space left")
    with pytest.raises(
        HpsearchError, match=r"all devices of this machine are set aside:\n  a GPU: no space left\nfix them"
    ):
        running.work([None, NO_MORE_TRIALS])
    assert len(running.stop.jobs) == 1


def test_a_paused_study_ends_the_run_with_the_reason_and_what_to_do(running: Running) -> None:
    pause = running.demo.store.orders.pause
    running.stop.happens = [lambda: pause(running.demo.study.study_id, "every device is set aside")]
    with pytest.raises(HpsearchError, match=r"study demo is paused: every device is set aside\nhpsearch resume demo"):
        running.work([None, NO_MORE_TRIALS])


def test_a_study_that_finished_although_it_was_paused_has_a_result(running: Running) -> None:
    running.demo.run(plays(ends(Outcome.COMPLETE, 0.5)))
    running.demo.store.orders.pause(running.demo.study.study_id, "by hpsearch pause")
    assert len(running.work([None, NO_MORE_TRIALS])) == 1


def test_a_stop_is_passed_on_once_and_an_urgent_one_as_such(running: Running) -> None:
    running.stop.happens = [running.stop.ask, lambda: None, lambda: None, running.stop.ask]
    (job,) = running.work([*[None] * 8, -15])
    assert job.stops == [False, True, False]  # the last at the end, when it is gone
    assert running.said.count("stopping: saving the running trials … (Ctrl-C again to stop at once)") == 1
    assert running.said.count("stopping at once") == 1


def test_an_outage_does_not_end_a_run(running: Running, outage: Outage) -> None:
    running.stop.happens = [lambda: setattr(outage, "is_down", True), lambda: setattr(outage, "is_down", False)]
    running.stop.happens[1:1] = [lambda: None] * 3
    (job,) = running.work([*[None] * 6, 0])
    assert job.exit_codes == [0]
    assert running.said.count("the server closed the connection; the workers continue") == 1


def test_a_store_that_never_answers_holds_up_no_stop(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    monkeypatch.setattr(run_verb, "_LONGEST_LOOK_S", 0.01)
    monkeypatch.setattr(Relay.is_answered, "__defaults__", (0.01,))
    monkeypatch.setattr(run_verb, "_read", lambda *_: silent.wait())
    running.stop.happens = [lambda: None, running.stop.ask]
    start, stop = running.start([None] * 6 + [0]), running.stop
    run_verb._work(running.console, running.relay, lambda: run_verb._read(None, None), start, stop)  # type: ignore[arg-type]
    assert [job.stops for job in stop.jobs] == [[False, False]]
    silent.set()


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A verb listens to signals; this process's own handlers come back afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


Train = Callable[..., str]


@pytest.fixture
def train(desk: Desk, workplace: Path, own_signals: None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Train:
    """`hpsearch train study.yaml --no-search` with a trainer that follows a script; gives what it says."""
    assert (workplace, own_signals) == (desk.folder, None)

    def training(*scripts: Play, **flags: Any) -> str:
        start = plays(*scripts)
        monkeypatch.setattr(train_verb, "trainer_starter", lambda _: start)
        train_verb.train(str(desk.file().path), no_search=True, **flags)
        return str(capsys.readouterr().out)

    return training


@pytest.mark.usefixtures("undrawn")
def test_train_says_what_came_out_and_what_comes_next(train: Train) -> None:
    said = train(inspecting(), steadily(0.9, 0.7, 0.8))
    assert "trained: best validation loss 0.7000 at report 2 of 3; 3 steps" in said
    assert "Next: hpsearch evaluate demo-defaults" in said
    Path("demo-defaults").mkdir()
    assert "Next: hpsearch evaluate storage/runs/demo-defaults" in train(), "here the name is another folder"
    assert train().startswith("already trained: best validation loss 0.7000")


def test_a_training_that_was_stopped_ends_with_130(train: Train) -> None:
    with pytest.raises(typer.Exit) as ended:
        train(inspecting(), ends(Outcome.STOPPED))
    assert ended.value.exit_code == 130


def test_a_training_that_diverged_is_a_failure(train: Train) -> None:
    with pytest.raises((HpsearchError, typer.Exit)):
        train(inspecting(), ends(Outcome.DIVERGED, math.nan, reason="the loss became nan"))
