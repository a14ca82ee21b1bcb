"""Optuna's gRPC storage proxy before the database in which our workers write: 64 stock clients, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.storages import GrpcStorageProxy
from optuna.trial import TrialState

from tests.contract.contract_servers import PostgreSql

from contract_parts import created, opened, spec_of, start, exit_codes  # isort: skip  (beside the conftest)
from contract_children import claim_and_end  # isort: skip
from contract_servers import answers, free_port, until  # isort: skip

pytestmark = pytest.mark.cluster

CLIENTS = 64
TRIALS = 12
SERVE = """
import sys
from optuna.storages import get_storage, run_grpc_proxy_server
from hpsearch.store.engine import open_optuna_storage, parse_url
whose, url, port = sys.argv[1:]
storage = get_storage(url) if whose == "stock" else open_optuna_storage(parse_url(url, from_argv=False))
run_grpc_proxy_server(storage, host="127.0.0.1", port=int(port))
"""


@pytest.fixture
def url(postgresql: PostgreSql) -> Iterator[str]:
    name = postgresql.create(postgresql.template)
    yield postgresql.url(name)
    postgresql.drop(name)


@pytest.fixture(params=["stock", "ours"])
def port(request: pytest.FixtureRequest, url: str) -> Iterator[int]:
    """A proxy on Optuna's storage, and one on ours."""
    port = free_port()
    proxy = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVE, request.param, url, str(port)])
    until(lambda: answers(port), proxy)
    yield port
    proxy.terminate()
    proxy.wait(30)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_64_stock_clients_work_on_our_study_and_beside_it_while_our_workers_write(url: str, port: int) -> None:
    spec = spec_of(trials=TRIALS)
    with opened(url) as store:
        study_id = created(store, spec).study_id
        optuna.create_study(study_name="beside", storage=store.optuna)
        workers = [start(claim_and_end, url, spec.model_dump_json()) for _ in range(2)]
        with ThreadPoolExecutor(CLIENTS) as threads:
            told = list(threads.map(lambda number: work(port, number), range(CLIENTS)))
        assert exit_codes(workers) == [0, 0]
        assert store.leases.slots(study_id).finished == TRIALS
        ours = store.optuna.get_all_trials(study_id)
        beside = store.optuna.get_all_trials(store.optuna.get_study_id_from_name("beside"))
    assert [trial.number for trial in ours] == list(range(TRIALS + CLIENTS))
    assert [trial.number for trial in beside] == list(range(CLIENTS))
    assert {trial.state for trial in [*ours, *beside]} == {TrialState.COMPLETE}
    for trials, name in ((ours, "demo"), (beside, "beside")):
        found = {trial.number: (trial.value, trial.params["x"]) for trial in trials if "client" in trial.user_attrs}
        assert found == {one[name][0]: one[name][1:] for one in told}
    with_slot = [trial for trial in ours if "client" not in trial.user_attrs]
    assert len(with_slot) == TRIALS
    assert all(len(trial.intermediate_values) == 2 for trial in with_slot)


def work(port: int, client: int) -> dict[str, tuple[int, float, float]]:
    """Reads both studies and adds a trial to each: study → number, value and parameter."""
    storage = GrpcStorageProxy(host="127.0.0.1", port=port)
    done = {}
    for name in ("demo", "beside"):
        study = optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler(seed=client))
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        trial.report(x + 1, 1)
        trial.set_user_attr("client", client)
        study.tell(trial, x + 2)
        assert next(one.value for one in study.trials if one.number == trial.number) == x + 2
        done[name] = trial.number, x + 2, x
    storage.close()
    return done
