"""The relay to a store that doesn't answer: only the relay's own thread waits for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event

import hpsearch.worker.relay as relay_module
import hpsearch.worker.signs as signs_module
from hpsearch.bridge.protocol import Began, Continue, Event, Progress, Stop
from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import InputError, StoreUnreachable
from hpsearch.folders import JobFolder
from hpsearch.store import Store
from hpsearch.trial import Outcome
from hpsearch.worker.endings import Step
from hpsearch.worker.relay import Relay
from tests.unit.worker_fixtures import Demo, MakeDemo, ScriptedTrainer, ending, nobody, plays, report, steadily


class Silence:
    """While it is there, every transaction of the relay's thread waits, as for a server that never answers."""

    def __init__(self) -> None:
        self._answers = threading.Event()
        self._answers.set()

    def begin(self) -> None:
        self._answers.clear()

    def end(self) -> None:
        self._answers.set()

    def wait(self, _connection: object) -> None:
        if threading.current_thread().name == "store":
            self._answers.wait()


@pytest.fixture
def silence(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    """Nobody's patience is longer than a moment here."""

    silence, engine = Silence(), empty_store.optuna.engine
    event.listen(engine, "begin", silence.wait, insert=True)
    for name in ("_ANSWER_S", "_TICK_S"):
        monkeypatch.setattr(relay_module, name, 0.02)
    monkeypatch.setattr(Relay.is_answered, "__defaults__", (0.02,))
    monkeypatch.setattr(signs_module, "_MOMENT_S", 0.02)
    before = set(threading.enumerate())
    yield silence
    silence.end()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    event.remove(engine, "begin", silence.wait)


class TestSilentStore:
    def test_the_trainer_is_answered_and_what_was_not_stored_is_stored_later(
        self, make_demo: MakeDemo, silence: Silence
    ) -> None:
        demo = make_demo(trials=1)

        def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
            yield Began()
            yield report(1, 4.0)
            silence.begin()
            for step in (2, 3):
                demo.clock.now += 10
                yield report(step, 4.0 - step)
                assert isinstance(trainer.told[-1], Continue)
                yield Progress(step=step, num_steps=9)
            silence.end()
            yield report(4, 0.5)
            yield from ending(folder, Outcome.COMPLETE, 4.0, 2.0, 1.0, 0.5)

        assert demo.run(plays(play)) is Step.FINISHED
        assert demo.trials[0].intermediate_values == {1: 4.0, 2: 2.0, 3: 1.0, 4: 0.5}
        assert demo.states == ["COMPLETE"]

    @pytest.mark.parametrize("urgent", [False, True])
    def test_a_stop_is_heard_and_the_worker_leaves(self, demo: Demo, silence: Silence, urgent: bool) -> None:
        stop = StopFlag()

        def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
            yield Began()
            silence.begin()
            yield report(1, 4.0)
            stop.ask()
            yield Progress(step=1, num_steps=9)
            assert isinstance(trainer.told[-1], Stop)
            if urgent:
                stop.ask()
                yield Progress(step=2, num_steps=9)
                pytest.fail("it waits for the trainer")
            yield from ending(folder, Outcome.STOPPED, 4.0)

        start = plays(play)
        assert demo.run(start, stop) is Step.STOPPED
        assert start.trainers[0].ended
        silence.end()

    def test_a_stop_is_heard_before_the_first_trial(self, demo: Demo, silence: Silence) -> None:
        stop = StopFlag()
        worker = demo.worker(nobody, stop)
        silence.begin()
        timer = threading.Timer(0.1, stop.ask)
        timer.start()
        assert worker.run() is Step.STOPPED
        timer.join()

    def test_nothing_is_lost_by_the_silence(self, demo: Demo, silence: Silence) -> None:
        """What the worker asked before it left is done late, or not; the next one brings the store to the folder."""
        self.test_a_stop_is_heard_and_the_worker_leaves(demo, silence, urgent=False)
        demo.expire()
        assert demo.run(plays(steadily(3.0, 2.0)), name="next:1:1.00") is Step.FINISHED
        assert demo.states == ["COMPLETE"] * 3
        assert demo.trials[0].intermediate_values == {1: 3.0, 2: 2.0}


@pytest.fixture
def stop() -> StopFlag:
    return StopFlag()


@pytest.fixture
def relay(empty_store: Store, stop: StopFlag) -> Iterator[Relay]:
    relay = Relay(empty_store, stop)
    yield relay
    relay.close()


def failing(times: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    tries: list[int] = []

    def question() -> str:
        tries.append(len(tries))
        if len(tries) <= times:
            raise error
        return "an answer"

    return question, tries


class TestAsking:
    def test_it_asks_again_later_each_time(self, relay: Relay, stop: StopFlag, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(StopFlag, "wait", lambda _, seconds: slept.append(seconds))
        question, tries = failing(40, StoreUnreachable("away"))
        assert relay.ask(question) == "an answer"
        assert (len(tries), len(slept)) == (41, 40)
        assert all(0 <= seconds <= 15 for seconds in slept)
        assert max(slept[:3]) <= 0.8 < max(slept)
        assert stop.requested is False

    def test_it_gives_up_after_the_limit(self, empty_store: Store, stop: StopFlag) -> None:
        relay = Relay(empty_store, stop, wait_limit_s=0.0)
        with pytest.raises(StoreUnreachable, match="away"):
            relay.ask(failing(1, StoreUnreachable("away"))[0])
        relay.close()

    def test_after_a_stop_it_asks_once(self, relay: Relay, stop: StopFlag) -> None:
        stop.ask()
        question, tries = failing(3, StoreUnreachable("away"))
        with pytest.raises(StoreUnreachable):
            relay.ask(question)
        assert tries == [0]
        assert relay.ask(lambda: "an answer") == "an answer"

    @pytest.mark.parametrize("error", [InputError("no such study"), KeyError("x"), TimeoutError("of a file system")])
    def test_another_mistake_is_the_asker_s(self, relay: Relay, error: Exception) -> None:
        question, tries = failing(3, error)
        with pytest.raises(type(error)):
            relay.ask(question)
        assert tries == [0]

    def test_questions_are_answered_one_after_the_other(self, relay: Relay) -> None:
        order: list[int] = []
        for number in range(5):
            relay.offer(lambda number=number: order.append(number))  # type: ignore[misc]
        relay.ask(lambda: order.append(5))
        assert order == [0, 1, 2, 3, 4, 5]

    def test_a_line_that_is_silent_for_too_long_is_cut(self, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
        silent = threading.Event()
        monkeypatch.setattr(relay_module, "_TICK_S", 0.01)
        monkeypatch.setattr(relay_module, "_HARD_S", 0.05)
        monkeypatch.setattr(relay._lines, "cut", silent.set)
        assert relay.ask(lambda: silent.wait(30)) is True


SILENT_STORE = """
import sys, threading
from hpsearch.bridge.stopping import StopFlag
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.worker.relay import Relay
with Store(parse_url(sys.argv[1], from_argv=False)) as store:
    relay = Relay(store, StopFlag())
    relay.offer(threading.Event().wait)
    relay.close()
print("left")
"""


def test_a_thread_that_waits_for_ever_holds_up_no_exit(empty_store: Store) -> None:
    url: Any = empty_store.url.render_as_string()
    command = [sys.executable, "-W", "error", "-c", SILENT_STORE, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
