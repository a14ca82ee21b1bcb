"""A search on a real MariaDB: one of two workers is killed in the middle of its trial, and no trial is lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, text

from hpsearch.folders import StorageFolder
from hpsearch.spec import load_study
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.tables import leases
from hpsearch.study.open import open_study
from tests.contract.contract_servers import MariaDb
from tests.integration.command import Ended, commands, ended
from tests.integration.test_postgresql import FILE, NUM_TRIALS, until, view_of
from tests.unit.opening_fixtures import inspecting
from tests.unit.worker_fixtures import plays

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The store's URL, and the folder in which the commands run."""
    folder = tmp_path_factory.mktemp("searched")
    rows = [{"question": f"Is {i} even or odd?", "answer": "odd" if i % 2 else "even"} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "demo.yaml").write_text(FILE)
    return mariadb.url(mariadb.create()), folder


@pytest.fixture(scope="module")
def run(place: tuple[str, Path], mariadb: MariaDb) -> Iterator[Ended]:
    """How `hpsearch run` ended. Beside it there was an `hpsearch worker`, which was killed when both had a trial and
    could not yet store a loss."""
    url, folder = place
    with commands() as start, Store(parse_url(url, from_argv=False)) as store:
        file, storage = load_study(folder / "demo.yaml"), StorageFolder(folder / "storage")
        study = open_study(file, store, storage, plays(inspecting()), lambda *_: None, joins=False)
        with closing(mariadb.line(str(store.url.database))) as holder:
            holder.cursor().execute("LOCK TABLES trial_intermediate_values WRITE")
            run, worker = (
                start("hpsearch", verb, "demo.yaml", folder=folder, HPSEARCH_STORE=url) for verb in ("run", "worker")
            )
            until(lambda: store.leases.slots(study.study_id).leased == 2, run, worker)
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait(30)
        yield ended(run)


def test_the_run_ends_well_with_every_trial(run: Ended) -> None:
    assert run.code == 0, run.complained
    assert "Traceback" not in run.complained
    assert f"demo is finished: {NUM_TRIALS} complete." in run.said


@pytest.mark.usefixtures("run")
def test_the_killed_worker_s_trial_was_taken_over_and_the_budget_is_exact(place: tuple[str, Path]) -> None:
    with Store(parse_url(place[0], from_argv=False)) as store:
        view = view_of(store)
        with store.optuna.engine.begin() as connection:
            rows = connection.execute(select(leases).order_by(leases.c.slot)).all()
    assert [trial.outcome for trial in view.trials] == ["complete"] * NUM_TRIALS
    assert [len(trial.reports) for trial in view.trials] == [2] * NUM_TRIALS
    assert sorted(row.attempt for row in rows) == [*[1] * (NUM_TRIALS - 1), 2]
    assert len({row.trial_id for row in rows}) == len(rows) == NUM_TRIALS


@pytest.mark.usefixtures("run")
def test_verbs_and_stock_tools_read_it(place: tuple[str, Path]) -> None:
    url, folder = place
    with commands() as start:
        status = ended(start("hpsearch", "status", "demo", folder=folder, HPSEARCH_STORE=url))
        check = ended(start("hpsearch", "store", "check", folder=folder, HPSEARCH_STORE=url))
        stock = ("optuna", "trials", "--storage", url, "--study-name", "demo", "--format", "json")
        trials = ended(start(*stock, folder=folder))
    assert status.said.count("complete") == NUM_TRIALS, status.complained
    assert check.code == 0, check.said + check.complained
    assert [trial["state"] for trial in json.loads(trials.said)] == ["COMPLETE"] * NUM_TRIALS
    assert "s3cret" not in status.said + status.complained + check.said + check.complained


@pytest.mark.usefixtures("run")
def test_the_server_s_restart_is_an_outage_that_passes(place: tuple[str, Path], mariadb: MariaDb) -> None:
    with Store(parse_url(place[0], from_argv=False)) as store, store.reaching():
        before = view_of(store).trials
        mariadb.kill()
        mariadb.start()
        assert view_of(store).trials == before
        with store.optuna.engine.begin() as connection:
            assert connection.scalar(text("SELECT COUNT(*) FROM trials")) == NUM_TRIALS
