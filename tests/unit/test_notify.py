"""`--notify`: a person's command is called once, with what happened, and can't hurt the study."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hpsearch.bridge.stopping import StopFlag
from hpsearch.cli import worker as worker_verb
from hpsearch.errors import StoreUnreachable
from hpsearch.search.view import StudyView
from hpsearch.store import Store
from hpsearch.watch import notify
from hpsearch.watch.notify import notice_of, notifying
from hpsearch.worker.patience import patiently
from tests.unit.notify_fixtures import KEEP, events, variables
from tests.unit.outage_fixtures import Outage
from tests.unit.view_fixtures import finished
from tests.unit.worker_fixtures import Demo, plays, steadily


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def here(demo: Demo, workplace: Path, said: list[str]) -> Callable[[str], Any]:
    """`notifying` on the demo, in an empty folder."""
    assert workplace.exists()

    def read() -> StudyView:
        with demo.store.reaching():
            return demo.view

    return lambda command=KEEP: notifying(command, demo.store, demo.view, read, said.append)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo oh >&2; printf 'no \\033[2Jmail'; exit 3", r"the command ended with exit code 3: no \x1b[2Jmail"),
        ("exit 1", "the command ended with exit code 1: no output"),
        ("no-such-command-here", "not found"),
        ("kill -9 $$", "the command was killed by signal 9: no output"),
        ("if", "the command ended with exit code 2: "),
    ],
)
def test_a_command_that_fails_is_reported(here: Any, said: list[str], command: str, words: str) -> None:
    with here(command):
        pass
    (line,) = said
    assert line.startswith("--notify: ")
    assert line.endswith(" (stopped)")
    assert words in line


def test_a_command_that_hangs_is_killed_with_all_that_it_started(
    here: Any, said: list[str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "DEADLINE_S", 0.5)
    os.mkfifo(workplace / "alive")
    alive = os.open(workplace / "alive", os.O_RDONLY | os.O_NONBLOCK)
    with here("sleep 600 > alive & wait"):
        pass
    assert said == ["--notify: the command did not end within 0.5 s and was killed (stopped)"]
    os.set_blocking(alive, True)
    assert os.read(alive, 1) == b"", "the pipe ends with the last that holds it"
    os.close(alive)


def test_a_command_that_leaves_a_child_behind_or_reads_nothing_delays_nothing(
    here: Any, said: list[str], demo: Demo
) -> None:
    demo.store.orders.pause(demo.study.study_id, "x" * 10**6)
    with here("sleep 600 & echo $! > child"):
        pass
    os.kill(int(Path("child").read_text()), signal.SIGKILL)
    assert said == ["--notify: sent (paused)"]


def test_of_several_processes_one_tells(here: Any, demo: Demo, workplace: Path, said: list[str]) -> None:
    with here(), here():
        demo.store.orders.pause(demo.study.study_id, "a person said so")
    assert events(workplace) == ["paused"]
    assert said == ["--notify: sent (paused)", "--notify: another process sends it (paused)"]


def test_what_happens_again_after_the_study_went_on_is_reported_again(here: Any, demo: Demo, workplace: Path) -> None:
    for _ in range(2):
        with here():
            demo.store.orders.pause(demo.study.study_id, "a person said so")
        demo.store.orders.resume(demo.study.study_id, 0)
    assert events(workplace) == ["paused", "paused"]


def test_who_joins_a_paused_study_takes_nobody_s_claim(here: Any, demo: Demo, workplace: Path) -> None:
    with here():
        demo.store.orders.pause(demo.study.study_id, "a person said so")
        with here():
            pass
        with here():
            pass
    assert events(workplace) == ["paused"]


def test_a_store_that_is_away_prevents_no_message(here: Any, demo: Demo, workplace: Path, outage: Outage) -> None:
    def unreachable() -> None:
        with here():
            outage.is_down = True
            raise StoreUnreachable("the store can't be reached")

    with pytest.raises(StoreUnreachable):
        unreachable()
    assert events(workplace) == ["failed"]
    outage.is_down = False
    with here():
        demo.worker(plays(steadily(0.5))).run()
        outage.is_down = True
    assert events(workplace) == ["failed", "stopped"], "as the study was when it was last seen"


def test_nothing_of_ours_is_read_as_a_command(here: Any, demo: Demo, workplace: Path) -> None:
    evil = "$(touch pwned) `touch pwned`; touch pwned\n'\"\x00\x1b[2J\\"
    demo.store.orders.pause(demo.study.study_id, evil)
    with here('printf "%s\\n" "$HPSEARCH_MESSAGE" > variable.txt; cat > message.txt'):
        pass
    assert not (workplace / "pwned").exists()
    told = (workplace / "message.txt").read_text()
    assert told == (workplace / "variable.txt").read_text()
    assert r"touch pwned" in told
    assert "\x1b" not in told
    assert "\x00" not in told


def test_a_message_is_short_enough_for_a_variable(view: StudyView) -> None:
    notice = notice_of(view, "\n".join(["é" * 5000] * 5000))
    assert (notice.event, len(notice.message.splitlines())) == ("failed", 41)
    assert len(notice.message.encode()) < 128 * 1024
    assert notice.message.endswith("… and 4960 more lines")


def test_a_study_that_finished_though_workers_failed_is_finished(view: StudyView) -> None:
    assert notice_of(finished(view), "workers keep failing").event == "finished"
    assert notice_of(replace(view, study=replace(view.study, paused="why")), "study demo is paused").event == "paused"


@pytest.mark.parametrize(
    ("store", "is_kept"),
    [
        ("postgresql+psycopg://me@db.lab/x", True),
        ("sqlite:///storage/hpsearch.db", True),
        ("postgresql+psycopg://me:hunter2@db.lab/x", False),
        ("postgresql+psycopg://db.lab/x?password=hunter2", False),
        ("postgresql+psycopg://me:hun@ter2@db.lab/x", False),
        ("nonsense", False),
    ],
)
def test_a_secret_of_ours_is_not_handed_on(
    here: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch, store: str, is_kept: bool
) -> None:
    monkeypatch.setenv("HPSEARCH_STORE", store)
    monkeypatch.setenv("HPSEARCH_DASHBOARD_TOKEN", "correct-horse-battery-staple")
    monkeypatch.setenv("MY_OWN", "is mine")
    with here():
        pass
    told = variables(workplace)
    assert told.get("HPSEARCH_STORE") == (store if is_kept else None)
    assert "HPSEARCH_DASHBOARD_TOKEN" not in told
    assert told["MY_OWN"] == "is mine"


def test_without_a_command_nothing_is_read(view: StudyView, empty_store: Store) -> None:
    def unread() -> StudyView:
        raise AssertionError

    with notifying(None, empty_store, view, unread, print):
        pass


def test_an_outage_as_a_worker_begins_is_waited_for(demo: Demo, outage: Outage) -> None:
    class Back(StopFlag):
        def wait(self, _seconds: float) -> None:
            outage.is_down = False

    said: list[str] = []
    asks = partial(patiently, limit_s=60.0, stop=Back(), say=said.append)
    outage.is_down = True
    with worker_verb._notifying("true", demo.store, "demo", asks, said.append):
        pass
    assert outage.refused == 1
    assert said[0].endswith("the server closed the connection; trying again for 1 minutes")
