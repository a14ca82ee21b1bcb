"""One trial at a time, in a real trainer: what it learns, how it ends, how it continues after a kill."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hpsearch.bridge.protocol import Event, Progress, Reported, Stop
from hpsearch.checkpoints import last_checkpoint
from hpsearch.errors import TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import Outcome, TrialResult
from tests.integration.conftest import Driver, changed, text_config

Rows = tuple[Path, Path]
StartDriver = Callable[[], Driver]


def losses(result: TrialResult) -> list[float]:
    return [report.loss for report in result.reports]


def test_training_lowers_the_loss_and_tells_everything(driver: Driver, text_rows: Rows, tmp_path: Path) -> None:
    events: list[Event] = []
    config = text_config(text_rows, budget=BudgetSpec(max_steps=16, reports=4), training__learning_rate=5e-3)
    result = driver.run(tmp_path / "trial", config, each=events.append)
    assert result.outcome is Outcome.COMPLETE
    assert [report.step for report in result.reports] == [1, 2, 3, 4]
    assert losses(result)[-1] < 0.5 * losses(result)[0]
    assert result.num_steps == 16
    assert 0 < result.trainable_percent < 100
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == sorted(steps)
    assert steps[-1] == 16
    folder = JobFolder(tmp_path / "trial")
    assert sorted(path.name for path in folder.checkpoints.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-16"]
    assert folder.read_journal() == result.reports
    history = folder.read_history()
    assert [point.step for point in history] == list(range(1, 17))
    assert max(point.learning_rate for point in history) == pytest.approx(5e-3, rel=0.02)
    assert driver.was_clean


def test_metrics_are_reported_beside_the_loss(driver: Driver, text_rows: Rows, tmp_path: Path) -> None:
    config = text_config(text_rows, budget=BudgetSpec(max_steps=24, reports=2), training__learning_rate=5e-3)
    config = changed(config, objectives=["exact_match", "loss"])
    events: list[Event] = []
    result = driver.run(tmp_path / "trial", config, each=events.append)
    assert result.outcome is Outcome.COMPLETE, result.reason
    reported = [event.report for event in events if isinstance(event, Reported)]
    assert reported == result.reports
    assert all(set(report.metrics) == {"exact_match"} for report in reported)
    assert result.reports[-1].metrics["exact_match"] >= 0.5, "it says even or odd, if not always rightly"
    assert losses(result) == losses(driver.run(tmp_path / "loss", changed(config, objectives=["loss"])))


def test_the_worker_may_stop_it_at_a_report(driver: Driver, text_rows: Rows, tmp_path: Path) -> None:
    result = driver.run(tmp_path / "trial", text_config(text_rows), goes_on=lambda report: report.step < 1)
    assert result.outcome is Outcome.PRUNED
    assert len(result.reports) == 1
    assert result.num_steps == 2


def test_a_loss_that_is_no_number_ends_it(driver: Driver, text_rows: Rows, tmp_path: Path) -> None:
    config = text_config(text_rows, training__learning_rate=1e30, training__optimizer="sgd", training__warmup_ratio=0)
    result = driver.run(tmp_path / "trial", config)
    assert result.outcome is Outcome.DIVERGED
    assert not math.isfinite(losses(result)[-1])
    assert result.reason is not None
    assert "loss became" in result.reason
    assert driver.was_clean


def test_too_little_memory_is_an_answer(start_driver: StartDriver, text_rows: Rows, tmp_path: Path) -> None:
    rank = 2**34  # an adapter of terabytes, more than the allocator gives on any machine that tests run on
    driver = start_driver()
    result = driver.run(tmp_path / "trial", text_config(text_rows, lora__r=rank))
    assert result.outcome is Outcome.OUT_OF_MEMORY, result.reason
    assert result.bytes_needed is not None
    assert result.bytes_needed >= 128 * rank
    assert not driver.was_clean


def test_a_checkpoint_on_request_continues_as_if_nothing_had_happened(
    driver: Driver, start_driver: StartDriver, text_rows: Rows, tmp_path: Path
) -> None:
    config = text_config(text_rows, budget=BudgetSpec(max_steps=8, reports=2))
    whole = driver.run(tmp_path / "whole", config)
    asked = False

    def ask(event: Event) -> None:
        nonlocal asked
        if isinstance(event, Reported) and not asked:
            asked = True
            driver.process.send(Stop())

    stopped = driver.run(tmp_path / "trial", config, each=ask)
    assert stopped.outcome is Outcome.STOPPED
    assert stopped.num_steps < 8
    continued = start_driver().run(tmp_path / "trial", config)
    assert continued.outcome is Outcome.COMPLETE
    assert losses(continued) == losses(whole), "not bit for bit the same"


@pytest.mark.storm
def test_a_killed_trainer_continues_from_its_last_report(
    driver: Driver, start_driver: StartDriver, text_rows: Rows, tmp_path: Path
) -> None:
    config = text_config(text_rows, budget=BudgetSpec(max_steps=9, reports=3))
    whole = driver.run(tmp_path / "whole", config)
    victim = start_driver()

    def kill(event: Event) -> None:
        if isinstance(event, Reported) and event.step == 2:
            victim.process._process.send_signal(signal.SIGKILL)

    with pytest.raises(TrainerDied, match="signal 9"):
        victim.run(tmp_path / "trial", config, each=kill)
    checkpoint = last_checkpoint(JobFolder(tmp_path / "trial"))
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-6"
    steps: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, Progress):
            steps.append(event.step)

    continued = driver.run(tmp_path / "trial", config, each=note)
    assert steps[0] == 6, "it starts over"
    assert losses(continued) == losses(whole), "not bit for bit the same"


def test_loading_the_libraries_loads_no_compiler() -> None:
    """As long as bitsandbytes asks for one, a trainer's `TORCHDYNAMO_DISABLE` saves seconds of its start."""
    import sys
    from importlib.util import find_spec

    import bitsandbytes.backends.default.ops as ops

    assert "torch._inductor.compile_fx" not in sys.modules
    assert find_spec("torch._inductor.compile_fx"), "it has moved"
    assert "torch.compile(" in Path(str(ops.__file__)).read_text(), "the setting in trainer_process.py can go"


def test_signals_to_its_group_are_the_workers_to_handle(driver: Driver, text_rows: Rows, tmp_path: Path) -> None:
    """A terminal that closes, Ctrl-C and a scheduler reach the whole group."""
    children: list[int] = []

    def signalled(event: Event) -> None:
        if isinstance(event, Reported):
            children.append(len(psutil.Process(driver.process.pid).children(recursive=True)))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                driver.process._process.send_signal(number)

    result = driver.run(tmp_path / "trial", text_config(text_rows), each=signalled)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert children == [0, 0], "a process of its own may outlive it"


def test_a_trainer_ends_with_its_worker(start_driver: StartDriver) -> None:
    driver = start_driver()
    driver.process.next_event(60.0)
    driver.process._commands.close()  # what a worker's death looks like from the other end
    assert driver.process._process.wait(timeout=30) == 1


@pytest.mark.parametrize(
    ("num_steps", "num_reports", "wanted"),
    [
        (8, 4, {2: 1, 4: 2, 6: 3, 8: 4}),
        (10, 4, {3: 1, 5: 2, 8: 3, 10: 4}),
        (2, 4, {1: 2, 2: 4}),
        (1, 4, {1: 4}),
    ],
)
def test_reports_are_evenly_spaced(num_steps: int, num_reports: int, wanted: dict[int, int]) -> None:
    from hpsearch.train.reporter import report_steps

    assert report_steps(num_steps, num_reports) == wanted


def test_a_trial_without_quantization_trains_too(driver: Driver, text_rows: Rows, tmp_path: Path) -> None:
    result = driver.run(tmp_path / "trial", text_config(text_rows, model__quantization="none"))
    assert result.outcome is Outcome.COMPLETE, result.reason


@pytest.mark.parametrize("base", ["tiny:qwen2-vl", "tiny:qwen2.5-vl"])
def test_the_other_vision_bases_train(driver: Driver, image_rows: Rows, tmp_path: Path, base: str) -> None:
    config = changed(text_config(image_rows), task="vlm-sft", model__base=base, training__gradient_checkpointing=True)
    result = driver.run(tmp_path / "trial", config)
    assert result.outcome is Outcome.COMPLETE, result.reason
