"""Memory: sixty trials in one process, some pruned and some crashed on purpose, leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest

from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import images_of, write_rows
from hpsearch.data.rows import Row
from hpsearch.folders import JobFolder
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import MIB, Outcome, TrialConfig, TrialResult
from tests.integration.conftest import Driver, changed, text_config

NUM_TRIALS = 60
NUM_JUDGED = 40
MOST_MIB_PER_TRIAL = 0.1


def without_an_image(image_rows: tuple[Path, Path], folder: Path) -> Path:
    """Train rows of which one names an image that is not there: the trial crashes in the middle of an epoch."""
    from datasets import Dataset

    rows = [
        Row(row["id"], row["messages"], tuple(images_of(row)), None, row["label"], None)
        for row in Dataset.load_from_disk(str(image_rows[0]))
    ]
    gone = CheckedImage(folder / "gone.png", "gone")
    broken = [
        *rows[:20],
        Row("gone", rows[0].messages, (gone,), None, "dark", None),
    ]
    write_rows(broken, folder / "broken")
    return folder / "broken"


def slope_per_trial(values: list[float]) -> float:
    judged = values[-NUM_JUDGED:]
    return float(np.polyfit(range(len(judged)), judged, 1)[0])


@pytest.mark.slow
@pytest.mark.storm
def test_sixty_trials_leave_nothing_behind(
    start_driver: Callable[[], Driver],
    image_rows: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = changed(text_config(image_rows), task="vlm-sft", model__base="tiny:gemma3", lora__vision=True)
    broken_rows = without_an_image(image_rows, tmp_path)
    crashing = changed(config, train_rows=broken_rows, budget=BudgetSpec(epochs=1, reports=1))
    driver = start_driver()
    results = [_one(driver, tmp_path / str(number), number, config, crashing) for number in range(NUM_TRIALS)]

    outcomes = [result.outcome for result in results]
    assert outcomes.count(Outcome.PRUNED) == 12
    assert outcomes.count(Outcome.FAILED) == 6
    assert outcomes.count(Outcome.COMPLETE) == 42
    ledgers = [result.ledger for result in results if result.ledger]
    assert len(ledgers) == NUM_TRIALS
    host = slope_per_trial([ledger.after.host_rss_bytes / MIB for ledger in ledgers])
    device = slope_per_trial([ledger.after.device_allocated_bytes / MIB for ledger in ledgers])
    tensors = slope_per_trial([ledger.after.live_tensors for ledger in ledgers])
    with capsys.disabled():
        print(
            f"\n{NUM_TRIALS} trials, slopes over the last {NUM_JUDGED}: host {host:+.4f} MiB, "
            f"device {device:+.4f} MiB, tensors {tensors:+.4f} per trial; threads {ledgers[-1].after.threads}, "
            f"open files {ledgers[-1].after.file_descriptors}"
        )
    assert host <= MOST_MIB_PER_TRIAL
    assert device <= MOST_MIB_PER_TRIAL
    assert abs(tensors) < 1e-6
    assert [ledger.not_given_back for ledger in ledgers if not ledger.closes] == []
    assert len({ledger.after.base_fingerprint for ledger in ledgers}) == 1
    assert ledgers[-1].after.threads <= ledgers[10].after.threads
    assert ledgers[-1].after.file_descriptors <= ledgers[10].after.file_descriptors


def _one(driver: Driver, folder: Path, number: int, config: TrialConfig, crashing: TrialConfig) -> TrialResult:
    if number % 10 == 7:
        return driver.run(folder, crashing)
    varied = changed(
        config,
        lora__r=(4, 8, 16)[number % 3],
        lora__dropout=(0.0, 0.1)[number % 2],
        budget=BudgetSpec(max_steps=2, reports=2),
    )
    return driver.run(folder, varied, goes_on=lambda _: number % 5 != 3)


def test_a_crash_is_reported_with_its_trace_and_taints_the_process(
    start_driver: Callable[[], Driver], image_rows: tuple[Path, Path], tmp_path: Path
) -> None:
    config = changed(text_config(image_rows), task="vlm-sft", model__base="tiny:gemma3")
    crashing = changed(config, train_rows=without_an_image(image_rows, tmp_path), budget=BudgetSpec(epochs=1))
    driver = start_driver()
    result = driver.run(tmp_path / "trial", crashing)
    assert result.outcome is Outcome.FAILED
    assert result.reason is not None
    assert "gone.png" in result.reason
    assert result.traceback is not None
    assert "encoding.py" in result.traceback
    assert not driver.was_clean


def test_no_trial_answers_for_the_pools_of_a_machine_with_many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first large operation of a process starts them: on a host with a GPU that is a trial's first image."""
    import gc

    import psutil
    import torch

    from hpsearch.train import ledger
    from hpsearch.train.bases import Bases
    from hpsearch.train.ledger import LedgerBook
    from hpsearch.train.tasks import TASKS

    base = Bases(lambda *_: None).get(TASKS["text-sft"], text_config((Path(), Path())).model)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(num_threads + 13)
    try:
        book = LedgerBook()
        book.open(base)
        running = psutil.Process().num_threads()
        torch.rand(2**24).sqrt().sum()
        base.fresh_processor()(["one", "two"] * 100)
        assert psutil.Process().num_threads() == running
        assert book.close().closes
        monkeypatch.setattr(ledger, "start_pools", lambda _: torch.set_num_threads(num_threads + 26))
        book = LedgerBook()
        book.open(base)
        torch.rand(2**24).sqrt().sum()
        assert any(found.endswith(" threads") for found in book.close().not_given_back), "nothing to start: drop pools"
    finally:
        torch.set_num_threads(num_threads)
        gc.unfreeze()


def test_what_a_trial_keeps_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc

    import torch

    from hpsearch.train import ledger
    from hpsearch.train.bases import Bases
    from hpsearch.train.ledger import LedgerBook
    from hpsearch.train.tasks import TASKS

    base = Bases(lambda *_: None).get(TASKS["text-sft"], text_config((Path(), Path())).model)
    book = LedgerBook()
    book.open(base)
    assert book.close().closes
    kept = [torch.zeros(4) for _ in range(30)]
    assert book.close().not_given_back == ["30 tensors"]
    kept.clear()
    assert book.close().closes
    monkeypatch.setattr(ledger, "_HOST_TOLERANCE_BYTES", 64 * MIB)
    with (tmp_path / "library.so").open("wb+") as file:
        file.truncate(128 * MIB)
        with mmap(file.fileno(), 0) as pages:
            assert sum(pages[:: 2**12]) == 0
            after = book.close()
            assert after.after.host_rss_bytes - after.before.host_rss_bytes > 100 * MIB
            assert after.closes, "the kernel takes a file's pages back where it needs them"
    own = bytearray(range(256)) * (128 * MIB // 256)
    (found,) = book.close().not_given_back
    assert found.endswith(" MiB of host memory")
    del own
    next(base.model.parameters()).data.add_(1.0)
    assert book.close().not_given_back == ["a changed base model"]
    gc.unfreeze()  # what the ledger froze stays in this test process otherwise


def test_a_checksum_takes_little_memory() -> None:
    """Gemma 3's embeddings, 1.3 GiB on a card that is full to the brim, are summed after each trial."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from hpsearch.train.bases import _checksum

    data = torch.arange(2**22, dtype=torch.int32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        found = _checksum(data)
    assert found == int(data.view(torch.uint8).sum(dtype=torch.int64))
    assert 0 < max(event.cpu_memory_usage for event in seen.events()) <= 8 * 4 * MIB


def test_a_device_that_no_longer_answers_loses_no_result(
    text_rows: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CUDA error sticks to its process: the ledger, which asks the device, meets it again."""
    import gc

    from hpsearch.train import ledger, loop
    from hpsearch.train.serve import _is_clean
    from tests.integration.inside import Answering, Inside

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    inside = Inside()
    config = text_config(text_rows, budget=BudgetSpec(max_steps=1, reports=1))
    folder = JobFolder(tmp_path / "trial")
    folder.prepare(config)
    opened = loop.LedgerBook.open
    monkeypatch.setattr(
        loop.LedgerBook, "open", lambda *given: (opened(*given), monkeypatch.setattr(ledger, "give_back", broken))
    )
    monkeypatch.setattr(loop, "attach", broken)
    result = inside.attempt(Answering(), folder, config)
    assert (result.outcome, result.reason) == (
        Outcome.FAILED,
        "RuntimeError: CUDA error: an illegal memory access was encountered",
    )
    assert not _is_clean(result)
    gc.unfreeze()
