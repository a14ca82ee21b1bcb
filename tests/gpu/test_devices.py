"""Two workers on real cards: each has one of its own, and if there is one card only the second gets a message."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hpsearch.bridge.cards import open_nvml, read_cards
from hpsearch.errors import HpsearchError
from hpsearch.worker.device_lock import HeldDevice
from hpsearch.worker.devices import find_devices
from hpsearch.worker.take_device import free_devices, take_device

pytestmark = pytest.mark.needs_gpu

SEEN = """
import torch
assert torch.cuda.device_count() == 1
torch.ones(1, device="cuda")
print(torch.cuda.get_device_properties(0).uuid)
"""


class NeverStops:
    requested = False

    def wait(self, seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s")


def take() -> HeldDevice:
    held = take_device(find_devices, NeverStops(), lambda _: None, waits=False)
    assert held is not None
    return held


def card_that_torch_sees(held: HeldDevice) -> str:
    child = os.environ | held.environment
    ended = subprocess.run([sys.executable, "-c", SEEN], env=child, check=True, capture_output=True, text=True)
    return f"GPU-{ended.stdout.strip()}"


def test_each_worker_has_a_card_of_its_own_and_torch_sees_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, reason = open_nvml()
    assert nvml is not None, reason
    assert read_cards(nvml).refused == ()
    free = free_devices(find_devices())
    if not free:
        pytest.skip("every card is held by somebody else")
    taken = [take() for _ in free]
    try:
        assert {held.device for held in taken} == set(free)
        for held in taken:
            assert card_that_torch_sees(held) == held.device.card
        with pytest.raises(HpsearchError, match="no device is free"):
            take()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", free[0].uuid)
        with pytest.raises(HpsearchError, match=f"no device is free\\n  .*{free[0].uuid}"):
            take()
    finally:
        for held in taken:
            held.release()
    take().release()
