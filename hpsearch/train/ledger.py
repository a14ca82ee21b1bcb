"""The memory ledger: what a process held before a trial, and whether the trial gave everything back."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import torch

from hpsearch.train.bases import Base
from hpsearch.train.memory import beside_torch, give_back, host_rss_bytes, live_tensors, own_host_bytes
from hpsearch.train.pools import start_pools
from hpsearch.trial import MIB, MemoryLedger, MemorySnapshot

_TENSORS_OF_LIBRARIES = 16
"""Live tensors that libraries keep after a first run."""
_DEVICE_TOLERANCE_BYTES = 16 * MIB
_HOST_TOLERANCE_BYTES = 512 * MIB
_THREADS_OF_LIBRARIES = 4
"""Such as tqdm's monitors. Thread pools, as large as the machine, are started before counting."""
_FILES_OF_LIBRARIES = 8


class LedgerBook:
    """The ledgers of one process: every trial is compared with the state before the first one."""

    def __init__(self) -> None:
        self._baseline: MemorySnapshot | None = None
        self._base: Base | None = None
        self._peak_host_bytes = 0

    def open(self, base: Base) -> None:
        """Before a trial. A new base starts a new ledger."""
        if self._base is not base:
            self._base = base
            start_pools(base.fresh_processor())
            give_back()
            gc.freeze()  # objects of the libraries and the base are not searched again after each trial
            self._baseline = _snapshot(base)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._peak_host_bytes = host_rss_bytes()

    @property
    def is_open(self) -> bool:
        """Whether a base was ever loaded: without one there is nothing to close."""
        return self._base is not None

    def note_host(self) -> None:
        """Called while a trial runs: the peak of host memory can't be reset."""
        self._peak_host_bytes = max(self._peak_host_bytes, host_rss_bytes())

    def close(self) -> MemoryLedger:
        """After a trial, when nothing of it should be left."""
        assert self._base is not None
        assert self._baseline is not None
        allocated, reserved = _device_peaks()
        beside, is_estimated = beside_torch()  # before torch's pool is emptied, as at the peak
        after = _snapshot(self._base)
        return MemoryLedger(
            before=self._baseline,
            after=after,
            peak_host_bytes=max(self._peak_host_bytes, after.host_rss_bytes),
            peak_device_bytes=reserved + beside,
            peak_allocated_bytes=allocated,
            is_context_estimated=is_estimated,
            not_given_back=_differences(self._baseline, after),
        )


def _device_peaks() -> tuple[int, int]:
    """Bytes of tensors, and of torch's pool. Other processes can't use the pool's memory: it includes fragments and
    cached blocks.
    """
    if not torch.cuda.is_available():
        return 0, 0
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def _differences(before: MemorySnapshot, after: MemorySnapshot) -> list[str]:
    found = []
    device = after.device_allocated_bytes - before.device_allocated_bytes
    if device > _DEVICE_TOLERANCE_BYTES:
        found.append(f"{device / MIB:.1f} MiB of device memory")
    host = after.host_own_bytes - before.host_own_bytes
    if host > _HOST_TOLERANCE_BYTES:
        found.append(f"{host / MIB:.0f} MiB of host memory")
    tensors = after.live_tensors - before.live_tensors
    if tensors > _TENSORS_OF_LIBRARIES:
        found.append(f"{tensors} tensors")
    if after.threads - before.threads > _THREADS_OF_LIBRARIES:
        found.append(f"{after.threads - before.threads} threads")
    if after.file_descriptors - before.file_descriptors > _FILES_OF_LIBRARIES:
        found.append(f"{after.file_descriptors - before.file_descriptors} open files")
    if after.base_fingerprint != before.base_fingerprint:
        found.append("a changed base model")
    return found


def _snapshot(base: Base) -> MemorySnapshot:
    give_back()
    process = psutil.Process()
    return MemorySnapshot(
        host_rss_bytes=host_rss_bytes(),
        host_own_bytes=own_host_bytes(),
        device_allocated_bytes=torch.cuda.memory_allocated() if torch.cuda.is_available() else 0,
        live_tensors=live_tensors(),
        threads=process.num_threads(),
        file_descriptors=len(list(Path("/proc/self/fd").iterdir())),
        base_fingerprint=base.fingerprint(),
    )
