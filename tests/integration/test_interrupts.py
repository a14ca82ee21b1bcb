"""Ctrl-C and kills at any moment: nothing is lost, and the next `hpsearch run` continues the same trial."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from hpsearch.folders import JobFolder
from hpsearch.search.view import StudyView, TrialView, read_view
from hpsearch.spec import load_study
from hpsearch.store import Store
from tests.integration.conftest import Driver, hpsearch
from tests.integration.workplaces import Workplace

pytestmark = pytest.mark.slow

STUDY = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: "sklearn:breast_cancer", columns: {question: question, answer: answer, label: answer}, max_tokens: 256}
training: {batch_size: 4, gradient_checkpointing: false}
budget: {max_steps: 60, reports: 6, validation_fraction: 0.1}
final: {max_steps: 60, reports: 6, validation_fraction: 0.1}
search:
  trials: 1
  pruner: none
  space: {training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""


@pytest.fixture(scope="module")
def created(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study's file, and a store in which it has no trial yet."""
    folder = tmp_path_factory.mktemp("created")
    (folder / "demo.yaml").write_text(STUDY)
    place = Workplace(folder, driver.process)
    place.open(load_study(folder / "demo.yaml"))
    place.close()
    return folder


@pytest.fixture
def study(created: Path, workplace: Path) -> Path:
    shutil.copytree(created, workplace, dirs_exist_ok=True)
    return workplace / "demo.yaml"


def start(*arguments: str) -> subprocess.Popen[str]:
    """Runs the command in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "hpsearch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def view() -> StudyView | None:
    """The study as the store has it, or None before there is one."""
    database = Path("storage/hpsearch.db")
    if not database.exists():
        return None
    with Store(make_url(f"sqlite:///{database.resolve()}")) as store:
        found = store.studies.find("demo")
        return read_view(store, found) if found else None


def until(condition: Callable[[StudyView], bool], process: subprocess.Popen[str]) -> StudyView:
    """Looks until the condition holds; the process must not end before."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        seen = view()
        if seen is not None and condition(seen):
            return seen
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"it never came to that: {process.communicate(timeout=5)[0]}")


def has_reported(number: int) -> Callable[[StudyView], bool]:
    return lambda seen: len(seen.trials) > number and bool(seen.trials[number].reports)


def finished() -> TrialView:
    """The only trial, which has been trained to its end."""
    seen = view()
    assert seen is not None
    assert [trial.outcome for trial in seen.trials] == ["complete"]
    assert seen.slots.finished == 1
    assert len(seen.trials[0].reports) == 6
    return seen.trials[0]


def trained_steps(*folders: Path) -> int:
    """How many optimizer steps were trained in all attempts together, by the trainers' logs."""
    return sum(JobFolder(folder).log.read_text().count("'loss'") for folder in folders)


def attempts(trial: int) -> list[Path]:
    return sorted(Path("storage/trials").glob(f"demo-*/{trial:04d}/attempt-*"))


def pid_of_worker(seen: StudyView) -> int:
    return int(seen.live_workers[-1].worker_id.split(":")[-2])


@pytest.mark.storm
def test_ctrl_c_saves_the_trial_and_the_next_run_continues_it(study: Path) -> None:
    run = start("run", str(study))
    until(has_reported(0), run)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 130
    assert "Traceback" not in said
    assert "from its last checkpoint" in said
    seen = view()
    assert seen is not None
    assert seen.trials[0].outcome == "waiting"
    assert not seen.live_workers

    code, said = hpsearch("run", str(study))
    assert code == 0, said
    assert finished().facts["attempts"] == 2
    assert len(attempts(0)) == 2
    assert trained_steps(*attempts(0)) == 60, "a step was trained twice, or left out"


@pytest.mark.storm
def test_a_killed_trainer_and_a_killed_worker_cost_nothing(study: Path) -> None:
    run = start("run", str(study), "--trials", "2")
    seen = until(has_reported(0), run)
    trainer = next(iter(psutil.Process(pid_of_worker(seen)).children()))
    trainer.kill()
    seen = until(has_reported(1), run)
    os.kill(pid_of_worker(seen), signal.SIGKILL)
    said = run.communicate(timeout=240)[0]
    assert run.returncode == 0, said
    assert "another one starts" in said
    after = view()
    assert after is not None
    assert [trial.outcome for trial in after.trials] == ["complete"] * 2
    assert [trial.facts["attempts"] for trial in after.trials] == [2, 2]
    assert [len(trial.reports) for trial in after.trials] == [6, 6]


@pytest.mark.storm
def test_workers_leave_when_the_run_that_started_them_is_killed(study: Path) -> None:
    run = start("run", str(study))
    seen = until(has_reported(0), run)
    worker = psutil.Process(pid_of_worker(seen))
    run.kill()
    run.communicate()
    worker.wait(timeout=120)
    after = view()
    assert after is not None
    assert after.trials[0].outcome == "waiting"
    assert not after.live_workers
    code, said = hpsearch("run", str(study))
    assert code == 0, said
    assert finished().facts["attempts"] == 2


@pytest.mark.storm
def test_the_final_run_stops_cleanly_and_resumes(study: Path) -> None:
    train = start("train", str(study), "--no-search")
    assert train.stdout is not None
    for line in train.stdout:
        if line.startswith("validation 2/"):
            break
    train.send_signal(signal.SIGINT)
    rest = train.communicate(timeout=120)[0]
    assert train.returncode == 130, rest
    assert "--resume" in rest

    code, said = hpsearch("train", str(study), "--no-search")
    assert code == 2
    assert "continue with --resume" in said
    code, said = hpsearch("train", str(study), "--no-search", "--resume")
    assert code == 0, said
    assert "validation 1/6" not in said, "it starts over"
    folder = Path("storage/runs/demo-defaults")
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    assert list((folder / "tensorboard").glob("events.*"))
    assert trained_steps(folder) == 60
