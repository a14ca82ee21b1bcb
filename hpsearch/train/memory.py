"""Freeing memory, and counting what is still held."""

from __future__ import annotations

import ctypes
import gc
import os
import traceback
from dataclasses import dataclass

import psutil
import torch

from hpsearch.bridge.cards import PARTS_VARIABLE
from hpsearch.bridge.witness import device_bytes
from hpsearch.trial import MIB

CONTEXT_BYTES = 512 * MIB
"""Memory of a CUDA context with torch's and bitsandbytes' kernels: a high estimate. CUDA loads each kernel at its first
call; and in some containers the context's size can't be read.
"""


def device_name() -> str:
    """The model of the device, such as its product name."""
    if torch.cuda.is_available():
        parts = device_parts()
        return torch.cuda.get_device_name(0) + (f", one of {parts} parts" if parts > 1 else "")
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'' if threads == 1 else 's'}"


def device_parts() -> int:
    """The number of workers that share this process's device; set by the worker (`worker.device_lock`)."""
    return int(os.environ.get(PARTS_VARIABLE, "1"))


def live_tensors() -> int:
    """Tensors that Python can still reach. `type`, not `isinstance`: some lazy modules warn when they are accessed."""
    return sum(1 for item in gc.get_objects() if issubclass(type(item), torch.Tensor))


def host_rss_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def own_host_bytes() -> int:
    """Resident memory without pages of mapped files, which Linux frees on demand: libraries that a first step on CUDA
    loads (cuBLASLt, cuDNN and Triton are 1.5 GB of files), and image features.
    """
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def beside_torch() -> tuple[int, bool]:
    """(bytes, whether they are estimated) of GPU memory outside of torch's pool: CUDA's context, loaded kernels,
    managed memory. NVML can't report processes of a container with its own process ids.
    """
    if not torch.cuda.is_available():
        return 0, False
    held = device_bytes(os.getpid())
    if held is None:
        return CONTEXT_BYTES, True
    return max(0, held - torch.cuda.memory_reserved()), False


def give_back() -> None:
    """Frees all memory that no living object holds: cycles, the CUDA cache, cuBLAS's workspaces, malloc's arenas."""
    gc.collect()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()
    ctypes.CDLL(None).malloc_trim(0)


def clear_traceback(error: BaseException | None) -> None:
    """Clears the frames that an exception, its cause and its context keep alive; they hold the whole trainer."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


@dataclass(frozen=True)
class RandomState:
    """The random state of the CPU and of the device, which dropout uses. Saved before work that may be repeated, and
    restored before the repetition.
    """

    cpu: torch.Tensor
    device: torch.Tensor | None

    @staticmethod
    def now() -> RandomState:
        return RandomState(torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None)

    def set(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.device is not None:
            torch.cuda.set_rng_state(self.device)
