"""The peak memory of a piece of work, and how much memory is available: the card's, or the host's without a card."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpsearch.train.memory import CONTEXT_BYTES, beside_torch, device_parts, give_back
from hpsearch.trial import GIB

_USABLE = 0.92
"""Usable share of the free memory: an allocator divides memory into blocks that are not completely filled."""


def room_bytes(memory_gib: float | None) -> int:
    """For tensors, when this process holds only the base model's: on the card, within the study's budget; on a host,
    half of the free memory, as other processes run there too.
    """
    if not torch.cuda.is_available():
        return psutil.virtual_memory().available // 2
    free, _ = torch.cuda.mem_get_info()
    return int(min(free + torch.cuda.memory_reserved(), _share_bytes(memory_gib)) * _USABLE)


def keep_within(memory_gib: float | None) -> None:
    """Makes torch's allocator refuse memory beyond the study's budget, so that a large card behaves like a small one.
    Holds for the process until the next call.
    """
    if not torch.cuda.is_available():
        return
    most = _pool_as_started()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(most, max(_share_bytes(memory_gib), 1) / total))


@cache
def _pool_as_started() -> float:
    """The share of the card that PYTORCH_CUDA_ALLOC_CONF allows for torch's pool; read before it is first changed."""
    return torch.cuda.get_per_process_memory_fraction()


def _share_bytes(memory_gib: float | None) -> int:
    """For torch's pool: this process's part of the card, or the study's budget where that is less, minus the context's
    present and future size: CUDA loads each kernel at its first call, and the driver counts that, too.
    """
    total = torch.cuda.get_device_properties(0).total_memory
    parts = device_parts()
    if memory_gib is None and parts == 1:
        return int(total * _pool_as_started())
    budget = total if memory_gib is None else int(memory_gib * GIB)
    return min(total // parts, budget) - max(beside_torch()[0], CONTEXT_BYTES)


def peak_bytes(work: Callable[[], None]) -> int:
    """The peak of tensor memory while `work` ran; on a host, above the memory held before.

    CUDA's allocator measures it itself. On a host, the storages created by operations are counted while they live;
    memory within a kernel is not seen.
    """
    if torch.cuda.is_available():
        give_back()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    live = _LiveStorages()
    with live:
        work()
    return live.peak


class _LiveStorages(TorchDispatchMode):
    """Bytes of the storages that operations created and that still exist."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        before = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if _is_dense(leaf)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if _is_dense(leaf) and leaf.untyped_storage()._cdata not in before:
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        if identity in self._known:
            return
        self._known.add(identity)
        self._held += storage.nbytes()
        self.peak = max(self.peak, self._held)
        weakref.finalize(storage, self._gone, identity, storage.nbytes())

    def _gone(self, identity: int, num_bytes: int) -> None:
        self._known.discard(identity)
        self._held -= num_bytes


def _is_dense(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided
