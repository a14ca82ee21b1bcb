"""Every message of torch about memory that ran out is understood, and reported with what the driver counts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from hpsearch.train import failure as room
from hpsearch.train import memory
from hpsearch.train.failure import failure
from hpsearch.train.memory import beside_torch
from hpsearch.trial import GIB, MIB, Outcome

TRIED = "CUDA out of memory. Tried to allocate "
PREEMPTED = (
    "CUDA out of memory. Allocation was preemptively rejected because it would exceed per_process_memory_fraction "
    "limit. Requested size: "
)
REJECTED = "Preemptively rejecting allocation: requested "
LIBRARIES = Path(torch.__file__).parent / "lib"


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        (f"{TRIED}2.50 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.2 GiB is free.", 2.5 * GIB),
        (f"{TRIED}20.00 MiB. GPU 0 has a total capacity of", 20 * MIB),
        (f"{PREEMPTED}512.00 MiB", 512 * MIB),
        (f"{PREEMPTED}1073741824", GIB),
        (f"{REJECTED}4096 bytes, but total_allocated_memory (9) + requested size would exceed memory limit (8)", 4096),
        (f"{TRIED}more than 1EB memory.", None),
    ],
)
def test_the_bytes_needed_are_read_from_torch_s_words(
    message: str, asked: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "host_rss_bytes", lambda: GIB)
    result = failure(torch.OutOfMemoryError(message))
    assert result.outcome is Outcome.OUT_OF_MEMORY
    assert result.bytes_needed == (None if asked is None else asked + GIB)


def test_what_an_allocator_of_the_cpu_says_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "host_rss_bytes", lambda: GIB)
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55, dtype=torch.uint8)
    result = failure(raised.value)
    assert (result.outcome, result.bytes_needed) == (Outcome.OUT_OF_MEMORY, 2**55 + GIB)


@pytest.mark.parametrize("words", [TRIED, PREEMPTED, REJECTED])
def test_torch_still_uses_these_words(words: str) -> None:
    library = LIBRARIES / "libc10_cuda.so"
    if not library.exists():
        pytest.skip("this torch is built without CUDA")
    assert words.encode() in library.read_bytes()


def test_a_library_that_can_t_allocate_on_the_device_is_out_of_memory() -> None:
    """By cuDNN's word for it, which is in its library; as a CUDA error it would count against the device."""
    word = "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
    assert failure(RuntimeError(f"cuDNN error: {word}")).outcome is Outcome.OUT_OF_MEMORY
    assert failure(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")).outcome is Outcome.FAILED
    spec = find_spec("nvidia.cudnn")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("this torch comes without cuDNN")
    (library,) = Path(spec.submodule_search_locations[0]).glob("lib/libcudnn_graph.so.*")
    assert word.encode() in library.read_bytes()


@pytest.mark.parametrize(("told", "beside"), [(3 * GIB, (GIB, False)), (None, (512 * MIB, True))])
def test_what_cuda_takes_besides_torch_s_pool(
    told: int | None, beside: tuple[int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2 * GIB)
    monkeypatch.setattr(memory, "device_bytes", lambda _: told)
    assert beside_torch() == beside
    result = failure(torch.OutOfMemoryError(f"{TRIED}1.00 GiB. GPU 0 has"))
    assert result.bytes_needed == (2 + 1) * GIB + beside[0]
