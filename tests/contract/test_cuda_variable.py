"""torch reads CUDA_VISIBLE_DEVICES without CUDA, after what CUDA does with it. We read it as torch does."""

from __future__ import annotations

from typing import Any

import pytest
from torch.cuda import _parse_visible_devices, _transform_uuid_to_ordinals  # type: ignore[attr-defined]

from hpsearch.bridge.cards import read_cards
from hpsearch.errors import InputError
from hpsearch.worker.devices import visible_devices
from tests.unit.nvml_fixtures import eight, gpu

SAID = (
    "0",
    "2,1",
    "0,2,-1,1",
    "1,1",
    "0,9,1",
    "7,8",
    "1gpu,2",
    "1,x,2",
    "3,GPU-1",
    "0,9,1,1",
    "GPU-1,GPU-2",
    "GPU-2,3",
)


@pytest.mark.parametrize("said", [*SAID, "GPU-1,GPU-1", "GPU-8,GPU-x,GPU-1", "GPU-", "gpu", "10", "MIG-1"])
def test_torch_reads_the_variable_like_us(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    names: list[Any] = _parse_visible_devices()
    if names and isinstance(names[0], str):
        names = _transform_uuid_to_ordinals(names, [gpu(number).uuid for number in range(8)])
    wanted = names[: next((at for at, number in enumerate(names) if number >= 8), None)]
    try:
        devices = visible_devices({"CUDA_VISIBLE_DEVICES": said}, read_cards(eight())).allowed
        assert [device.index for device in devices] == wanted
    except InputError:
        assert wanted == []
