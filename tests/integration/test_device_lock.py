"""The lock on a device, with processes that race for it, and are killed while they hold it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from hpsearch.bridge.cards import CPU, Device
from hpsearch.errors import HpsearchError
from hpsearch.worker.device_lock import hold, holder_of
from hpsearch.worker.devices import Devices
from hpsearch.worker.take_device import free_devices, held_devices, take_device

WORKER = """
import subprocess, sys, time
from hpsearch.bridge.cards import Device
from hpsearch.errors import HpsearchError
from hpsearch.worker.devices import Devices
from hpsearch.worker.take_device import take_device

class Stop:
    requested = False
    def wait(self, seconds):
        time.sleep(0.01)

def tell(words):
    print(*words.split("\\n"), flush=True)

waits, has_trainer, *uuids = sys.argv[1:]
devices = Devices(tuple(Device(uuid, "card", index) for index, uuid in enumerate(uuids)))
print("ready", flush=True)
sys.stdin.readline()
try:
    held = take_device(lambda: devices, Stop(), tell, waits=waits == "waits")
except HpsearchError as error:
    print("refused:", *str(error).split("\\n"), flush=True)
    sys.exit(0)
if has_trainer == "trainer":
    trainer = subprocess.Popen(["sleep", "600"], pass_fds=held.file_descriptors, stdout=subprocess.DEVNULL)
    print(trainer.pid, flush=True)
sys.stdin.readline()
"""
"""A worker as far as devices go. It takes one when a line comes, and ends at the next."""


class Process:
    def __init__(self, devices: list[Device], waits: bool, has_trainer: bool) -> None:
        modes = ["waits" if waits else "asks", "trainer" if has_trainer else "alone"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *modes, *(device.uuid for device in devices)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        assert self.says() == "ready"

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def goes_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def die(self) -> None:
        self._process.kill()
        self._process.communicate()


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Process] = []

    def starting(devices: list[Device], *, waits: bool = True, has_trainer: bool = False) -> Process:
        started.append(Process(devices, waits, has_trainer))
        return started[-1]

    yield starting
    for process in started:
        process.die()


def some_devices(number: int) -> list[Device]:
    """Cards that no other test knows: the lock is the whole machine's."""
    return [Device(f"GPU-{uuid4()}", "card", index) for index in range(number)]


class NeverStops:
    requested = False

    def wait(self, seconds: float) -> None:
        raise AssertionError(f"it waits {seconds} s for a device that is free")


def test_eight_processes_race_for_three_devices(start: Start) -> None:
    devices = some_devices(3)
    processes = [start(devices, waits=False) for _ in range(8)]
    for process in processes:
        process.goes_on()
    said = [process.says() for process in processes]
    assert sorted(words for words in said if words.startswith("takes")) == [f"takes {device}" for device in devices]
    refused = [words for words in said if words.startswith("refused: no device is free")]
    assert len(refused) == 5
    assert all(words.count("is held by process") == 3 for words in refused)
    assert free_devices(Devices(tuple(devices))) == []


def test_a_killed_holders_device_is_the_next_ones(start: Start) -> None:
    (device,) = some_devices(1)
    first, second = start([device]), start([device])
    first.goes_on()
    assert first.says() == f"takes {device}"
    second.goes_on()
    said = second.says()
    assert said.startswith(f"no device is free   {device} is held by process {first.pid} (python")
    assert said.endswith("waiting for the first that becomes free")
    first.die()
    assert second.says() == f"takes {device}"


def test_a_worker_that_ends_gives_its_device_back(start: Start) -> None:
    (device,) = some_devices(1)
    first, second = start([device]), start([device])
    for process in (first, second):
        process.goes_on()
        process.says()
    first.goes_on()
    assert second.says() == f"takes {device}"


def test_a_trainer_that_outlives_its_worker_holds_the_device(start: Start) -> None:
    (device,) = some_devices(1)
    first, second = start([device], has_trainer=True), start([device])
    first.goes_on()
    assert first.says() == f"takes {device}"
    trainer = int(first.says())
    first.die()
    assert hold(device) is None
    assert holder_of(device) == f"the trainer of process {first.pid}, whose worker is gone"
    second.goes_on()
    assert "no device is free" in second.says()
    os.kill(trainer, signal.SIGKILL)
    assert second.says() == f"takes {device}"


def test_a_worker_that_ends_leaves_the_device_to_its_trainer() -> None:
    (device,) = some_devices(1)
    held = hold(device)
    assert held is not None
    assert held.environment == {"CUDA_VISIBLE_DEVICES": device.uuid}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=held.file_descriptors) as trainer:
        held.release()
        assert hold(device) is None
        trainer.communicate()
    again = hold(device)
    assert again is not None
    again.release()


def test_other_children_do_not_inherit_the_lock() -> None:
    (device,) = some_devices(1)
    held = hold(device)
    assert held is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as other:
        held.release()
        assert holder_of(device) is None
        other.communicate()


def test_asking_takes_nothing_and_may_be_done_often(start: Start) -> None:
    (device,) = some_devices(1)
    assert holder_of(device) is None
    process = start([device])
    process.goes_on()
    assert process.says() == f"takes {device}"
    assert str(holder_of(device)).startswith(f"process {process.pid} (python")
    for _ in range(6000):
        assert holder_of(device) is not None
    assert holder_of(device) == "an unknown process"
    assert hold(device) is None


def test_the_next_free_one_is_taken_and_it_is_said_which_are_held() -> None:
    devices = some_devices(3)
    first = hold(devices[0])
    assert first is not None
    told: list[str] = []
    second = take_device(lambda: Devices(tuple(devices), ("GPU 3: GPU is lost",)), NeverStops(), told.append)
    assert second is not None
    assert second.device == devices[1]
    assert told == ["left out: GPU 3: GPU is lost", f"takes {devices[1]}"]
    assert free_devices(Devices(tuple(devices))) == [devices[2]]
    assert [line.split(" is held by process ")[0] for line in held_devices(Devices(tuple(devices)))] == [
        str(devices[0]),
        str(devices[1]),
    ]
    first.release()
    second.release()


def test_parts_of_a_device_are_held_one_by_one_and_exclude_the_whole() -> None:
    (whole,) = some_devices(1)
    in_two, in_three = (Devices((whole,)).in_parts(parts) for parts in (2, 3))
    assert [str(device).rpartition(", ")[2] for device in in_two.allowed] == ["part 1 of 2)", "part 2 of 2)"]
    first = take_device(lambda: in_two, NeverStops(), lambda _: None)
    assert first is not None
    assert first.environment == {"CUDA_VISIBLE_DEVICES": whole.uuid, "HPSEARCH_DEVICE_PARTS": "2"}
    assert free_devices(in_two) == [in_two.allowed[1]]
    assert free_devices(in_three) == free_devices(Devices((whole,))) == []
    assert hold(whole) is None
    assert str(holder_of(whole)).startswith(f"process {os.getpid()}")
    second = hold(in_two.allowed[1])
    assert second is not None
    first.release()
    assert hold(in_three.allowed[0]) is None
    second.release()
    held = hold(whole)
    assert held is not None
    assert free_devices(in_two) == []
    held.release()


def test_the_cpu_is_everybodys() -> None:
    for _ in range(2):
        held = take_device(lambda: Devices((CPU,)), NeverStops(), lambda _: None)
        assert held is not None
        assert (held.device, held.environment, held.file_descriptors) == (CPU, {}, ())
    assert free_devices(Devices((CPU,))) == [CPU]


def test_where_every_allowed_card_is_refused_nobody_waits() -> None:
    with pytest.raises(HpsearchError, match=r"no device can be used here\n  GPU 0: GPU is lost"):
        take_device(lambda: Devices((), ("GPU 0: GPU is lost",)), NeverStops(), lambda _: None)


class StopsAtTheSecondLook:
    def __init__(self) -> None:
        self.num_waits = 0

    @property
    def requested(self) -> bool:
        return self.num_waits > 1

    def wait(self, seconds: float) -> None:
        assert 0 < seconds < 2
        self.num_waits += 1


def test_waiting_ends_with_a_stop_or_when_there_is_no_work_left() -> None:
    (device,) = some_devices(1)
    held = hold(device)
    assert held is not None
    told: list[str] = []
    stop = StopsAtTheSecondLook()
    assert take_device(lambda: Devices((device,)), stop, told.append) is None
    assert stop.num_waits == 2
    assert len(told) == 1  # it doesn't say the same at each look
    assert take_device(lambda: Devices((device,)), NeverStops(), told.append, is_over=lambda: True) is None
    held.release()
