"""Small storms: real workers and trainers, killed, stopped, paused and cut off; nothing is lost, nobody is let in.

`make faults` provokes the same many times; its results are in `bench/faults/RESULTS.md`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from bench.faults.__main__ import STORMS, rage
from bench.faults.results import write_row
from bench.faults.scene import Scene, scene
from bench.faults.servers import Server, own_server, sqlite_url
from bench.faults.tally import Tally

pytestmark = pytest.mark.storm

SMALL = [
    ("kills", "sqlite", 30),
    ("kills", "postgresql", 30),
    ("signals", "postgresql", 4),
    ("pauses", "postgresql", 2),
    ("outages", "postgresql", 2),
    ("silences", "sqlite", 1),
    ("silences", "postgresql", 1),
    ("machines", "sqlite", 1),
    ("hangs", "sqlite", 3),
    ("outside", "postgresql", 3),
    ("crowd", "sqlite", 6),
    ("night", "postgresql", 3),
    *([("disks", "sqlite", 2)] if os.geteuid() == 0 else []),  # only root mounts a disk to fill
]
SEED = 7
TABLES = ("trial_intermediate_values", "trial_values", "trials", "hpsearch_leases")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server() as server:
        yield server


@pytest.mark.parametrize(("storm", "store", "count"), SMALL)
def test_a_storm(storm: str, store: str, count: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    used: Server | None = request.getfixturevalue("server") if store == "postgresql" else None
    tally = rage(storm, store, count, SEED, tmp_path / "storm", used)
    assert tally.is_clean, str(tally)
    assert tally.times > 0
    assert tally.trials > 0


def test_every_storm_is_among_them() -> None:
    assert {storm for storm, _, _ in SMALL} >= STORMS.keys() - {"disks", "outages-in-real-time"}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A study of three trials without any fault."""
    folder = tmp_path_factory.mktemp("calm")
    with scene(sqlite_url(folder), folder / "scene", 3) as play:
        play.start()
        play.wait_for_all()
        yield play


def judged(play: Scene) -> Tally:
    tally = Tally("calm", "sqlite", SEED)
    play.verdict(tally)
    return tally


@pytest.mark.parametrize(
    ("what", "sql"),
    [
        ("wrong", "UPDATE trial_intermediate_values SET intermediate_value = 9 WHERE trial_id = 2 AND step = 3"),
        ("wrong", "DELETE FROM trial_intermediate_values WHERE trial_id = 2 AND step = 1"),
        ("wrong", "UPDATE trial_values SET value = 9 WHERE trial_id = 2"),
        ("failed", "UPDATE trials SET state = 'FAIL' WHERE trial_id = 2"),
        ("lost", "UPDATE hpsearch_leases SET finished = false WHERE slot = 1"),
        ("twice", "INSERT INTO trials (number, study_id, state) VALUES (3, 1, 'RUNNING')"),
    ],
)
def test_what_must_not_be_in_the_store_is_counted(calm: Scene, what: str, sql: str) -> None:
    assert judged(calm).is_clean
    with calm.store.optuna.engine.begin() as connection:
        for table in TABLES:
            connection.execute(text(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}"))
        connection.execute(text(sql))
    found = judged(calm)
    with calm.store.optuna.engine.begin() as connection:
        for table in TABLES:
            connection.execute(text(f"DELETE FROM {table}"))
            connection.execute(text(f"INSERT INTO {table} SELECT * FROM kept_{table}"))
            connection.execute(text(f"DROP TABLE kept_{table}"))
    assert found.zeros[what] == 1, str(found)
    assert not found.is_clean


def test_a_file_in_foreign_hands_is_counted(calm: Scene) -> None:
    _, folder = calm.attempts_begun()[1]
    history = folder / "history.jsonl"
    kept = history.read_text()
    history.write_text(kept + '{"step": 25, "loss": 1.0, "learning_rate": 1.0}\n')
    assert judged(calm).foreign == 1
    history.write_text(kept)
    assert judged(calm).is_clean


def test_a_storm_that_is_run_again_replaces_its_row(tmp_path: Path) -> None:
    table = tmp_path / "RESULTS.md"
    for store, whole in (("sqlite", 1), ("postgresql", 2), ("sqlite", 3)):
        write_row(table, "kills", 30, Tally("SIGKILL", store, 0, times=30, trials=3, whole=whole))
    rows = [line.split("|")[2:7] for line in table.read_text().splitlines() if line.startswith("| kills")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["postgresql", "SIGKILL", "30", "3", "2"],
        ["sqlite", "SIGKILL", "30", "3", "3"],
    ]
