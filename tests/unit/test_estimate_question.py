"""The question before a long search: who is asked, what counts as a no, and what runs without one."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from bench.faults.scripted import ScriptedTrainer
from hpsearch.bridge.protocol import Event
from hpsearch.bridge.stopping import StopFlag
from hpsearch.cli import estimating
from hpsearch.cli import run as run_verb
from hpsearch.errors import Interrupted
from hpsearch.folders import JobFolder
from hpsearch.jobs import InspectionConfig
from hpsearch.study.prepare import PreparedStudy
from hpsearch.trial import GIB, Outcome
from hpsearch.watch.console import open_console
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.test_estimate import measuring, prepared
from tests.unit.worker_fixtures import Play, plays


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Asks, with that answer typed; None: nobody types."""
    monkeypatch.setattr(estimating, "_is_foreground", lambda _: True)
    reading, writing = os.pipe()

    def answers(typed: str | None, stop: StopFlag | None = None, *, is_terminal: bool = True) -> tuple[bool, str]:
        console = open_console(file=io.StringIO(), force_terminal=is_terminal)
        if typed is not None:
            os.write(writing, typed.encode())
        agreed = estimating.agrees(console, stop or StopFlag(), reading)
        assert isinstance(console.file, io.StringIO)
        return agreed, console.file.getvalue()

    yield answers
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(("typed", "begins"), [("\n", True), ("Y\n", True), ("n\n", False), ("what?\n", False)])
def test_a_person_is_asked_whether_a_long_search_begins(answering: Any, typed: str, *, begins: bool) -> None:
    agreed, said = answering(typed)
    assert agreed is begins
    assert "Start? [Y/n]" in said


def test_nobody_is_waited_for_who_is_not_there(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answering(None, is_terminal=False) == (True, "")
    monkeypatch.setattr(estimating, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(estimating, "_PATIENCE_S", 0.02)
    agreed, said = answering(None)
    assert agreed
    assert "no answer: it starts" in said
    monkeypatch.setattr(estimating, "_is_foreground", lambda _: False)
    assert answering(None) == (True, "")


def test_ctrl_c_at_the_question_is_a_no(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "_LOOK_EVERY_S", 0.01)
    stop = StopFlag()
    stop.ask()
    with pytest.raises(Interrupted, match="before anything was trained"):
        answering(None, stop)


def test_a_real_terminal_is_asked_and_heard() -> None:
    ours, theirs = pty.openpty()
    asks = (
        "import sys; from hpsearch.bridge.stopping import StopFlag; from hpsearch.cli.estimating import agrees; "
        "from hpsearch.watch.console import open_console; sys.exit(30 + agrees(open_console(), StopFlag()))"
    )

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", asks],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    said = b""
    while b"in a minute)" not in said:
        said += os.read(ours, 1000)
    os.write(ours, b"n\n")
    assert process.wait(timeout=60) == 30
    os.close(ours)


@pytest.mark.parametrize("closed", [None, io.StringIO()])
def test_where_nothing_can_be_typed_nobody_is_asked(closed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hpsearch run study.yaml <&-`: Python then has no sys.stdin."""
    monkeypatch.setattr(sys, "stdin", closed)
    assert estimating.agrees(open_console(file=io.StringIO(), force_terminal=True), StopFlag())


@pytest.fixture
def runs(desk: Desk, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The part of `hpsearch run` before a new study is in a store; gives what was prepared, what was printed, and how
    often a user was asked."""
    assert workplace == desk.folder
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(
        play: Play, *overrides: str, agrees: bool = True, asks: bool = True, stop: StopFlag | None = None
    ) -> tuple[PreparedStudy, str, int]:
        asked: list[bool] = []
        monkeypatch.setattr(run_verb, "inspector", lambda: plays(play))
        monkeypatch.setattr(estimating, "agrees", lambda *_: bool(asked.append(agrees)) or agrees)
        console = open_console(file=io.StringIO(), width=150)
        study = run_verb._prepare(console, desk.file(*overrides), stop or StopFlag(), None, 1, asks=asks)
        assert isinstance(console.file, io.StringIO)
        return study, console.file.getvalue(), len(asked)

    return run


LONG = "search.trials=3000"


def test_a_new_study_s_estimate_is_shown_and_a_long_one_is_asked_about(runs: Any, desk: Desk) -> None:
    study, said, asked = runs(measuring())
    assert "demo: estimate" in said
    assert asked == 0
    assert runs(measuring(), LONG)[2] == 1
    assert runs(measuring(), LONG, asks=False)[2] == 0
    with pytest.raises(typer.Exit) as ended:
        runs(measuring(), LONG, agrees=False)
    assert ended.value.exit_code == 130
    assert desk.store.studies.all() == []
    assert desk.open(start=plays(inspecting())).manifest == study.manifest


def test_ctrl_c_while_it_is_measured_ends_the_run(runs: Any, desk: Desk) -> None:
    stop = StopFlag()

    def interrupted(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        if isinstance(folder.job(), InspectionConfig):
            yield from inspecting()(trainer, folder)
        stop.ask()
        yield None

    with pytest.raises(Interrupted):
        runs(interrupted, stop=stop)
    assert list((desk.storage.path / "inspections").iterdir()) == []


def test_a_study_that_can_t_be_measured_begins_all_the_same(runs: Any) -> None:
    study, said, asked = runs(measuring(Outcome.OUT_OF_MEMORY, bytes_needed=20 * GIB))
    assert "needs more than 20.0 GiB of memory; it begins all the same" in said
    assert (len(study.splits["train"]), asked) == (16, 0)


def test_a_prepared_study_is_created_as_it_is(desk: Desk) -> None:
    """Without a second look: there is no trainer to give one."""
    from hpsearch.study.open import open_study
    from tests.unit.worker_fixtures import nobody

    study = prepared(desk)
    opened = open_study(desk.file(), desk.store, desk.storage, nobody, desk.tell, joins=False, prepared=study)
    assert opened.manifest == study.manifest
