"""Outages: the store is killed, frozen, or locked; trials continue, and no worker takes one over meanwhile."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from sqlalchemy import create_engine, make_url, text

from bench.faults.pace import PACE
from bench.faults.scene import Scene, comes, noted_stuck, scene, until
from bench.faults.servers import Server
from bench.faults.tally import Tally

NUM_WORKERS = 3
_TRIALS = 30
_LONGEST_S = 300.0


def outages(server: Server, store: str, folder: Path, count: int, seed: int, *, faster: int = 30) -> Tally:
    """`count` kills of the database server. It is away for 1 to 300 s, as often for 1 to 17 as for 17 to 300, divided
    by `faster`, as all of hpsearch's times are."""
    tally, random = (
        Tally(f"server killed for 1–300 s{f', all times 1/{faster}' if faster > 1 else ''}", store, seed),
        Random(seed),
    )
    tally.other = {"taken over": 0}
    while tally.times < count:
        budget = {"max_steps": 60, "reports": 4}
        place, environment = folder / f"{tally.times:04d}", {PACE: str(faster)}
        num_trials = min(_TRIALS, 3 * (count - tally.times))
        with scene(server.new_url(), place, num_trials, environment, budget=budget) as play:
            for _ in range(NUM_WORKERS):
                play.start()
            with noted_stuck(tally, play):
                until(play.attempts_begun, what="nobody begins")
                while tally.times < count and play.alive:
                    time.sleep(random.uniform(0.2, 2.0))
                    _kill(server, _LONGEST_S ** random.random() / faster)
                    tally.times += 1
                play.wait_for_all()
            tally.dead += sum(member.process.exitcode != 0 for member in play.everyone)
            tally.other["taken over"] += sum(slot.attempt - 1 for slot in play.slots)
            play.verdict(tally)
    return tally


def _kill(server: Server, seconds: float) -> None:
    server.kill()
    time.sleep(seconds)
    server.start()


def silences(server: Server | None, url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` times the store is there and never answers: by turns frozen, where it is a server, and locked. Trials
    must go on, and a worker that is asked to stop must leave before the store comes back."""
    tally, random = Tally("store that never answers, or is locked", store, seed), Random(seed)
    tally.other = {"training stood still": 0, "stops not heard": 0}
    for number in range(count):
        frozen = server is not None and number % 2 == 0
        budget = {"max_steps": 160, "reports": 8}
        with scene(url, folder / f"{number:03d}", 3, {PACE: "10"}, budget=budget) as play, noted_stuck(tally, play):
            for _ in range(2):
                play.start()
            until(lambda: len(play.attempts_begun()) == 2, what="nobody begins")
            time.sleep(random.uniform(0, 0.3))
            with server.frozen() if frozen and server else locked(url):
                _is_silent(play, tally)
            play.start()
            play.wait_for_all()
            tally.times += 1
            tally.dead += sum(member.process.exitcode not in (0, 130) for member in play.everyone)
            play.verdict(tally)
    return tally


def _is_silent(play: Scene, tally: Tally) -> None:
    """At least two reports fall into it, so that the trainers wait for answers."""
    pids = [pid for pid, _ in play.attempts_begun()]
    before = play.last_steps(pids)

    def go_on() -> bool:
        return all(step >= before[pid] + 60 for pid, step in play.last_steps(pids).items())

    tally.other["training stood still"] += not comes(go_on, 60)
    asked = play.alive[0]
    asked.signal(signal.SIGTERM)
    tally.other["stops not heard"] += not comes(lambda: not asked.is_alive, 30)


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody's transaction holds what every worker needs: the whole of SQLite, or the rows of studies and leases."""
    engine = create_engine(make_url(url))
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        connection = stack.enter_context(engine.connect())
        if engine.dialect.name == "sqlite":
            connection.connection.driver_connection.isolation_level = None  # type: ignore[union-attr]
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            stack.callback(connection.exec_driver_sql, "ROLLBACK")
        else:
            for table in ("hpsearch_studies", "hpsearch_leases", "trials"):
                connection.execute(text(f"SELECT * FROM {table} FOR UPDATE"))
        yield
