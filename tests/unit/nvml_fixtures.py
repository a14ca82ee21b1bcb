"""A machine's cards without a driver: the calls of pynvml that hpsearch makes, over cards that a test writes down."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pynvml

MANY = 7
"""How many places for MIG instances an A100 has."""


@dataclass
class FakeCard:
    """A card, or with `instance` a MIG instance of one."""

    uuid: str
    name: str = "NVIDIA A100-SXM4-80GB"
    parts: list[FakeCard | None] | None = None
    """MIG instances by their place, some of them empty; None: MIG is off."""
    error: int | None = None
    """What NVML says instead of giving a handle."""
    processes_error: int | None = None
    running: list[tuple[int, int | None]] = field(default_factory=list)
    """Process ids and the bytes that they hold."""
    instance: tuple[int, int] = (0, 0)


class FakeNvml:
    """Raises pynvml's own exceptions. `test_the_fake_is_like_pynvml` compares the names and the arguments."""

    NVMLError = pynvml.NVMLError
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVMLError_NoPermission = pynvml.NVMLError_NoPermission
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLLibraryMismatchError = pynvml.NVMLLibraryMismatchError

    def __init__(self, *cards: FakeCard) -> None:
        self._cards = cards

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:  # noqa: N802
        return _unless(self._cards[index].error, self._cards[index])

    def nvmlDeviceGetUUID(self, handle: FakeCard) -> str:  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetName(self, handle: FakeCard) -> str:  # noqa: N802
        return handle.name

    def nvmlDeviceGetMigMode(self, device: FakeCard) -> list[int]:  # noqa: N802
        if "A100" not in device.name:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(device.parts is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, device: FakeCard) -> int:  # noqa: N802
        assert device.parts is not None
        return MANY

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: FakeCard, index: int) -> FakeCard:  # noqa: N802
        part = dict(enumerate(device.parts or [])).get(index)
        if part is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return _unless(part.error, part)

    def nvmlDeviceGetGpuInstanceId(self, device: FakeCard) -> int:  # noqa: N802
        return device.instance[0]

    def nvmlDeviceGetComputeInstanceId(self, device: FakeCard) -> int:  # noqa: N802
        return device.instance[1]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeCard) -> list[Any]:  # noqa: N802
        if handle.parts is not None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        found = [SimpleNamespace(pid=pid, usedGpuMemory=num_bytes) for pid, num_bytes in handle.running]
        return _unless(handle.processes_error, found)


def gpu(number: int, **more: Any) -> FakeCard:
    """The card of that number: its UUID begins with the number and is always the same."""
    return FakeCard(uuid=f"GPU-{UUID(int=(number + 1) << 124)}", **more)


def part(number: int, **more: Any) -> FakeCard:
    """A MIG instance."""
    uuid = UUID(int=(number + 1) << 124)
    return FakeCard(uuid=f"MIG-{uuid}", name="NVIDIA A100-SXM4-80GB MIG 3g.40gb", instance=(number + 1, 0), **more)


def eight() -> FakeNvml:
    return FakeNvml(*map(gpu, range(8)))


def _unless(error: int | None, answer: Any) -> Any:
    if error is not None:
        raise pynvml.NVMLError(error)
    return answer
