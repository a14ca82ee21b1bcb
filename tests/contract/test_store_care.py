"""A store is looked through, copied and brought up to date."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from contract_parts import claimed, created, ended, opened, result_of, spec_of
from optuna.trial import TrialState
from sqlalchemy import text

import hpsearch.store.backup as backup_module
from hpsearch.errors import HpsearchError, InputError, NoStoreYet
from hpsearch.search import Search
from hpsearch.store import Store
from hpsearch.store.backup import back_up
from hpsearch.store.check import check_store
from hpsearch.store.engine import parse_url
from hpsearch.store.upgrade import upgrade_store


@pytest.fixture
def used(store: Store) -> Search:
    """A study with a finished trial, a running one, and a claim that has none yet."""
    search = created(store, spec_of())
    ended(search, claimed(store, search.study_id), result_of([1.0]))
    search.start(claimed(store, search.study_id))
    claimed(store, search.study_id)
    return search


def change(store: Store, *statements: str) -> None:
    with store.optuna.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def wrong(store: Store, artifacts: Path) -> dict[str, str]:
    """What fails, and how."""
    checks = check_store(store.url, artifacts)
    assert all(check.fix for check in checks if check.verdict == "fails")
    return {check.name: check.found for check in checks if check.verdict == "fails"}


class TestCheck:
    def test_a_store_in_use_is_whole(self, store: Store, used: Search, tmp_path: Path) -> None:
        del used
        assert wrong(store, tmp_path) == {}
        assert len(check_store(store.url, tmp_path)) == 8

    def test_each_thing_that_is_wrong_is_reported(self, store: Store, used: Search, tmp_path: Path) -> None:
        del used
        change(store, "UPDATE hpsearch_leases SET trial_id = 999 WHERE slot = 0")
        assert wrong(store, tmp_path) == {"leases": "slot 0 of demo names a trial that is gone"}
        change(store, "UPDATE hpsearch_leases SET trial_id = 1 WHERE slot = 0")
        change(store, "UPDATE trials SET state = 'RUNNING'")
        assert wrong(store, tmp_path) == {"ends": "trial 0 of demo is finished for hpsearch, but not for Optuna"}
        change(store, "UPDATE trials SET state = 'COMPLETE' WHERE number = 0")
        change(store, "DELETE FROM hpsearch_leases WHERE slot > 0")
        assert wrong(store, tmp_path) == {"trials": "trial 1 of demo is running, but no worker has a lease for it"}
        change(store, "UPDATE trials SET state = 'FAIL' WHERE number = 1")
        change(store, "UPDATE hpsearch_studies SET spec = '{\"version\": 99}'")
        assert wrong(store, tmp_path)["studies"].startswith("demo was made by ")

    def test_a_missing_artifact_is_reported(self, store: Store, used: Search, tmp_path: Path) -> None:
        for number in range(5):
            meta = json.dumps({"artifact_id": f"id{number}", "filename": f"{number}.png"})
            store.optuna.set_study_system_attr(used.study_id, f"dashboard:artifacts:1:id{number}", meta)
        store.optuna.set_study_system_attr(used.study_id, "artifacts:taken-away", "null")
        (tmp_path / "id0").touch()
        found = wrong(store, tmp_path)
        assert found == {"artifacts": "missing: 1.png (id1), 2.png (id2), 3.png (id3), and 1 more"}
        assert wrong(store, tmp_path / "not-here") == {}

    def test_tables_of_another_version_end_the_check_with_words(self, store: Store, tmp_path: Path) -> None:
        change(store, "UPDATE hpsearch_alembic_version SET version_num = '9999'")
        assert list(wrong(store, tmp_path)) == ["hpsearch's tables"]

    @pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
    def test_a_damaged_file_is_reported(self, store: Store, used: Search, tmp_path: Path) -> None:
        del used
        store.close()
        file = tmp_path / "store.db"
        content = bytearray(file.read_bytes())
        page = content.rindex(b"tiny:qwen2") // 4096
        content[page * 4096 : page * 4096 + 8] = b"\xff" * 8
        file.write_bytes(content)
        assert "file" in wrong(store, tmp_path)

    @pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
    def test_a_file_too_damaged_to_open_is_reported_with_the_way_back(self, store: Store, tmp_path: Path) -> None:
        store.close()
        file = tmp_path / "store.db"
        content = file.read_bytes()
        file.write_bytes(content[: 3 * 4096] + bytes(len(content) - 3 * 4096))
        with pytest.raises(InputError, match=r"store\.db is damaged .*: .* go back to the last backup"):
            check_store(store.url, tmp_path)


@contextmanager
def writing(store: Store) -> Iterator[None]:
    """Within this, another connection is in the middle of a transaction."""
    with store.optuna.engine.begin() as connection:
        connection.execute(text("UPDATE trials SET state = 'FAIL'"))
        yield


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
class TestBackup:
    def test_a_copy_taken_beside_a_writer_is_a_whole_store(self, store: Store, used: Search, tmp_path: Path) -> None:
        copy = tmp_path / "new" / "copy.db"
        with writing(store):
            assert back_up(store.url, copy) > 0
        assert [path.name for path in copy.parent.iterdir()] == ["copy.db"]
        with opened(f"sqlite:///{copy}") as copied:
            assert wrong(copied, tmp_path) == {}
            states = [trial.state for trial in copied.optuna.get_all_trials(used.study_id)]
        assert states == [TrialState.COMPLETE, TrialState.RUNNING]

    def test_no_file_is_written_over(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "kept").write_text("mine")
        with pytest.raises(InputError, match="is there already"):
            back_up(store.url, tmp_path / "kept")
        assert (tmp_path / "kept").read_text() == "mine"

    def test_a_copy_that_can_t_be_made_leaves_nothing(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def half(source: Path, draft: Path) -> None:
            draft.write_bytes(source.read_bytes()[:100])
            raise backup_module.sqlite3.DatabaseError("disk I/O error")

        monkeypatch.setattr(backup_module, "_copy", half)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(HpsearchError, match="the copy could not be made: disk I/O error"):
            back_up(store.url, tmp_path / "copy.db")
        assert sorted(tmp_path.iterdir()) == before

    def test_nothing_is_made_where_there_is_no_store(self, backend: str, tmp_path: Path) -> None:
        del backend
        with pytest.raises(NoStoreYet):
            back_up(parse_url(f"sqlite:///{tmp_path}/none.db", from_argv=False), tmp_path / "copy.db")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "command"),
    [
        (
            "postgresql+psycopg://me:s3cret@db.lab:5433/trials?sslpassword=s3cret",
            "pg_dump --format=custom '--file=my copy' postgresql://me@db.lab:5433/trials",
        ),
        (
            "mysql+pymysql://me:s3cret@db.lab/trials",
            "mysqldump --single-transaction --host=db.lab --user=me --password '--result-file=my copy' trials",
        ),
    ],
)
def test_other_databases_have_commands_of_their_own(url: str, command: str) -> None:
    with pytest.raises(InputError) as raised:
        back_up(parse_url(url, from_argv=False), Path("my copy"))
    assert command in str(raised.value).splitlines()[1]
    assert "s3cret" not in str(raised.value)


class TestUpgrade:
    def test_a_store_that_is_up_to_date_stays_as_it_is(self, store: Store, used: Search, tmp_path: Path) -> None:
        del used
        before = sorted(tmp_path.iterdir())
        (line,) = upgrade_store(store.url)
        assert line.startswith("up to date: hpsearch 0")
        assert sorted(tmp_path.iterdir()) == before

    def test_older_tables_of_optuna_are_brought_up_to_date_after_a_copy(
        self, store: Store, used: Search, store_url: str, backend: str, tmp_path: Path
    ) -> None:
        newest = store.optuna.get_current_version()
        drop = "DROP INDEX ix_trials_study_id"
        if backend == "mariadb":  # whose foreign keys had an index of their own
            drop = f"ALTER TABLE trials ADD INDEX study_id (study_id), {drop}"
        change(store, drop, "UPDATE alembic_version SET version_num = 'v3.0.0.d'")
        with pytest.raises(InputError, match="hpsearch store upgrade"):
            opened(store_url)
        *kept, line = upgrade_store(store.url)
        assert line == f"optuna's tables: v3.0.0.d → {newest}"
        with opened(store_url) as again:
            assert len(again.optuna.get_all_trials(used.study_id)) == 2
        copies = list(tmp_path.glob("store.db.before-*"))
        assert len(copies) == len(kept) == (1 if backend == "sqlite" else 0)
        for copy in copies:
            with pytest.raises(InputError, match="hpsearch store upgrade"):
                opened(f"sqlite:///{copy}")

    def test_a_store_of_a_newer_one_is_left_alone(self, store: Store, tmp_path: Path) -> None:
        change(store, "UPDATE hpsearch_alembic_version SET version_num = '9999'")
        with pytest.raises(InputError, match="newer hpsearch"):
            upgrade_store(store.url)
        assert list(tmp_path.glob("*before*")) == []

    def test_nothing_is_made_where_there_is_nothing(self, empty_url: str, tmp_path: Path) -> None:
        with pytest.raises(NoStoreYet):
            upgrade_store(parse_url(empty_url, from_argv=False))
        assert list(tmp_path.iterdir()) == []


def test_the_verbs_speak(
    store: Store, used: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpsearch.cli import store as verbs

    del used
    monkeypatch.setenv("HPSEARCH_STORE", store.url.render_as_string(hide_password=False))
    monkeypatch.setenv("HPSEARCH_STORAGE", str(tmp_path))
    verbs.check()
    verbs.upgrade()
    said: Any = capsys.readouterr().out
    assert "belong together" in said
    assert "up to date: " in said
