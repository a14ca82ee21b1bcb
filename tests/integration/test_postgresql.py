"""A study on a real PostgreSQL: two workers share it, neither loses nor doubles a trial, and stock tools read it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.search.view import StudyView, read_view
from hpsearch.spec import load_study
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.tables import leases
from hpsearch.study.open import open_study
from hpsearch.trial import Outcome, TrialResult
from tests.contract.contract_servers import PostgreSql
from tests.integration.command import TIMEOUT_S, Command, Ended, commands, ended
from tests.unit.opening_fixtures import inspecting
from tests.unit.worker_fixtures import plays

pytestmark = pytest.mark.slow

NUM_TRIALS = 4
FILE = f"""\
study: demo
task: text-sft
model: {{base: "tiny:qwen2"}}
data: {{source: rows.jsonl, max_tokens: 64}}
training: {{batch_size: 4, gradient_checkpointing: false}}
budget: {{max_steps: 2, reports: 2}}
search:
  trials: {NUM_TRIALS}
  pruner: none
  space: {{training.learning_rate: {{low: 1e-4, high: 1e-2, log: true}}}}
"""


class Searched:
    """The finished study, and how its two commands ended."""

    def __init__(self, url: str, folder: Path, run: Ended, worker: Ended) -> None:
        self.url, self.folder, self.run, self.worker = url, folder, run, worker
        with Store(parse_url(url, from_argv=False)) as store:
            self.view = view_of(store)
            chosen = select(leases).where(leases.c.study_id == self.view.study.study_id).order_by(leases.c.slot)
            with store.optuna.engine.begin() as connection:
                self.leases = connection.execute(chosen).all()

    def ask(self, *command: str) -> str:
        with commands() as start:
            answer = ended(start(*command, folder=self.folder))
        assert answer.code == 0, answer.complained
        return answer.said


def view_of(store: Store) -> StudyView:
    found = store.studies.find("demo")
    assert found is not None
    return read_view(store, found)


def until(condition: Callable[[], bool], *processes: Command) -> None:
    """Looks until the condition holds; none of the processes must end before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        over = [process for process in processes if process.poll() is not None]
        assert not over, f"it never came to that: {[ended(process) for process in over]}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def searched(postgresql: PostgreSql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """`hpsearch run` and, beside it, `hpsearch worker`, on a study that is in the database already.

    Nobody can store a loss before both have a trial: the table is locked until then. Whoever is ready first would
    else finish the study alone before the other one is there.
    """
    folder = tmp_path_factory.mktemp("searched")
    rows = [{"question": f"Is {i} even or odd?", "answer": "odd" if i % 2 else "even"} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "demo.yaml").write_text(FILE)
    url = postgresql.url(postgresql.create(postgresql.template)).replace(":@", "@")  # not even an empty password
    with commands() as start, Store(parse_url(url, from_argv=False)) as store:
        storage = StorageFolder(folder / "storage")
        file = load_study(folder / "demo.yaml")
        study = open_study(file, store, storage, plays(inspecting()), lambda *_: None, joins=False)
        with store.optuna.engine.begin() as connection:
            connection.execute(text("LOCK TABLE trial_intermediate_values IN EXCLUSIVE MODE"))
            started = [
                start("hpsearch", verb, "demo.yaml", "--store", url, folder=folder) for verb in ("run", "worker")
            ]
            until(lambda: store.leases.slots(study.study_id).leased == 2, *started)
        run, worker = (ended(process) for process in started)
        yield Searched(url, folder, run, worker)


def test_both_commands_end_well_when_the_study_is_finished(searched: Searched) -> None:
    assert searched.run.code == 0, searched.run.complained
    assert searched.worker.code == 0, searched.worker.complained
    assert "Traceback" not in searched.run.complained + searched.worker.complained
    assert f"demo is finished: {NUM_TRIALS} complete." in searched.run.said


def test_the_budget_is_exact_and_each_trial_ran_once(searched: Searched) -> None:
    assert [trial.number for trial in searched.view.trials] == list(range(NUM_TRIALS))
    assert [trial.outcome for trial in searched.view.trials] == ["complete"] * NUM_TRIALS
    assert [trial.facts["attempts"] for trial in searched.view.trials] == [1] * NUM_TRIALS
    assert searched.view.slots.finished == searched.view.slots.wanted == NUM_TRIALS
    assert len({lease.trial_id for lease in searched.leases}) == len(searched.leases) == NUM_TRIALS
    folders = [JobFolder(path) for path in sorted(searched.folder.glob("storage/trials/demo-*/*/attempt-1"))]
    results = [folder.read(TrialResult) for folder in folders]
    assert [result.outcome for result in results] == [Outcome.COMPLETE] * NUM_TRIALS
    for trial, result in zip(searched.view.trials, results, strict=True):
        assert trial.reports == {report.step: report.loss for report in result.reports}
        assert len(trial.reports) == 2


def test_both_workers_did_trials_and_left(searched: Searched) -> None:
    assert len({lease.worker_id for lease in searched.leases}) == 2
    assert {lease.worker_id for lease in searched.leases} == {worker.worker_id for worker in searched.view.workers}
    assert all(worker.gone for worker in searched.view.workers)


def test_status_shows_it(searched: Searched) -> None:
    said = searched.ask("hpsearch", "status", "demo", "--store", searched.url)
    assert f"{NUM_TRIALS}/{NUM_TRIALS}" in said
    assert said.count("complete") == NUM_TRIALS
    best = searched.view.best
    assert best is not None
    assert f"★ {best.number}" in said
    assert f"{best.value:.4f} (trial {best.number})" in said


def test_the_optuna_command_reads_its_trials(searched: Searched) -> None:
    command = ("optuna", "trials", "--storage", searched.url, "--study-name", "demo", "--format", "json")
    trials = json.loads(searched.ask(*command))
    assert [trial["state"] for trial in trials] == ["COMPLETE"] * NUM_TRIALS
    losses = [trial["value"]["validation loss"] for trial in trials]
    assert losses == [trial.value for trial in searched.view.trials]
    assert all(trial["user_attrs"]["ledger.closes"] for trial in trials)
