"""Devices: which of this machine's a worker may take, as CUDA_VISIBLE_DEVICES says.

CUDA reads that variable silently: it stops at the first entry that it doesn't understand, and sees only the cards
before it (https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html). Here the same
devices result, and a message says what was left out.

Indices are nvidia-smi's. CUDA by itself would number the fastest card first (CUDA_DEVICE_ORDER is FASTEST_FIRST by
default), an order that can't be known without opening CUDA on every card. Trainers are given a UUID, so it doesn't
matter to them. An index or a UUID of a card that is divided (MIG) allows all of its instances.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from hpsearch.bridge.cards import CPU, Cards, Device, Refused, open_nvml, read_cards
from hpsearch.errors import HpsearchError, InputError

_VARIABLE = "CUDA_VISIBLE_DEVICES"
_NOTHING = ("", "none", "nodevfiles")
"""Values of CUDA_VISIBLE_DEVICES that hide every card; the last is SLURM's, for jobs that asked for none."""
_ON_THE_CPU = f"to train on the CPU, set {_VARIABLE} to an empty value"


@dataclass(frozen=True)
class Devices:
    """The devices found on the machine at one moment."""

    allowed: tuple[Device, ...]
    refused: tuple[str, ...] = ()
    """Devices that are allowed but can't be used, each with the reason."""
    notes: tuple[str, ...] = ()
    """What a person should know about how their CUDA_VISIBLE_DEVICES was read."""

    def without(self, aside: Mapping[str, str]) -> Devices:
        """Without those that are set aside (UUID → reason)."""
        left = tuple(device for device in self.allowed if device.uuid not in aside)
        reasons = [f"{device}: {aside[device.uuid]}" for device in self.allowed if device.uuid in aside]
        return replace(self, allowed=left, refused=(*self.refused, *reasons))

    def in_parts(self, parts: int) -> Devices:
        """Each device `parts` times, for as many workers."""
        numbers = range(1, parts + 1)
        shared = [
            device if device.is_cpu else replace(device, part=number, parts=parts)
            for number in numbers
            for device in self.allowed
        ]
        return replace(self, allowed=tuple(shared))


def find_devices() -> Devices:
    """Raises HpsearchError where the driver does not answer, InputError for a CUDA_VISIBLE_DEVICES that can't be
    read.
    """
    said = os.environ.get(_VARIABLE)
    if said is not None and _means_nothing(said):
        return Devices((CPU,), notes=(f"{_VARIABLE}={said} allows no card",))
    nvml, reason = open_nvml()
    if nvml is None and not reason:
        return Devices((CPU,))
    if nvml is None:
        raise HpsearchError(_silent_driver(reason))
    try:
        cards = read_cards(nvml)
    except nvml.NVMLError as error:
        raise HpsearchError(_silent_driver(str(error))) from None
    return visible_devices(os.environ, cards)


def visible_devices(environment: Mapping[str, str], cards: Cards) -> Devices:
    """The devices of `cards` that CUDA_VISIBLE_DEVICES allows, in its order."""
    said = environment.get(_VARIABLE)
    if not cards.num_cards or (said is not None and _means_nothing(said)):
        return Devices((CPU,))
    if said is None:
        return Devices(cards.devices, tuple(map(str, cards.refused)))
    entries = [entry.strip() for entry in said.split(",")]
    prefix = entries[0][:4]
    named = _by_name(entries, cards, prefix) if prefix in ("GPU-", "MIG-") else _by_index(entries, cards)
    if not named:
        raise InputError(_names_nothing(entries, cards))
    refused = dict.fromkeys(str(card) for each in named for card in each.refused)
    chosen = Devices(tuple(device for each in named for device in each.devices), tuple(refused))
    if len(set(chosen.allowed)) < len(chosen.allowed):
        raise InputError(_names_twice(entries))
    by_speed = environment.get("CUDA_DEVICE_ORDER", "FASTEST_FIRST") == "FASTEST_FIRST"
    return replace(chosen, notes=tuple(_notes(entries, len(named), chosen.allowed, by_speed)))


@dataclass(frozen=True)
class _Named:
    """What one entry of the variable names: a device, all parts of a divided card, or a card that NVML can't read."""

    devices: tuple[Device, ...] = ()
    refused: tuple[Refused | str, ...] = ()


def _by_index(entries: list[str], cards: Cards) -> list[_Named]:
    numbers = list(takewhile(lambda number: number >= 0, map(_number, entries)))
    if len(set(numbers)) < len(numbers):
        raise InputError(_names_twice(entries))
    return [
        _Named(
            tuple(device for device in cards.devices if device.index == number),
            tuple(card for card in cards.refused if card.index == number),
        )
        for number in takewhile(lambda number: number < cards.num_cards, numbers)
    ]


def _by_name(entries: list[str], cards: Cards, prefix: str) -> list[_Named]:
    """A UUID may be shortened while it is unique."""
    named = []
    for entry in takewhile(lambda entry: entry.startswith(prefix), entries):
        found = tuple(device for device in cards.devices if _is_called(device, entry))
        if len({device.card if prefix == "GPU-" else device.uuid for device in found}) == 1:
            named.append(_Named(found))
        elif not found and cards.refused:  # the UUID of a card that NVML can't read is unknown: it may be this one
            named.append(_Named(refused=(f"{entry} is not among the cards that respond", *cards.refused)))
        else:
            break
    return named


def _is_called(device: Device, name: str) -> bool:
    if name.startswith("GPU-"):
        return device.card.startswith(name)
    return device.uuid.startswith(name) or device.old_name == name


def _means_nothing(said: str) -> bool:
    first = said.split(",")[0].strip()
    return first.lower() in _NOTHING or first.startswith("-")


def _number(entry: str) -> int:
    """Like C's strtoul: "1gpu" is 1, "gpu1" is no index."""
    found = re.match(r"\+?\d+", entry)
    return int(found[0]) if found else -1


def _notes(entries: list[str], num_read: int, allowed: tuple[Device, ...], by_speed: bool) -> Iterator[str]:
    if num_read < len(entries):
        stop = entries[num_read]
        yield f"{_told(entries)}: CUDA stops reading at {stop!r}, which names no card here"
    models = sorted({device.name for device in allowed})
    if by_speed and len(models) > 1 and _number(entries[0]) >= 0:
        yield f"{_told(entries)} is read as nvidia-smi counts, not fastest card first ({', '.join(models)})"


def _names_nothing(entries: list[str], cards: Cards) -> str:
    known = "\n".join(f"  {each}" for each in (*cards.devices, *cards.refused))
    return f"{_told(entries)}: {entries[0]!r} names no card of this machine; there are\n{known}\n{_ON_THE_CPU}"


def _names_twice(entries: list[str]) -> str:
    return f"{_told(entries)} names a card twice, so that CUDA sees none at all: name each once"


def _told(entries: list[str]) -> str:
    return f"{_VARIABLE}={','.join(entries)}"


def _silent_driver(reason: str) -> str:
    return (
        f"there is an NVIDIA driver, but it can't list its cards (NVML: {reason})\n"
        "after an update of the driver restart the machine; in a container add 'utility' to "
        f"NVIDIA_DRIVER_CAPABILITIES; {_ON_THE_CPU}"
    )
