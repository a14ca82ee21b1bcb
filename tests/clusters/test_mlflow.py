"""A search and its final training, followed by a real MLflow server, which is cut off in the middle of another one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.conftest import REPOSITORY

from contract_servers import answers, free_port  # isort: skip  (beside the contract tests)

pytestmark = pytest.mark.cluster

SERVER = REPOSITORY / ".venv" / "mlflow" / "bin" / "mlflow"
"""Of an environment of its own, as `make clusters` makes it: the whole of MLflow wants an older pyarrow."""
PASSWORD = "tracking-pass-9471"
STUDY = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: rows.jsonl, max_tokens: 64}
training: {batch_size: 4, gradient_checkpointing: false}
budget: {max_steps: 4, reports: 4}
final: {max_steps: 2, reports: 1}
tracking: [mlflow]
search:
  trials: 3
  sampler: random
  pruner: {name: median, startup_trials: 1}
  space: {training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""


class Server:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
        self.log = (folder / "server.txt").open("wb")
        self.process = subprocess.Popen(
            [
                *(str(SERVER), "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder}/server.db"),
                *("--default-artifact-root", str(folder / "artifacts")),
            ],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            env=inherited | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )

    def wait(self) -> None:
        """Its start imports half of the Python world."""
        deadline = time.monotonic() + 240
        while not answers(self.port):
            assert self.process.poll() is None, "the server ended before it answered"
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def runs(self) -> dict[str, Run]:
        client = MlflowClient(f"http://127.0.0.1:{self.port}")
        experiment = client.get_experiment_by_name("demo")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        assert len({run.info.run_name for run in found}) == len(found), "one run for each"
        return {run.info.run_name: run for run in found}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if not SERVER.exists():
        pytest.fail(f"{SERVER} is missing: make clusters installs it")
    server = Server(tmp_path)
    try:
        server.wait()
        yield server
    finally:
        server.signal(signal.SIGKILL)
        server.process.wait(30)
        server.log.close()


def hpsearch(folder: Path, server: Server, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HPSEARCH_STOR")}
    done = subprocess.run(
        [sys.executable, "-m", "hpsearch", *arguments],
        cwd=folder,
        env=environment | {"MLFLOW_TRACKING_URI": f"http://me:{PASSWORD}@127.0.0.1:{server.port}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert PASSWORD not in done.stdout
    return done.stdout


def test_a_search_and_its_final_run_are_followed_and_an_outage_costs_nothing(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "demo.yaml").write_text(STUDY)
    rows = [{"question": f"Is {i} even or odd?", "answer": "odd" if i % 2 else "even"} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    hpsearch(folder, server, "run", "demo.yaml")
    hpsearch(folder, server, "train", "demo")
    runs = server.runs()
    (final,) = (name for name in runs if name.startswith("demo/final"))
    assert sorted(runs.keys() - {final}) == ["demo/trial-0000", "demo/trial-0001", "demo/trial-0002"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for run in runs.values():
        assert run.data.tags["outcome"] in ("complete", "pruned")
        assert run.data.metrics["value_loss"] > 0
        assert float(run.data.params["training.learning_rate"]) > 0
    rates = {runs[f"demo/trial-000{number}"].data.params["training.learning_rate"] for number in range(3)}
    assert len(rates) == 3

    server.signal(signal.SIGSTOP)  # connections are taken, and nothing is answered
    hpsearch(folder, server, "run", "demo.yaml", "--trials", "5")
    server.signal(signal.SIGCONT)
    logs = [file.read_text() for file in sorted((folder / "storage" / "trials").glob("*/000[34]/attempt-1/log.txt"))]
    assert [log.count("mlflow can't be told of this run") for log in logs] == [1, 1]
    results = (folder / "storage" / "trials").glob("*/*/attempt-1/result.json")
    outcomes = [json.loads(file.read_text()) for file in results]
    assert len(outcomes) == 5
    assert all(each["ledger"]["not_given_back"] == [] for each in outcomes)
    assert len(list((folder / "storage" / "trials").glob("*/*/attempt-*"))) == 5, "no trainer was ended for it"
    holders = [file for file in folder.rglob("*") if file.is_file() and PASSWORD.encode() in file.read_bytes()]
    assert holders == []
