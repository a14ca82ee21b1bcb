"""Being asked to stop: by real signals, and by the death of a real parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hpsearch.bridge.stopping import AT_ONCE, StopFlag

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 30.0


@contextmanager
def installed(*, watch_parent: bool) -> Iterator[StopFlag]:
    """This process's own handlers come back afterwards."""
    before = {number: signal.getsignal(number) for number in (*SIGNALS, AT_ONCE)}
    flag = StopFlag()
    flag.install(watch_parent=watch_parent)
    yield flag
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def flag() -> Iterator[StopFlag]:
    with installed(watch_parent=False) as flag:
        yield flag


@pytest.fixture
def kept() -> Iterator[StopFlag]:
    """The flag of a worker that somebody keeps."""
    with installed(watch_parent=True) as flag:
        yield flag


def test_an_order_of_the_store_and_a_signal_are_one_wish() -> None:
    """`hpsearch stop` asks through both: a worker that takes them for two leaves without saving."""
    flag = StopFlag()
    flag.order(now=False)
    flag.order(now=False)
    flag.ask()
    assert (flag.requested, flag.urgent) == (True, False)
    flag.order(now=True)
    assert flag.urgent


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_to_stop_and_a_second_one_at_once(flag: StopFlag, number: signal.Signals) -> None:
    assert (flag.requested, flag.urgent) == (False, False)
    signal.raise_signal(number)
    assert (flag.requested, flag.urgent) == (True, False)
    signal.raise_signal(number)
    assert (flag.requested, flag.urgent) == (True, True)


def test_two_different_signals_are_urgent_too(flag: StopFlag) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert flag.urgent


def test_a_worker_that_is_kept_takes_all_signals_for_one_wish(kept: StopFlag) -> None:
    """SLURM and systemd signal every process of a job, and its keeper passes its own signal on."""
    for number in SIGNALS * 3:
        signal.raise_signal(number)
    assert (kept.requested, kept.urgent) == (True, False)
    signal.raise_signal(AT_ONCE)
    assert kept.urgent


def test_the_keeper_alone_makes_it_urgent_also_without_asking_before(kept: StopFlag) -> None:
    signal.raise_signal(AT_ONCE)
    assert kept.urgent


def test_a_flag_that_is_not_installed_leaves_signals_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    StopFlag().ask()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_waiting_ends_when_asked_to_stop() -> None:
    flag, over = StopFlag(), threading.Event()

    def ask_until_heard() -> None:
        while not over.wait(0.001):
            flag.ask()

    asking = threading.Thread(target=ask_until_heard)
    began = time.monotonic()
    asking.start()
    flag.wait(PATIENCE_S)
    over.set()
    asking.join()
    assert time.monotonic() - began < PATIENCE_S / 2


def test_a_stop_just_before_the_waiting_ends_it_too_but_only_once() -> None:
    flag = StopFlag()
    flag.ask()
    began = time.monotonic()
    flag.wait(PATIENCE_S)
    assert time.monotonic() - began < PATIENCE_S / 2
    began = time.monotonic()
    flag.wait(0.02)  # a process that waits for others after a stop must not use the CPU meanwhile
    assert time.monotonic() - began >= 0.015


CHILD = """
import os, sys
from hpsearch.bridge.stopping import StopFlag
parent, flag = os.getppid(), StopFlag()
flag.install(watch_parent=sys.argv[1] == "watches")
print(os.getpid(), flag.requested, flag.urgent, flush=True)
while os.getppid() == parent:
    flag.wait(0.005)
print(flag.requested, flag.urgent, flag.requested, flush=True)
"""
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]])
"""


def line(stream: int) -> str:
    """The next line of a pipe that nobody else reads."""
    read = b""
    while not read.endswith(b"\n"):
        assert select.select([stream], [], [], PATIENCE_S)[0], f"nothing came in {PATIENCE_S:g} s"
        byte = os.read(stream, 1)
        assert byte, "the child ended without a word"
        read += byte
    return read.decode().strip()


@pytest.mark.parametrize(("watches", "told"), [("watches", "True False True"), ("does not", "False False False")])
def test_the_death_of_the_parent_is_a_stop_for_who_watches_it(watches: str, told: str) -> None:
    command = [sys.executable, "-c", PARENT, CHILD, watches]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        stream = parent.stdout.fileno()
        child, *before = line(stream).split()
        try:
            assert before == ["False", "False"]
            parent.kill()
            assert line(stream) == told
        finally:
            if not select.select([stream], [], [], 0)[0]:  # a child that said everything closes the pipe
                os.kill(int(child), signal.SIGKILL)


def test_a_parent_that_died_before_its_child_looked_is_a_stop_too() -> None:
    """A worker takes a second to load what it needs."""
    flag = StopFlag(parent=os.getpid())  # which is not its parent any more
    flag._watches_parent = True
    assert flag.requested
    flag = StopFlag(parent=os.getppid())
    flag._watches_parent = True
    assert not flag.requested


COUNTED = """
import contextlib, sys
from hpsearch.bridge.stopping import StopFlag
flag = StopFlag()
flag.install(watch_parent=False)
with flag.preparing() if sys.argv[1] == "preparing" else contextlib.nullcontext():
    told = False, False
    print("ready", flush=True)
    while True:
        flag.wait(30)
        if (flag.requested, flag.urgent) != told:
            told = flag.requested, flag.urgent
            print(*told, flush=True)
"""


@pytest.mark.parametrize(("does", "heard"), [("preparing", ["True False"]), ("working", ["True False", "True True"])])
@pytest.mark.parametrize("number", SIGNALS)
def test_the_last_signal_ends_the_process_at_once(does: str, heard: list[str], number: signal.Signals) -> None:
    """The second while there is nothing to save, else the third, whatever the process waits for."""
    with subprocess.Popen([sys.executable, "-c", COUNTED, does], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert line(child.stdout.fileno()) == "ready"
        try:
            for told in heard:
                child.send_signal(number)
                assert line(child.stdout.fileno()) == told
            child.send_signal(number)
            assert child.wait(PATIENCE_S) == 130
        finally:
            child.kill()


def test_after_the_preparation_a_second_signal_leaves_time_to_leave(
    flag: StopFlag, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(StopFlag, "_leave", staticmethod(lambda: left.append(1)))
    with pytest.raises(KeyError), flag.preparing():
        raise KeyError
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
    assert left == []
    signal.raise_signal(signal.SIGTERM)
    assert left == [1]
