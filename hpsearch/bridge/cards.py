"""The machine's GPUs as NVML shows them. If NVML gives an error for one card, that error is kept with the card.

Nothing here touches CUDA: a control plane that opened a CUDA context would hold device memory for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

_CONTROL_NODE = Path("/dev/nvidiactl")
"""Exists where a process may use an NVIDIA driver. (/proc/driver/nvidia shows in containers without any card.)"""

PARTS_VARIABLE = "HPSEARCH_DEVICE_PARTS"
"""Tells a trainer into how many parts its device is divided."""

T = TypeVar("T")


@dataclass(frozen=True)
class Device:
    """What one worker holds: a card, one MIG instance of a divided card, or a CPU place."""

    uuid: str
    """GPU-… or MIG-…, as CUDA_VISIBLE_DEVICES names it; the same on every machine and in every container."""
    name: str
    index: int
    """The card's number in nvidia-smi and CUDA_VISIBLE_DEVICES; from 0."""
    card_uuid: str = ""
    """The UUID of the whole card, where this is a MIG instance."""
    old_name: str = ""
    """MIG-GPU-…/3/0: the name of this MIG instance in drivers before R470."""
    part: int = 1
    """Which of its `parts`, from 1: several workers share a large card, each with its part of the memory."""
    parts: int = 1

    @property
    def is_cpu(self) -> bool:
        return self == CPU

    @property
    def card(self) -> str:
        """The UUID of the whole card."""
        return self.card_uuid or self.uuid

    def __str__(self) -> str:
        if self.is_cpu:
            return self.name
        kind = "a MIG instance of GPU" if self.card_uuid else "GPU"
        part = f", part {self.part} of {self.parts}" if self.parts > 1 else ""
        return f"{kind} {self.index} ({self.name}, {self.uuid}{part})"


CPU = Device(uuid="cpu", name="the CPU", index=0)
"""Any number of workers share it."""


@dataclass(frozen=True)
class Refused:
    """A card that NVML can't read, and why."""

    index: int
    reason: str

    def __str__(self) -> str:
        return f"GPU {self.index}: {self.reason}"


@dataclass(frozen=True)
class Cards:
    devices: tuple[Device, ...]
    refused: tuple[Refused, ...]

    @property
    def num_cards(self) -> int:
        return len({device.index for device in self.devices} | {card.index for card in self.refused})


def open_nvml() -> tuple[Any, str]:
    """NVML, initialised, or None and the reason; the reason is '' without an NVIDIA driver."""
    import pynvml

    try:
        return _initialised(), ""
    except pynvml.NVMLError as error:
        is_missing = error.value in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return None, "" if is_missing and not _CONTROL_NODE.exists() else str(error)


@cache
def _initialised() -> Any:
    """A failure is not cached: a driver may be there at the next call."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def read_cards(nvml: Any) -> Cards:
    """Every device of this machine, in the order of nvidia-smi. Raises NVMLError where even their number can't be
    read.
    """
    devices, refused = ask_each(nvml, partial(_devices_of, nvml))
    empty = [
        Refused(index, "MIG is on, but it is divided into no instance")
        for index, found in enumerate(devices)
        if not found and index not in {card.index for card in refused}
    ]
    return Cards(tuple(device for card in devices for device in card), (*refused, *empty))


def ask_each(nvml: Any, ask: Callable[[int, Any], list[T]]) -> tuple[list[list[T]], list[Refused]]:
    """Each card's answer to `ask(index, handle)`; cards that NVML can't read are returned separately.

    A card of another job (forbidden by a cgroup) is skipped, also in CUDA's numbering, although NVML counts it
    (https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html, nvmlDeviceGetCount_v2).
    """
    answers: list[list[T]] = []
    refused = []
    for number in range(nvml.nvmlDeviceGetCount()):
        index = len(answers)
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
        except nvml.NVMLError_NoPermission:
            continue
        except nvml.NVMLError as error:
            answers.append([])
            refused.append(Refused(index, str(error)))
            continue
        try:
            answers.append(ask(index, handle))
        except (nvml.NVMLError, nvml.NVMLLibraryMismatchError) as error:
            answers.append([])
            refused.append(Refused(index, str(error)))
    return answers, refused


def parts_of(nvml: Any, handle: Any) -> list[Any] | None:
    """The handles of a card's MIG instances; None for a card that is not divided."""
    try:
        is_divided = nvml.nvmlDeviceGetMigMode(handle)[0]
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return None
    if not is_divided:
        return None
    parts = []
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            parts.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
        except nvml.NVMLError_NotFound:  # most MIG positions are empty
            continue
    return parts


def _devices_of(nvml: Any, index: int, handle: Any) -> list[Device]:
    card, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
    parts = parts_of(nvml, handle)
    if parts is None:
        return [Device(card, name, index)]
    return [
        Device(
            uuid=nvml.nvmlDeviceGetUUID(part),
            name=nvml.nvmlDeviceGetName(part),
            index=index,
            card_uuid=card,
            old_name=f"MIG-{card}/{nvml.nvmlDeviceGetGpuInstanceId(part)}/{nvml.nvmlDeviceGetComputeInstanceId(part)}",
        )
        for part in parts
    ]
