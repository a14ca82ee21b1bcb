"""The witness never raises: a card that refuses is a fact, and the others are still counted."""

from __future__ import annotations

import os

import pynvml
import pytest

from hpsearch.bridge import witness
from hpsearch.bridge.witness import DevicePeak, device_bytes, device_errors, host_bytes
from tests.unit.nvml_fixtures import FakeNvml, gpu, part

LOST, UNKNOWN = pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN


class Machine:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def has(self, *cards: object) -> None:
        self.says(FakeNvml(*cards))  # type: ignore[arg-type]

    def says(self, nvml: object, reason: str = "") -> None:
        self._monkeypatch.setattr(witness, "open_nvml", lambda: (nvml, reason))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_process_is_counted_on_all_cards(machine: Machine) -> None:
    machine.has(gpu(0, running=[(7, 100), (8, 5)]), gpu(1, running=[(7, 20), (9, None)]))
    assert (device_bytes(7), device_bytes(8), device_bytes(9)) == (120, 5, None)
    assert device_errors() == []


def test_a_peak_is_the_most_that_was_seen_and_silence_hides_none(machine: Machine) -> None:
    now = iter([0.0, 0.0, 0.1, *(second for second in range(1, 4) for _ in "ab")])
    peak = DevicePeak(7, lambda: next(now))
    machine.has(gpu(0, running=[(7, 100)]))
    peak.look()
    machine.has(gpu(0, running=[(7, 1000)]))
    peak.look()
    assert peak.num_bytes == 100, "asked again after a tenth of a second"
    machine.has(gpu(0, running=[(7, 300)]))
    peak.look()
    machine.says(None)
    peak.look()
    machine.has(gpu(0, running=[(7, 50)]))
    peak.look()
    assert peak.num_bytes == 300


@pytest.mark.parametrize("refusal", [{"error": LOST}, {"processes_error": UNKNOWN}])
def test_a_card_that_refuses_hides_no_other(machine: Machine, refusal: dict[str, int]) -> None:
    machine.has(gpu(0, **refusal), gpu(1, running=[(7, 20)]))
    assert device_bytes(7) == 20
    words = "GPU is lost" if "error" in refusal else "Unknown Error"
    assert device_errors() == [f"GPU 0: {words}"]


def test_a_divided_card_is_asked_instance_by_instance(machine: Machine) -> None:
    machine.has(gpu(0, parts=[None, part(0, running=[(7, 20)]), part(1, running=[(7, 1)])]))
    assert device_bytes(7) == 21
    assert device_errors() == []
    machine.has(gpu(0, parts=[]))
    assert device_errors() == []


class OldLibrary(FakeNvml):
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[object]:  # noqa: N802, ARG002
        raise pynvml.NVMLLibraryMismatchError("Unversioned function called")


class NoCount(FakeNvml):
    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        raise pynvml.NVMLError(UNKNOWN)


def test_an_nvml_that_fails_as_a_whole_is_a_fact_too(machine: Machine) -> None:
    machine.says(OldLibrary(gpu(0)))
    assert (device_bytes(7), device_errors()) == (None, ["GPU 0: Unversioned function called"])
    machine.says(NoCount())
    assert (device_bytes(7), device_errors()) == (None, ["NVML: Unknown Error"])
    machine.says(None, "Driver Not Loaded")
    assert (device_bytes(7), device_errors()) == (None, ["NVML: Driver Not Loaded"])
    machine.says(None)
    assert (device_bytes(7), device_errors()) == (None, [])


def test_host_memory_of_a_process_that_is_gone_is_none() -> None:
    assert host_bytes(os.getpid()) > 0
    assert host_bytes(2**22 + 1) == 0
