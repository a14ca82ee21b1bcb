"""From a study's best trial to its final training: by name, by best.yaml elsewhere, and by the shell command."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpsearch.bridge.stopping import StopFlag
from hpsearch.folders import StorageFolder
from hpsearch.results.best import Best, as_command, choose
from hpsearch.search.view import read_view
from hpsearch.spec import StudySpec, load_study
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.study.open import open_study
from hpsearch.trial import Outcome, TrialConfig, TrialResult
from hpsearch.worker.worker import Worker
from tests.integration.command import TIMEOUT_S, Start, commands, ended
from tests.unit.opening_fixtures import inspecting
from tests.unit.worker_fixtures import HERE, by, plays

pytestmark = pytest.mark.slow

FILE = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: rows.jsonl, max_tokens: 64}
training: {batch_size: 4, gradient_checkpointing: false}
budget: {max_steps: 2, reports: 2}
final: {max_steps: 2, reports: 2}
search:
  trials: 6
  sampler: random
  pruner: none
  space:
    training.learning_rate: {low: 1e-4, high: 1e-2, log: true}
    lora.r: [4, 16]
    lora.dropout: {low: 0, high: 0.2}
    lora.target_modules: [[q_proj, v_proj], [up_proj]]
"""


def search(folder: Path, *overrides: str, file: str = "studies/demo.yaml") -> Best:
    """Searches with a trainer that only says that higher learning rates are better."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILE)
    rows = [{"question": f"Is {i} even or odd?", "answer": "odd" if i % 2 else "even"} for i in range(40)]
    (path.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    storage = StorageFolder(folder / "storage")
    storage.path.mkdir()
    with Store(parse_url(f"sqlite:///{storage.database}", from_argv=False)) as store:
        start = plays(inspecting())
        study = open_study(load_study(path, list(overrides)), store, storage, start, lambda *_: None, joins=False)
        Worker(study, store, HERE, by(score), StopFlag()).run()
        stored = store.studies.find("demo")
        assert stored is not None
        best = choose(read_view(store, stored), None)
    assert best.trial.number > 0, "the file's own values must not be the best: they would be used by mistake too"
    return best


def score(config: TrialConfig) -> list[float]:
    return [99.0, 1.0 - math.log(config.training.learning_rate)]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with commands() as start:
        yield start


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the study is searched, and its store and runs lie."""
    return tmp_path_factory.mktemp("desk")


@pytest.fixture(scope="module")
def best(desk: Path) -> Best:
    return search(desk)


@pytest.fixture(scope="module")
def runs(
    desk: Path,
    best: Best,  # noqa: ARG001
    start: Start,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The final training where the store is, and by best.yaml in a folder with a storage of its own."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    written = ended(start("hpsearch", "best", "demo", "-o", str(elsewhere / "best.yaml"), folder=desk))
    assert written.code == 0, written.complained
    here = start("hpsearch", "train", "demo", folder=desk)
    there = start("hpsearch", "train", "best.yaml", folder=elsewhere, HPSEARCH_STORAGE="other")
    for process in (here, there):
        trained = ended(process)
        assert trained.code == 0, trained.complained
    return {
        "study": desk / "storage" / "runs" / "demo",
        "best.yaml": elsewhere / "other" / "runs" / "demo",
    }


def config(run: Path) -> dict[str, Any]:
    """A run's config, except the run's name in trackers; of its rows, not their folder, but which they are."""
    content = json.loads((run / "config.json").read_text())
    del content["tracking"]
    return {key: Path(value).parts[-3:] if key.endswith("_rows") else value for key, value in content.items()}


def test_best_yaml_gives_the_same_training_without_the_store(runs: dict[str, Path], best: Best) -> None:
    results = [TrialResult.model_validate_json((run / "result.json").read_text()) for run in runs.values()]
    here, there = ([(report.step, report.loss) for report in result.reports] for result in results)
    assert [result.outcome for result in results] == [Outcome.COMPLETE] * 2
    assert [step for step, _ in here] == [1, 2]
    assert here == there, "not bit for bit the same"
    assert here[1][1] < here[0][1], "it learns"
    assert config(runs["study"]) == config(runs["best.yaml"])
    assert config(runs["study"])["training"]["learning_rate"] == best.values["training.learning_rate"]
    assert (runs["study"] / "manifest.json.gz").read_bytes() == (runs["best.yaml"] / "manifest.json.gz").read_bytes()
    assert not list(runs["best.yaml"].parents[1].glob("hpsearch.db*")), "no store was opened"


@pytest.mark.parametrize("which", ["study", "best.yaml"])
def test_tensorboard_has_both_loss_curves(runs: dict[str, Path], which: str) -> None:
    events = EventAccumulator(str(runs[which] / "tensorboard")).Reload()
    result = TrialResult.model_validate_json((runs[which] / "result.json").read_text())
    validation = [(event.step, event.value) for event in events.Scalars("eval/loss")]
    assert validation == [(report.step, pytest.approx(report.loss)) for report in result.reports]
    train = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert [step for step, _ in train] == [1, 2]
    assert all(0 < loss < 20 for _, loss in train)


def test_the_shell_command_gives_the_same_config(desk: Path, runs: dict[str, Path], start: Start) -> None:
    """The command is stopped as soon as its config is written: the same config is the same training."""
    written = ended(start("hpsearch", "best", "demo", "--format", "sh", folder=desk))
    assert written.code == 0, written.complained
    command = start("sh", "-c", written.said, folder=desk)
    run = desk / "storage" / "runs" / "demo-defaults"
    deadline = time.monotonic() + TIMEOUT_S
    while not (run / "config.json").exists():
        assert command.poll() is None, ended(command)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert config(run) == config(runs["study"])


def trained_by_command(best: Best, folder: Path) -> dict[str, Any]:
    """What the shell command would train, apart from how it names its data."""
    hpsearch, train, file, *flags = shlex.split(as_command(best))
    assert (hpsearch, train) == ("hpsearch", "train")
    return told(load_study(folder / file, [flag for flag in flags if "=" in flag]).spec)


def told(spec: StudySpec) -> dict[str, Any]:
    data = spec.data.model_copy(update={"source": "rows.jsonl", "manifest": None})
    return spec.model_copy(update={"search": None, "data": data}).model_dump()


def test_the_shell_command_says_the_same_as_best_yaml(best: Best, desk: Path) -> None:
    assert trained_by_command(best, desk) == told(best.final)


def test_the_shell_command_names_the_file_that_was_run(tmp_path: Path) -> None:
    best = search(tmp_path, file="mine.yaml")
    assert trained_by_command(best, tmp_path) == told(best.final)


def test_the_shell_command_keeps_what_the_study_was_run_with(tmp_path: Path) -> None:
    best = search(tmp_path, "final.max_steps=3", "data.max_tokens=48")
    assert trained_by_command(best, tmp_path) == told(best.final)


def test_a_base_in_a_folder_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert search(tmp_path, "model.base=./base", file="demo.yaml").final.model.base == str(tmp_path / "base")
