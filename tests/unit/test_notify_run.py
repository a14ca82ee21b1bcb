"""`hpsearch run --notify`: a person's command is called once, with what happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from hpsearch.bridge.stopping import StopFlag
from hpsearch.cli import run as run_verb
from hpsearch.errors import HpsearchError, InputError
from hpsearch.launch.crew import Crew
from hpsearch.trial import Outcome
from hpsearch.worker.endings import NO_MORE_TRIALS
from hpsearch.worker.worker import Worker
from tests.unit.notify_fixtures import KEEP, events, variables
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.worker_fixtures import Play, ends, plays

GOOD = ends(Outcome.COMPLETE, 0.5)

BAD = ends(Outcome.FAILED, reason="KeyError: 'x'", clean=False)


@dataclass
class Ended:
    """A worker's process that did its work while it was started."""

    exit_code: int = 0
    log: Path = Path("worker.txt")
    is_running: bool = field(default=False, init=False)
    was_killed: bool = field(default=False, init=False)

    @property
    def is_final(self) -> bool:
        return self.exit_code == NO_MORE_TRIALS

    @property
    def has_failed(self) -> bool:
        return self.exit_code != 0

    def stop(self, *, now: bool = False) -> None:
        del now

    def last_line(self) -> str:
        return "Bus error"


Run = Callable[..., str]


def unmeasured(*_: object) -> None:
    raise HpsearchError("nobody trains here")


@pytest.fixture
def run(desk: Desk, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Run]:
    """`hpsearch run study.yaml --notify COMMAND`, its worker in this process with trainers that follow a script; gives
    what it says. A worker's exit code instead of scripts: its process ends so, at each start."""
    assert workplace == desk.folder
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(run_verb, "inspector", lambda: plays(inspecting()))
    monkeypatch.setattr("hpsearch.watch.pictures.draw_study", lambda *_: None)
    monkeypatch.setattr("hpsearch.opening.estimates.measured_estimate", unmeasured)

    def run(command: str | None, *scripts: Play, exit_code: int = 0, **options: Any) -> str:
        def start(_: int) -> Any:
            if scripts:
                study = desk.open(*options.get("set_", []), start=plays(inspecting()), joins=True)
                Worker(study, desk.store, "elsewhere:1:1.00", plays(*scripts), StopFlag()).run()
            return Ended(exit_code)

        def start_crew(*_: object) -> Crew:
            return Crew(start, 1, print, clock=iter(range(0, 10**6, 60)).__next__)

        monkeypatch.setattr(run_verb, "_start_crew", start_crew)
        monkeypatch.setattr("hpsearch.launch.crew._LOOK_EVERY_S", 0.001)
        url = desk.store.url.render_as_string()
        run_verb.run(desk.file().path, workers=1, store=url, notify=command, **options)
        return str(capsys.readouterr().out)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


class TestARun:
    def test_is_not_hurt_by_a_command_that_is_not_there(self, run: Run) -> None:
        said = run("no-such-command-here", GOOD)
        assert "--notify: the command ended with exit code 127: " in said
        assert "not found" in said
        assert "demo is finished: 4 complete." in said

    def test_that_finishes(self, run: Run, workplace: Path) -> None:
        said = run(KEEP, GOOD)
        assert "--notify: sent (finished)" in said
        assert events(workplace) == ["finished"]
        message = (workplace / "message.txt").read_text()
        assert message.startswith("demo is finished: 4 complete.\nAll complete trials have the same validation loss")
        told = variables(workplace)
        assert {name: told[f"HPSEARCH_{name}"] for name in ("STUDY", "TRIALS_FINISHED", "TRIALS_WANTED")} == {
            "STUDY": "demo", "TRIALS_FINISHED": "4", "TRIALS_WANTED": "4",
        }  # fmt: skip
        assert (told["HPSEARCH_BEST_VALUE"], told["HPSEARCH_BEST_TRIAL"]) == ("0.5", "0")
        assert (told["HPSEARCH_OBJECTIVE"], told["HPSEARCH_HOST"]) == ("loss", os.uname().nodename)
        assert told["HPSEARCH_MESSAGE"] == message.splitlines()[0]

    def test_that_pauses(self, run: Run, desk: Desk, workplace: Path) -> None:
        """All trials fail alike: a worker pauses the study, on whatever machine."""
        with pytest.raises(HpsearchError, match="study demo is paused: the first 3 trials all failed"):
            run(KEEP, BAD)
        assert events(workplace) == ["paused"]
        message = (workplace / "message.txt").read_text()
        assert message.startswith("demo is paused: the first 3 trials all failed")
        assert "hpsearch resume demo" in message
        assert variables(workplace)["HPSEARCH_BEST_VALUE"] == ""
        desk.store.orders.resume(desk.store.studies.all()[0].study_id, 3)
        run(KEEP, GOOD)
        assert events(workplace) == ["paused", "finished"], "what follows is news again"

    def test_whose_workers_keep_failing(self, run: Run, workplace: Path) -> None:
        for _ in range(2):
            with pytest.raises(HpsearchError, match="Bus error"):
                run(KEEP, exit_code=1)
        assert events(workplace) == ["failed", "failed"], "of this run: each tells"
        assert "Bus error\nthe log is worker.txt" in (workplace / "message.txt").read_text()

    def test_that_is_stopped(self, run: Run, workplace: Path) -> None:
        with pytest.raises(typer.Exit) as ended:
            run(KEEP, exit_code=0)
        assert ended.value.exit_code == 130
        assert events(workplace) == ["stopped"]

    def test_that_reaches_a_limit(self, run: Run, workplace: Path) -> None:
        run(KEEP, GOOD, set_=["search.limits.until=2020-01-01 00:00"])
        assert events(workplace) == ["limit"]
        assert "demo has reached its limit: it is past 2020-01-01" in (workplace / "message.txt").read_text()

    def test_with_more_trials_tells_once_more(self, run: Run, workplace: Path) -> None:
        run(KEEP, GOOD)
        assert "--notify" not in run(KEEP), "it is finished already: that is no news"
        run(KEEP, GOOD, set_=["search.trials=5"])
        assert events(workplace) == ["finished", "finished"]

    @pytest.mark.parametrize("command", ["", "  "])
    def test_without_a_command_is_a_mistake(self, run: Run, workplace: Path, command: str) -> None:
        with pytest.raises(InputError, match="--notify: expected a command"):
            run(command, GOOD)
        assert events(workplace) == []
