"""The stock `optuna` command and the stock dashboard open a store that hpsearch filled, and do it no harm."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from contract_parts import MIXED, RATE, claimed, created, ended, ledger_of, result_of, spec_of, worked
from optuna.storages import RDBStorage
from optuna_dashboard import wsgi

from hpsearch.search import Search
from hpsearch.store import Store
from hpsearch.trial import GIB, Outcome, TrialResult

SPACE = {**RATE, "lora.target_modules": MIXED["lora.target_modules"]}


@pytest.fixture
def search(store: Store) -> Search:
    """A study with a trial of each outcome, the third the best of those that fit into the memory."""
    search = created(store, spec_of(space=SPACE, trials=7, budget={"memory_gib": 16}))
    search.describe()
    results = [
        result_of([3.0, 2.0]),
        TrialResult(outcome=Outcome.OUT_OF_MEMORY, bytes_needed=24 * GIB),
        result_of([2.0, 1.0], ledger=ledger_of(8 * GIB)),
        result_of([9.0], Outcome.PRUNED),
        TrialResult(outcome=Outcome.FAILED, reason="it crashed", traceback="Traceback …"),
        result_of([1.0, 0.5], ledger=ledger_of(24 * GIB)),
    ]
    for result in results:
        ended(search, claimed(store, search.study_id), result)
    search.start(claimed(store, search.study_id, "gone:1:1.00", duration_s=-1))
    return search


def stock_optuna(url: str, *arguments: str) -> Any:
    command = [str(Path(sys.executable).with_name("optuna")), *arguments, "--storage", url, "--study-name", "demo"]
    ran = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def asked(application: Any, path: str, query: str = "") -> Any:
    """The JSON that a web application answers a GET with."""
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query, "wsgi.input": io.BytesIO()}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    body = b"".join(application(environ, lambda status, _headers, _error=None: statuses.append(status)))
    assert statuses == ["200 OK"], body
    return json.loads(body)


@pytest.mark.usefixtures("search")
def test_the_optuna_command_reads_trials_and_the_best(store_url: str) -> None:
    trials = stock_optuna(store_url, "trials")
    states = [trial["state"] for trial in trials]
    assert states == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED", "FAIL", "COMPLETE", "RUNNING"]
    assert [trial["value"]["validation loss"] for trial in trials] == [2.0, None, 1.0, 9.0, None, 0.5, None]
    assert trials[4]["user_attrs"]["reason"] == "it crashed"
    assert all(set(trial["params"]) == set(SPACE) for trial in trials)
    assert stock_optuna(store_url, "best-trial")["number"] == 2


def test_the_stock_dashboard_shows_the_study(search: Search, store: Store, store_url: str) -> None:
    storage = RDBStorage(store_url)
    application = wsgi(storage)
    (study,) = asked(application, "/api/studies")["study_summaries"]
    assert (study["study_name"], study["directions"]) == ("demo", ["minimize"])

    page = asked(application, f"/api/studies/{search.study_id}", "after=0")
    states = [trial["state"] for trial in page["trials"]]
    assert states == ["Complete", "Pruned", "Complete", "Pruned", "Fail", "Complete", "Running"]
    assert page["objective_names"] == ["validation loss"]
    assert {attr["key"]: attr["value"] for attr in page["trials"][4]["user_attrs"]}["reason"] == "it crashed"
    assert [point["value"] for point in page["trials"][0]["intermediate_values"]] == [3.0, 2.0]
    assert {attr["key"] for attr in page["user_attrs"]} >= {"task", "base"}
    assert [item["name"] for item in page["union_search_space"]] == sorted(SPACE)
    storage.engine.dispose()

    assert len(worked(store, search)) == 1
    assert store.leases.slots(search.study_id).all_finished
