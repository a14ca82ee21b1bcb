"""Looking at a store: it needs no lock, waits for no writer, and leaves every byte as it was."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from contract_parts import claimed, created, ended, opened, result_of, spec_of, start
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import hpsearch.store.engine as engine_module
import hpsearch.store.network as network_module
import hpsearch.store.reading as reading_module
from hpsearch.errors import InputError, NoStoreYet
from hpsearch.search.view import read_view
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.migrate import exclusively
from hpsearch.store.versions import VERSION_TABLE


def looking(url: str) -> Store:
    return Store(parse_url(url, from_argv=False), only_to_read=True)


def looked(url: str) -> list[str]:
    """What a look shows: outcomes of all trials of all studies."""
    with looking(url) as store:
        views = [read_view(store, study) for study in store.studies.all()]
        return [trial.outcome for view in views for trial in view.trials]


@pytest.fixture
def used_url(store_url: str) -> str:
    """Of a store with one study that has a finished and a running trial."""
    with opened(store_url) as store:
        search = created(store, spec_of())
        ended(search, claimed(store, search.study_id), result_of([1.0]))
        search.start(claimed(store, search.study_id))
    return store_url


def test_it_shows_what_is_there(used_url: str) -> None:
    assert looked(used_url) == ["complete", "running"]


def test_it_can_t_write(used_url: str) -> None:
    with looking(used_url) as store:
        study = store.studies.all()[0]
        with pytest.raises(DBAPIError, match=r"(?i)readonly|read.only"):
            store.studies.update(study.study_id, study.spec, 99)
        with pytest.raises(StorageInternalError) as raised:
            store.optuna.set_study_user_attr(study.study_id, "a", 1)
        assert re.search(r"(?i)readonly|read.only", str(raised.value.__cause__))


def test_it_waits_for_no_writer_and_no_migration(used_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine_module, reading_module):
        monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0)
    with opened(used_url) as store, exclusively(parse_url(used_url, from_argv=False)):
        with store.optuna.engine.begin() as writer:
            writer.execute(text("UPDATE trials SET state = 'FAIL'"))
            assert looked(used_url) == ["complete", "running"]
        assert looked(used_url) == ["complete", "failed"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_it_waits_for_no_lock_of_another_process(used_url: str, tmp_path: Path) -> None:
    code = start(hold, str(tmp_path / "store.db.lock"), str(tmp_path / "held"))
    while not (tmp_path / "held").exists():
        assert code.is_alive()
    assert looked(used_url) == ["complete", "running"]
    code.kill()
    code.join()


def hold(lock: str, told: str) -> None:
    with FileLock(lock):
        Path(told).touch()
        while True:
            os.read(os.pipe()[0], 1)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_it_leaves_every_byte_as_it_was(used_url: str, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    before = file.read_bytes(), file.stat().st_mtime_ns
    looked(used_url)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_nothing_is_made_where_there_is_nothing(empty_url: str, tmp_path: Path, backend: str) -> None:
    for _ in range(2):
        with pytest.raises(NoStoreYet):
            looking(empty_url)
    if backend == "sqlite":
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(NoStoreYet):
            looking(f"sqlite:///{tmp_path}/not/there/store.db")
        assert list(tmp_path.iterdir()) == []


def test_a_store_of_optuna_alone_has_no_studies_of_ours(store_url: str) -> None:
    with opened(store_url) as store, store.optuna.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    with pytest.raises(NoStoreYet):
        looking(store_url)


@pytest.mark.parametrize(
    ("table", "version", "words"),
    [
        (VERSION_TABLE, "9999", r"was made by a newer hpsearch \(its tables are at 9999\): update hpsearch"),
        ("alembic_version", "9999", r"was made by a newer optuna \(its tables are at 9999\): update optuna"),
        ("alembic_version", "v3.0.0.a", r"has tables of an older optuna \(v3\.0\.0\.a, .*\): hpsearch store upgrade"),
    ],
)
def test_tables_of_another_version_are_reported(table: str, version: str, words: str, store_url: str) -> None:
    with opened(store_url) as store, store.optuna.engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET version_num = :version"), {"version": version})
    with pytest.raises(InputError, match=words):
        looking(store_url)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_folder_that_may_not_be_written_is_read(
    used_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the refusal is faked: what matters is that no file is missed."""
    assert not (tmp_path / "store.db-wal").exists()
    monkeypatch.setattr(reading_module, "_may_write", lambda _folder: False)
    assert looked(used_url) == ["complete", "running"]
    assert not (tmp_path / "store.db-wal").exists()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("opens", [opened, looking], ids=["to write", "to read"])
def test_a_file_on_a_network_file_system_is_refused(
    opens: Callable[[str], Store], used_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 0:40 / / rw - nfs server:/ rw\n")
    monkeypatch.setattr(network_module, "_MOUNTS", mounts)
    with pytest.raises(InputError, match=r"network file system \(nfs\)"):
        opens(used_url)
