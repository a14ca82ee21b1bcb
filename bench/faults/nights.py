"""A night with preemptions: a worker is killed every minute, the store is away twice, a device goes bad.

Workers are kept running as by `hpsearch run`. All times, also hpsearch's own, are a twentieth of the real ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.faults import standin
from bench.faults.outages import locked
from bench.faults.pace import PACE
from bench.faults.scene import Member, Scene, Stuck, noted_stuck, scene, until
from bench.faults.servers import Server
from bench.faults.tally import Tally
from hpsearch.errors import InputError
from hpsearch.launch.crew import Crew
from hpsearch.worker.endings import NO_MORE_TRIALS

_FASTER = 20
_PLACES = 4
_MINUTE_S = 60 / _FASTER
_AWAY_S = 120 / _FASTER


@dataclass
class _Job:
    """A worker as the crew of `hpsearch run` sees it (`launch.process.WorkerProcess`)."""

    member: Member

    @property
    def log(self) -> Path:
        return self.member.log

    @property
    def is_running(self) -> bool:
        return self.member.is_alive

    @property
    def exit_code(self) -> int | None:
        return self.member.process.exitcode

    @property
    def has_failed(self) -> bool:
        return self.exit_code not in (None, 0)

    @property
    def is_final(self) -> bool:
        return self.exit_code in (NO_MORE_TRIALS, InputError.exit_code)

    @property
    def was_killed(self) -> bool:
        return self.exit_code is not None and self.exit_code < 0

    def stop(self, *, now: bool = False) -> None:
        del now
        self.member.signal(15)

    def last_line(self) -> str:
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it wrote nothing"


def night(server: Server | None, url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` minutes."""
    tally, random = Tally(f"a night of {count} minutes", store, seed), Random(seed)
    budget = {"max_steps": 120, "reports": 6}
    with scene(url, folder, max(4, 2 * count), {PACE: str(_FASTER)}, budget=budget) as play:
        with noted_stuck(tally, play):
            bad = folder / "the device is bad"
            crew = _crew(play, bad, tally)
            _pass(play, crew, tally, random, count, bad, lambda: _take_away(server, url))
        code = {member.process.exitcode for member in play.everyone if not member.is_killed}
        tally.dead += len(code - {0, NO_MORE_TRIALS})
        tally.other["crew gave up"] = 0 if play.is_finished else 1
        play.verdict(tally)
    tally.notes.append(f"a night with preemptions on {store}: trials wanted {tally.trials}, trials whole {tally.whole}")
    return tally


def _crew(play: Scene, bad: Path, tally: Tally) -> Crew:
    faults = {standin.FAULT: "exits", standin.FAULT_WHILE: str(bad)}

    def start(index: int) -> _Job:
        return _Job(play.start(**(faults if index == 0 else {})))

    def say(line: str) -> None:
        if "it is not replaced" in line:
            tally.notes.append(line)

    return Crew(start, _PLACES, say, clock=lambda: time.monotonic() * _FASTER)  # type: ignore[arg-type]


def _pass(
    play: Scene, crew: Crew, tally: Tally, random: Random, count: int, bad: Path, take_away: Callable[[], None]
) -> None:
    started = time.monotonic()
    goes_bad, away = count // 3, [count // 4, 3 * count // 4]
    outage: threading.Thread | None = None
    while crew.works:
        if time.monotonic() - started > 3 * _MINUTE_S * count + 120:
            raise Stuck("the night never ends")
        crew.look(stopping=False)
        time.sleep(0.1)
        if tally.times < count and time.monotonic() - started > _MINUTE_S * (tally.times + 1):
            if play.alive:
                random.choice(play.alive).kill()
            tally.times += 1
            if tally.times == goes_bad:
                bad.touch()
            if tally.times in away:
                outage = threading.Thread(target=take_away)
                outage.start()
    if outage is not None:
        outage.join()
    until(lambda: not play.alive)


def _take_away(server: Server | None, url: str) -> None:
    """Two minutes without the store."""
    if server is not None:
        server.kill()
        time.sleep(_AWAY_S)
        server.start()
        return
    with ExitStack() as stack:
        stack.enter_context(locked(url))
        time.sleep(_AWAY_S)
