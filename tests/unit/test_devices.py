"""Which devices a worker may take: CUDA_VISIBLE_DEVICES as CUDA reads it, cards that NVML refuses, divided cards."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from hpsearch.bridge import cards as cards_module
from hpsearch.bridge.cards import CPU, open_nvml, read_cards
from hpsearch.errors import HpsearchError, InputError
from hpsearch.results import doctor
from hpsearch.worker.devices import Devices, find_devices, visible_devices
from tests.unit.nvml_fixtures import FakeNvml, eight, gpu, part

LOST = pynvml.NVML_ERROR_GPU_IS_LOST
DIVIDED = [None, part(0), part(1), None]


def allowed(said: str | None, nvml: FakeNvml | None = None, **more: str) -> Devices:
    environment = more if said is None else more | {"CUDA_VISIBLE_DEVICES": said}
    return visible_devices(environment, read_cards(nvml or eight()))


def indices(said: str | None, nvml: FakeNvml | None = None) -> list[int]:
    return [device.index for device in allowed(said, nvml).allowed]


def test_the_fake_is_like_pynvml() -> None:
    for name, value in vars(FakeNvml).items():
        if name.startswith("_"):
            continue
        real = getattr(pynvml, name)
        if inspect.isfunction(value):
            _, *arguments = inspect.signature(value).parameters
            assert arguments == list(inspect.signature(real).parameters), name
        else:
            assert value is real


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (None, list(range(8))),
        ("2", [2]),
        ("2,1", [2, 1]),
        (" 3 , 0", [3, 0]),
        ("0,2,-1,1", [0, 2]),
        ("0,9,1", [0]),
        ("1,gpu2,3", [1]),
        ("1gpu,2", [1, 2]),
        ("GPU-1", [0]),
        (f"{gpu(5).uuid},GPU-3", [5, 2]),
        ("GPU-7,0,GPU-1", [6]),
        ("GPU-4,GPU-9,GPU-1", [3]),
    ],
)
def test_the_variable_allows_what_cuda_would_see_in_its_order(said: str | None, found: list[int]) -> None:
    assert indices(said) == found


@pytest.mark.parametrize("said", ["", " ", "-1", "-1,0", "NoDevFiles", "none"])
def test_no_card_at_all_means_the_cpu(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert allowed(said).allowed == (CPU,)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert find_devices() == Devices((CPU,), notes=(f"CUDA_VISIBLE_DEVICES={said} allows no card",))


@pytest.mark.parametrize("said", ["9", "cuda:1", "GPU-x", "GPU-", "MIG-1"])
def test_a_variable_that_names_nothing_is_refused_with_what_there_is(said: str) -> None:
    with pytest.raises(InputError) as refused:
        allowed(said)
    assert str(refused.value).startswith(f"CUDA_VISIBLE_DEVICES={said}: '{said}' names no card of this machine")
    assert str(refused.value).count("\n  GPU ") == 8
    assert "to train on the CPU" in str(refused.value)


@pytest.mark.parametrize("said", ["1,1", f"GPU-1,{gpu(0).uuid}", "GPU-2,GPU-2"])
def test_a_card_named_twice_is_refused(said: str) -> None:
    with pytest.raises(InputError, match="names a card twice"):
        allowed(said)


def test_it_is_said_where_cuda_stops_reading() -> None:
    (note,) = allowed("0,9,1").notes
    assert note == "CUDA_VISIBLE_DEVICES=0,9,1: CUDA stops reading at '9', which names no card here"
    assert allowed("0,1").notes == ()


def test_it_is_said_that_the_fastest_card_is_not_the_first() -> None:
    mixed = FakeNvml(gpu(0, name="NVIDIA T4"), gpu(1))
    (note,) = allowed("1,0", mixed).notes
    assert "as nvidia-smi counts, not fastest card first (NVIDIA A100-SXM4-80GB, NVIDIA T4)" in note
    assert allowed("1,0", mixed, CUDA_DEVICE_ORDER="PCI_BUS_ID").notes == ()
    assert allowed("GPU-1,GPU-2", mixed).notes == ()


def test_a_card_that_is_refused_is_reported_and_the_others_are_there() -> None:
    nvml = FakeNvml(gpu(0), gpu(1, error=LOST), gpu(2))
    found = allowed(None, nvml)
    assert [device.index for device in found.allowed] == [0, 2]
    assert found.refused == ("GPU 1: GPU is lost",)
    assert indices("2,1", nvml) == [2]
    assert allowed("2,1", nvml).refused == ("GPU 1: GPU is lost",)
    assert allowed("2", nvml).refused == ()


def test_a_uuid_that_may_be_the_refused_cards_hides_no_other() -> None:
    found = allowed("GPU-2,GPU-3", FakeNvml(gpu(0), gpu(1, error=LOST), gpu(2)))
    assert [device.index for device in found.allowed] == [2]
    assert found.refused == ("GPU-2 is not among the cards that respond", "GPU 1: GPU is lost")


def test_another_jobs_card_counts_for_nothing() -> None:
    nvml = FakeNvml(gpu(0, error=pynvml.NVML_ERROR_NO_PERMISSION), gpu(1), gpu(2))
    assert [device.uuid for device in allowed("0", nvml).allowed] == [gpu(1).uuid]
    assert allowed(None, nvml).refused == ()


@pytest.mark.parametrize(
    "said", [None, "0", gpu(0).uuid, "MIG-1,MIG-2", f"MIG-{gpu(0).uuid}/1/0,MIG-{gpu(0).uuid}/2/0"]
)
def test_a_divided_card_is_its_instances(said: str | None) -> None:
    found = allowed(said, FakeNvml(gpu(0, parts=DIVIDED)))
    assert [device.uuid for device in found.allowed] == [part(0).uuid, part(1).uuid]
    assert str(found.allowed[0]).startswith("a MIG instance of GPU 0 (NVIDIA A100-SXM4-80GB MIG 3g.40gb, MIG-1")


def test_one_instance_by_its_name() -> None:
    nvml = FakeNvml(gpu(0, parts=DIVIDED), gpu(1))
    for name in (part(1).uuid, "MIG-2", f"MIG-{gpu(0).uuid}/2/0"):
        assert [device.uuid for device in allowed(name, nvml).allowed] == [part(1).uuid]
    assert [device.uuid for device in allowed("1", nvml).allowed] == [gpu(1).uuid]


def test_a_divided_card_without_parts_can_not_be_used() -> None:
    found = allowed(None, FakeNvml(gpu(0), gpu(1, parts=[])))
    assert [device.index for device in found.allowed] == [0]
    assert found.refused == ("GPU 1: MIG is on, but it is divided into no instance",)


def test_what_was_set_aside_is_left_out_with_its_reason() -> None:
    found = allowed("0,1").without({gpu(1).uuid: "killed two trainers", gpu(7).uuid: "not here"})
    assert [device.index for device in found.allowed] == [0]
    assert found.refused == (f"GPU 1 (NVIDIA A100-SXM4-80GB, {gpu(1).uuid}): killed two trainers",)


def test_a_machine_without_cards_works_on_the_cpu() -> None:
    assert allowed(None, FakeNvml()).allowed == (CPU,)


@pytest.fixture
def control_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In place of /dev/nvidiactl; NVML is not there yet."""
    monkeypatch.setattr(cards_module, "_CONTROL_NODE", tmp_path / "nvidiactl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards_module._initialised.cache_clear()
    yield tmp_path / "nvidiactl"
    cards_module._initialised.cache_clear()


def fail_with(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_without_a_driver_there_is_nothing_to_tell(
    code: int, control_node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(code, monkeypatch)
    assert open_nvml() == (None, "")
    assert find_devices() == Devices((CPU,))
    control_node.touch()
    with pytest.raises(HpsearchError, match="there is an NVIDIA driver, but it can't list its cards"):
        find_devices()


def test_a_driver_that_was_updated_meanwhile_is_said(control_node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, monkeypatch)
    assert not control_node.exists()
    with pytest.raises(HpsearchError, match=r"NVML: RM has detected an NVML/RM version mismatch.*\n.*restart"):
        find_devices()
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    assert open_nvml() == (pynvml, "")


def test_doctor_tells_what_there_is_and_what_is_refused(control_node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not control_node.exists()
    machine = FakeNvml(gpu(0), gpu(1, error=LOST))
    monkeypatch.setattr("hpsearch.worker.devices.open_nvml", lambda: (machine, ""))
    check = doctor._devices()
    assert check.verdict == "limited"
    assert check.found == f"GPU 0 (NVIDIA A100-SXM4-80GB, {gpu(0).uuid})\nGPU 1: GPU is lost"
    monkeypatch.setattr("hpsearch.worker.devices.open_nvml", lambda: (None, "Unknown Error"))
    assert (doctor._devices().verdict, doctor._devices().found.count("\n")) == ("fails", 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (doctor._devices().verdict, doctor._devices().found.split("\n")[0]) == ("works", "the CPU")


@pytest.mark.parametrize(
    ("allowed", "of_machine", "told"), [(1, 1, "1 core,"), (1, 8, "1 core of 8,"), (8, 8, "8 cores,")]
)
def test_doctor_tells_the_cores_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, allowed: int, of_machine: int, told: str
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr("os.cpu_count", lambda: of_machine)
    assert doctor._host().found.startswith(told)


def test_doctor_tells_how_large_a_cache_is_while_trainers_drop_files_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor._cache("image features", tmp_path / "none").found == f"none in {tmp_path / 'none'}"
    (tmp_path / "key").mkdir()
    for name in ("dropped", "kept"):
        (tmp_path / "key" / name).write_bytes(b"\0" * 2**26)
    listed = list(os.walk(tmp_path))
    (tmp_path / "key" / "dropped").unlink()
    monkeypatch.setattr(os, "walk", lambda _: listed)
    assert doctor._cache("image features", tmp_path).found.startswith(f"0.1 GiB in {tmp_path}, which may be deleted")
