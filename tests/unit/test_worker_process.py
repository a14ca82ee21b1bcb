"""Workers of `hpsearch run`: as many as devices are free, and each takes its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from hpsearch.bridge.cards import Device, read_cards
from hpsearch.cli.worker import _is_over
from hpsearch.errors import HpsearchError
from hpsearch.launch import process
from hpsearch.launch.process import WorkerProcess, default_num_workers, share_cores, start_worker, worker_environment
from hpsearch.opening.trainers import trainer_starter
from hpsearch.worker.device_lock import HeldDevice, hold
from tests.unit.nvml_fixtures import FakeCard, FakeNvml, gpu
from tests.unit.worker_fixtures import Demo


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Eight cards that no other test knows: the locks are real."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = FakeNvml(*(FakeCard(f"GPU-{uuid4()}") for _ in range(8)))
    monkeypatch.setattr("hpsearch.worker.devices.open_nvml", lambda: (nvml, ""))
    return nvml


@pytest.fixture
def held(machine: FakeNvml) -> Iterator[list[HeldDevice]]:
    """The cards 2 and 3, by somebody."""
    devices = [held for device in read_cards(machine).devices[2:4] if (held := hold(device))]
    assert len(devices) == 2
    yield devices
    for device in devices:
        device.release()


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("said", "number"), [("2", 1), ("0,3,5", 3), (None, 8), ("", 1)])
def test_there_are_as_many_workers_as_allowed_cards(
    said: str | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert default_num_workers() == number


@pytest.mark.usefixtures("machine", "held")
def test_a_card_in_parts_has_a_worker_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert default_num_workers(per_device=3) == 3  # of the second all parts are held, as one whole
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert default_num_workers(per_device=3) == 3


def test_cards_that_are_held_get_no_worker_and_it_is_said_by_whom(
    held: list[HeldDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    assert default_num_workers(told.append) == 6
    assert [line.rpartition(" (")[0] for line in told] == [
        f"{each.device} is held by process {os.getpid()}" for each in held
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert default_num_workers() == 1  # it waits


def test_a_card_that_is_refused_gets_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lost = FakeNvml(gpu(0, error=15), FakeCard(f"GPU-{uuid4()}"))
    monkeypatch.setattr("hpsearch.worker.devices.open_nvml", lambda: (lost, ""))
    told: list[str] = []
    assert default_num_workers(told.append) == 1
    assert told == ["left out: GPU 0: GPU is lost"]


def environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    seen: list[Any] = []
    monkeypatch.setattr(process.subprocess, "Popen", lambda *_, env, **__: seen.append(env))
    start_worker(["study.yaml"], share_cores(2), None)
    return dict(seen[0])


@pytest.mark.usefixtures("machine")
@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("said", ["2", "3,1", "GPU-1", None])
def test_a_worker_is_given_no_card_but_what_the_person_allows(
    said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    environment = environment_of_a_worker(monkeypatch)
    assert environment.get("CUDA_VISIBLE_DEVICES") == said
    assert "OMP_NUM_THREADS" not in environment


def test_workers_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert environment_of_a_worker(monkeypatch)["OMP_NUM_THREADS"] == "4"


def test_a_driver_that_does_not_answer_ends_nobody_who_replaces_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("hpsearch.worker.devices.open_nvml", lambda: (None, "Unknown Error"))
    assert environment_of_a_worker(monkeypatch)["HPSEARCH_STARTED_BY_RUN"] == str(os.getpid())


@pytest.mark.parametrize(("said", "keeper"), [(None, None), ("1", None), ("4711", 4711)])
def test_a_worker_knows_who_keeps_it(said: str | None, keeper: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of a container has the number 1, and so had every keeper by older versions."""
    monkeypatch.delenv("HPSEARCH_STARTED_BY_RUN", raising=False)
    if said:
        monkeypatch.setenv("HPSEARCH_STARTED_BY_RUN", said)
    assert process.keeper_of_this() == keeper
    monkeypatch.setattr(process.subprocess, "Popen", lambda *_, env, **__: env)
    assert "HPSEARCH_STARTED_BY_RUN" not in process.start_detached([], {}, None)  # type: ignore[operator]


def test_a_worker_hears_what_was_asked_while_its_keeper_had_none(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPSEARCH_STARTED_BY_RUN", raising=False)
    assert process.seconds_kept() > 0
    monkeypatch.setattr(process, "seconds_alive", float)
    assert process.seconds_kept() == os.getpid()
    monkeypatch.setenv("HPSEARCH_STARTED_BY_RUN", str(os.getppid()))
    assert process.seconds_kept() == os.getppid()
    assert not _is_over(demo.store, demo.study.study_id)
    demo.store.orders.stop(demo.study.study_id, now=False)
    assert _is_over(demo.store, demo.study.study_id), "one that waits for a device leaves"
    monkeypatch.setattr(process, "seconds_kept", lambda: -1.0)
    assert not _is_over(demo.store, demo.study.study_id), "it began later"


def test_a_worker_is_told_the_store_and_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPSEARCH_STORAGE", raising=False)
    url = make_url("postgresql+psycopg://me:secret@host/hpsearch")
    given = worker_environment(url, Path("/storage"))
    assert given == {
        "HPSEARCH_STORE": "postgresql+psycopg://me:secret@host/hpsearch",
        "HPSEARCH_STORAGE": "/storage",
    }
    monkeypatch.setenv("HPSEARCH_STORAGE", "s3://bucket/x")
    assert worker_environment(url, Path("/cache"))["HPSEARCH_STORAGE"] == "s3://bucket/x"


def test_final_trainings_and_evaluations_hold_a_device_too(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    del workplace
    started: list[tuple[Any, ...]] = []
    taken: list[HeldDevice] = []

    def hold_and_note(device: Device) -> HeldDevice | None:
        if (held := hold(device)) is not None:
            taken.append(held)
        return held

    monkeypatch.setattr("hpsearch.worker.take_device.hold", hold_and_note)
    monkeypatch.setattr("hpsearch.bridge.trainer_process.TrainerProcess", lambda *asked: started.append(asked))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    (device,) = [each for each in read_cards(machine).devices if each.index == 3]
    start = trainer_starter("final")
    start()
    start()
    assert [environment for _, environment, _ in started] == [{"CUDA_VISIBLE_DEVICES": device.uuid}] * 2
    assert hold(device) is None
    with pytest.raises(HpsearchError, match=r"no device is free\n  .* is held by process"):
        trainer_starter("evaluation")()
    taken[0].release()


def test_a_worker_that_was_killed_is_said_so_whatever_it_wrote_last(tmp_path: Path) -> None:
    log = tmp_path / "worker.txt"
    log.write_text("09:18:07 trial 1 starts: lora.r 32\n")
    job = WorkerProcess(subprocess.Popen(["sleep", "60"]), log)
    job.process.kill()
    job.process.wait()
    assert job.last_line() == "killed (signal 9)"
    failed = WorkerProcess(subprocess.Popen(["false"]), log)
    failed.process.wait()
    assert failed.last_line() == "09:18:07 trial 1 starts: lora.r 32"
