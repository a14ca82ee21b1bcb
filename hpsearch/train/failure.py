"""The result of a training that raised: a crash, or out of memory with the bytes that it needed."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from hpsearch.errors import FieldError
from hpsearch.train.memory import beside_torch, clear_traceback, give_back, host_rss_bytes
from hpsearch.trial import GIB, Outcome, TrialResult

R = TypeVar("R")
_ALLOCATION = re.compile(
    r"(?:[Tt]ried to allocate|Trying to allocate|Requested size:|allocation: requested) ([0-9.]+) ?(bytes|KiB|MiB|GiB)?"
)
"""torch 2.15's out-of-memory messages: libc10_cuda.so "CUDA out of memory. Tried to allocate …", "Allocation was
preemptively rejected because it would exceed per_process_memory_fraction limit. Requested size: …", "Preemptively
rejecting allocation: requested …"; libc10.so "you tried to allocate … bytes", "Out of Memory. Trying to allocate …".
"""
_UNITS = {"bytes": 1, None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB}


def failure(error: Exception, doing: str = "training") -> TrialResult:
    """With a traceback, unless the error is one for people. `doing`: the phase that it ended."""
    if isinstance(error, FieldError):
        return TrialResult(outcome=Outcome.FAILED, reason=str(error))
    text = traceback.format_exc()
    message = str(error).strip()
    first_line = message.splitlines()[0] if message else ""
    reason = f"{type(error).__name__}: {first_line}"
    if not is_out_of_memory(error):
        return TrialResult(outcome=Outcome.FAILED, reason=reason, traceback=text)
    return TrialResult(
        outcome=Outcome.OUT_OF_MEMORY,
        reason=f"while {doing}: {reason}",
        traceback=text,
        bytes_needed=_bytes_needed(message),
    )


def is_out_of_memory(error: Any) -> bool:
    """CUDA raises its own type; the CPU allocator, cuBLAS and cuDNN raise a RuntimeError with these messages."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED")


def unless_out_of_memory(work: Callable[[], R], *, may_fail: bool = True) -> tuple[R] | None:
    """(result,); None after an out-of-memory error, if `may_fail`: by then its memory is freed."""
    try:
        return (work(),)
    except (RuntimeError, MemoryError) as error:
        if not may_fail or not is_out_of_memory(error):
            raise
        print(f"out of memory: {error}", flush=True)
        clear_traceback(error)
    give_back()
    return None


def _bytes_needed(message: str) -> int | None:
    """The process's memory, as the driver or the kernel counts it, plus the failed request."""
    found = _ALLOCATION.search(message)
    if not found:
        return None
    asked = float(found.group(1)) * _UNITS[found.group(2)]
    held = torch.cuda.memory_reserved() + beside_torch()[0] if torch.cuda.is_available() else host_rss_bytes()
    return int(asked + held)
