"""Opening a store: its tables, its version, its address, and the messages when it can't be opened."""

from __future__ import annotations

import gc
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from contract_children import open_and_close
from contract_parts import created, exit_codes, opened, spec_of, start
from sqlalchemy import Engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

import hpsearch.store
import hpsearch.store.engine as engine_module
from hpsearch.errors import HpsearchError, InputError, StoreUnreachable
from hpsearch.store import Store
from hpsearch.store.engine import parse_url, shown
from hpsearch.store.tables import metadata
from hpsearch.store.versions import VERSION_TABLE

MIGRATIONS = Path(hpsearch.store.__file__).parent / "migrations"
OURS = {"hpsearch_studies", "hpsearch_leases", "hpsearch_workers", "hpsearch_launches", "hpsearch_attempts"}


def revision(engine: Engine) -> str:
    with engine.begin() as connection:
        return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one())


def set_revision(engine: Engine, to: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :to"), {"to": to})


class TestOpening:
    def test_a_fresh_database_gets_all_tables_and_the_newest_version(self, empty_url: str) -> None:
        with opened(empty_url) as store:
            tables = set(inspect(store.optuna.engine).get_table_names())
            assert tables >= OURS | {VERSION_TABLE, "studies", "trials", "alembic_version"}
            assert revision(store.optuna.engine) == ScriptDirectory(str(MIGRATIONS)).get_current_head()

    def test_opening_again_keeps_what_is_there(self, store_url: str) -> None:
        with opened(store_url) as first:
            created(first, spec_of())
            with opened(store_url) as second:
                assert second.studies.find("demo") == first.studies.find("demo")
                assert second.studies.find("demo") is not None

    def test_eight_processes_open_an_empty_database_at_once(self, empty_url: str) -> None:
        spec = spec_of().model_dump_json()
        codes = exit_codes([start(open_and_close, empty_url, spec) for _ in range(8)])
        assert codes == [0] * 8
        with opened(empty_url) as store:
            assert [study.name for study in store.studies.all()] == ["demo"]
            assert len(store.optuna.get_all_studies()) == 1

    def test_a_store_of_a_newer_hpsearch_is_left_alone(self, store_url: str) -> None:
        with opened(store_url) as store:
            head = revision(store.optuna.engine)
            set_revision(store.optuna.engine, "9999")
            with pytest.raises(InputError, match=r"newer hpsearch \(its tables are at 9999\)"):
                opened(store_url)
            gc.collect()
            assert revision(store.optuna.engine) == "9999"
            set_revision(store.optuna.engine, head)
        opened(store_url).close()

    @pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
    def test_a_store_that_was_refused_keeps_no_connection(self, store: Store, store_url: str, postgresql: Any) -> None:
        set_revision(store.optuna.engine, "9999")
        with pytest.raises(InputError) as raised:  # what it holds keeps the garbage collector away
            opened(store_url)
        store.close()
        postgresql.drop(
            postgresql.create(str(store.url.database))
        )  # PostgreSQL copies none that someone is connected to
        del raised

    @pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
    def test_an_opening_that_failed_keeps_no_connection(self, empty_url: str, postgresql: Any) -> None:
        """Optuna's own engine is ended with it; psycopg warns of a connection that is collected while it is open."""
        name = make_url(empty_url).database
        postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(DBAPIError) as raised:  # what it holds keeps the garbage collector away
            opened(empty_url)
        postgresql.drop(postgresql.create(name))  # PostgreSQL copies none that someone is connected to
        del raised

    def test_the_migrations_end_at_the_tables_of_the_code(self, empty_url: str) -> None:
        def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
            return kind != "table" or name in OURS

        with opened(empty_url) as store, store.optuna.engine.connect() as connection:
            types = connection.dialect.name != "mysql"  # whose FLOAT(53) comes back as DOUBLE, which is the same there
            context = MigrationContext.configure(connection, opts={"include_name": is_ours, "compare_type": types})
            assert compare_metadata(context, metadata) == []

    @pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
    @pytest.mark.parametrize("name", ["a b", "x{y}", "h#sh", "at@home", "new/and/deep"])
    def test_an_sqlite_file_lies_where_it_was_said(self, name: str, empty_url: str, tmp_path: Path) -> None:
        opened(empty_url.replace("empty.db", f"{name}/store.db")).close()
        assert (tmp_path / name / "store.db").is_file()


class TestOutOfReach:
    def test_an_outage_is_one_error_with_words_and_passes(self, backend: str, request: pytest.FixtureRequest) -> None:
        if backend == "sqlite":
            request.getfixturevalue("monkeypatch").setattr(engine_module, "BUSY_TIMEOUT_S", 0)
        url, store = request.getfixturevalue("store_url"), request.getfixturevalue("store")
        end = self._begin_outage(backend, request, store)
        for use in (store.studies.all, store.optuna.get_all_studies, lambda: opened(url)):
            with (
                pytest.raises(StoreUnreachable, match=r"the store .* can't be reached: \w") as raised,
                store.reaching(),
            ):
                use()
            assert len(str(raised.value).splitlines()) == 1
        end()
        with store.reaching():
            assert store.studies.all() == []

    def _begin_outage(self, backend: str, request: pytest.FixtureRequest, store: Store) -> Any:
        if backend == "sqlite":
            holder = store.optuna.engine.connect()
            holder.begin()
            return holder.close
        return request.getfixturevalue(backend).cut_off(store.url.database)

    def test_a_closed_port_is_reported_with_its_address_and_without_the_password(self) -> None:
        with socket.socket() as taken:  # bound but not listening: nobody else can answer on it
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(StoreUnreachable) as raised:
                opened(f"postgresql+psycopg://someone:s3cret@{address}/trials")
        assert f"the store postgresql+psycopg://someone@{address}/trials can't be reached: " in str(raised.value)
        assert "refused" in str(raised.value)
        assert "s3cret" not in str(raised.value)

    @pytest.mark.parametrize(("module", "backend"), [("psycopg", "postgresql"), ("pymysql", "mysql")])
    def test_a_missing_driver_names_what_to_install(
        self, module: str, backend: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(InputError, match=rf"pip install 'hpsearch\[{backend}\]'"):
            opened(f"{backend}+{module}://someone@127.0.0.1:1/trials")

    @pytest.mark.parametrize("name", ["study.yaml", "study.yaml/store.db"])
    def test_a_file_that_is_no_database_is_a_mistake_with_words(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "study.yaml").write_text("study: demo\n" * 100)
        with pytest.raises(HpsearchError, match=r"study\.yaml"):
            opened(f"sqlite:///{tmp_path / name}")


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "nonsense",
            "mongodb://host/trials",
            "postgresql+nothing://host/trials",
            "postgresql+asyncpg://host/trials",
            "postgresql+psycopg://host:port/trials",
            "mssql+pyodbc://host/trials",
            "mariadb+pymysql://host/x",
        ],
    )
    def test_an_unknown_kind_of_database_lists_the_known_ones(self, url: str) -> None:
        with pytest.raises(InputError, match=r"sqlite:///FILE, postgresql.*or mysql") as raised:
            parse_url(url, from_argv=False)
        assert repr(url.partition(":")[0]) in str(raised.value)

    def test_the_error_for_optuna_s_proxy_names_what_to_give_in_its_place(self) -> None:
        with pytest.raises(InputError, match=r"gRPC storage proxy.*pgbouncer"):
            parse_url("grpc://localhost:13000", from_argv=True)

    @pytest.mark.parametrize(
        "rest",
        [
            "u:s3cret@host/trials",
            "u:p@s3cret@host/trials",
            "u:p%40s3cret@host/trials",
            "u@host/trials?password=s3cret",
            "u@/trials?host=h&password=p@s3cret",
            "u:p@w:s3cret@host/trials",
            "u@host/trials?sslpassword=s3cret",
        ],
    )
    def test_a_password_on_the_command_line_is_refused_and_not_repeated(self, rest: str) -> None:
        with pytest.raises(InputError, match=r"\.pgpass.*HPSEARCH_STORE") as raised:
            parse_url(f"postgresql+psycopg://{rest}", from_argv=True)
        assert "s3cret" not in str(raised.value)

    def test_mysql_s_own_word_for_a_password_is_refused_too(self) -> None:
        with pytest.raises(InputError):
            parse_url("mysql+pymysql://u@host/trials?password=s3cret", from_argv=True)

    @pytest.mark.parametrize(
        "rest",
        [
            "u:s3cret@host:5433/trials",
            "u:p%40s3cret@host:5433/trials",
            "u@host:5433/trials?password=s3cret",
            "u@host:5433/trials?sslpassword=s3cret",
        ],
    )
    def test_the_environment_may_hold_a_password_that_is_never_shown(self, rest: str) -> None:
        url = parse_url(f"postgresql+psycopg://{rest}", from_argv=False)
        assert shown(url) == "postgresql+psycopg://u@host:5433/trials"
        assert "s3cret" in url.render_as_string(hide_password=False)

    def test_a_password_with_a_bare_at_sign_is_never_shown(self) -> None:
        try:
            words = shown(parse_url("postgresql+psycopg://u:p@s3cret@host/trials", from_argv=False))
        except InputError as error:  # "write %40 for an @ in a password" is a good answer too
            words = str(error)
        assert "s3cret" not in words

    def test_the_name_of_an_open_store_has_no_password(self, postgresql: Any) -> None:
        name = postgresql.create(postgresql.template)
        url = postgresql.url(name).replace("postgres@", "postgres:s3cret@")
        with opened(url) as store:
            assert store.name == f"postgresql+psycopg://postgres@/{name}"
        postgresql.drop(name)
