"""Taking a device: the next free one of those that are allowed. If all are taken, wait, or refuse with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hpsearch.bridge.cards import Device
from hpsearch.errors import HpsearchError
from hpsearch.worker.device_lock import HeldDevice, hold, holder_of
from hpsearch.worker.devices import Devices

_LOOK_EVERY_S = 1.0


class Stop(Protocol):
    """The part of `bridge.stopping.StopFlag` that is needed here."""

    @property
    def requested(self) -> bool: ...

    def wait(self, seconds: float) -> None: ...


def take_device(
    look: Callable[[], Devices],
    stop: Stop,
    tell: Callable[[str], None],
    *,
    waits: bool = True,
    is_over: Callable[[], bool] = lambda: False,
) -> HeldDevice | None:
    """Holds the next free device among those that `look` finds, and tells which.

    While all are held it tells by whom and waits, until a stop is requested or no work is left (`is_over`): then None.
    Without `waits`, and where no allowed device can be used at all, it raises HpsearchError.
    """
    said: set[str] = set()

    def tell_once(words: str) -> None:
        if words not in said:
            said.add(words)
            tell(words)

    is_waiting = False
    while not stop.requested:
        devices = look()
        for words in (*devices.notes, *(f"left out: {each}" for each in devices.refused)):
            tell_once(words)
        if not devices.allowed:
            raise HpsearchError("\n".join(["no device can be used here", *(f"  {each}" for each in devices.refused)]))
        if (held := _next_free(devices)) is not None:
            tell(f"takes {held.device}")
            return held
        if not waits:
            raise HpsearchError(_all_held(devices))
        if not is_waiting:
            tell(f"{_all_held(devices)}\nwaiting for the first that becomes free")
            is_waiting = True
        if is_over():
            return None
        stop.wait(_LOOK_EVERY_S)
    return None


def _next_free(devices: Devices) -> HeldDevice | None:
    return next((held for device in devices.allowed if (held := hold(device)) is not None), None)


def free_devices(devices: Devices) -> list[Device]:
    """The devices that no process holds now; the CPU is always among them."""
    return [device for device in devices.allowed if holder_of(device) is None]


def held_devices(devices: Devices) -> list[str]:
    """A line for each held device: which, and by whom."""
    holders = [(device, holder_of(device)) for device in devices.allowed]
    return [f"{device} is held by {holder}" for device, holder in holders if holder is not None]


def _all_held(devices: Devices) -> str:
    return "\n".join(["no device is free", *(f"  {line}" for line in held_devices(devices))])
