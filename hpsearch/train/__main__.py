"""The trainer process: `python -m hpsearch.train COMMANDS EVENTS`, two file descriptors of its worker's."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import warnings

_PR_SET_PDEATHSIG = 1


def main() -> None:
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal and a scheduler signal whole process groups. The worker handles these signals and asks for a
        # checkpoint.
        signal.signal(number, signal.SIG_IGN)
    warnings.filterwarnings("ignore", category=FutureWarning)  # from the libraries, about their own future versions
    _hush_missing_kernels()
    commands, events = (int(number) for number in sys.argv[1:3])
    gc.disable()  # a fifth of the libraries' loading time, and none of their objects are garbage
    from hpsearch.train.channel import Channel
    from hpsearch.train.serve import serve

    gc.enable()
    serve(Channel(os.fdopen(commands, "rb"), os.fdopen(events, "wb")))


def _hush_missing_kernels() -> None:
    """On processors with AVX-512 BF16, bitsandbytes warns where the package `kernels` is not installed (0.50.2,
    backends/cpu/ops.py, `gemm_4bit_forward_kernel`): it would download a kernel for 4-bit products of a single row.
    hpsearch downloads no code, the results are the same, and the warning is the first thing in every log.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
        lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
    )


def _die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG).

    A closed pipe also shows the parent's death, but only to a process that still runs Python: one that hangs in a
    kernel or a library would keep its device.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the prctl call
        os._exit(1)


if __name__ == "__main__":
    main()
