"""Requests to stop. Signal handlers only set a flag, because they may run between any two instructions."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SHOW_CURSOR = "\x1b[?25h"
AT_ONCE = signal.SIGUSR1
"""From whoever keeps a worker: leave without saving."""


class StopFlag:
    """Once asked, a worker saves a checkpoint and leaves; asked again, it leaves without; a third time, at once.

    `hpsearch stop` asks through the store and through the engine, whichever a worker hears first: an order and a signal
    are one wish. So are all signals to a worker that somebody keeps: SLURM and systemd signal every process of a job,
    and the keeper passes its own on. Its keeper alone makes it urgent, by AT_ONCE.
    """

    def __init__(self, parent: int | None = None) -> None:
        """`parent` is the process to watch, which may be dead by now; None: whoever is the parent at this moment."""
        self._signals = self._orders = 0
        self._patience = 2
        self._event = threading.Event()
        self._parent = parent or os.getppid()
        self._watches_parent = False

    def install(self, *, watch_parent: bool) -> None:
        """Listens to Ctrl-C, SIGTERM and a closed terminal. `watch_parent`: the starter's death is a stop too."""
        self._watches_parent = watch_parent
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *([AT_ONCE] if watch_parent else [])):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._watches_parent:
            self._signals = max(self._signals, 1) + (number == AT_ONCE)
            self._event.set()
        else:
            self.ask()
        if self._signals > self._patience:
            self._leave()

    @staticmethod
    def _leave() -> None:
        """Trainers notice that their worker is gone; leases are taken over."""
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
        os._exit(130)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Within this there is nothing to save: the second time is the last."""
        self._patience = 1
        try:
            yield
        finally:
            self._patience = 2

    def ask(self) -> None:
        self._signals += 1
        self._event.set()

    def order(self, *, now: bool) -> None:
        """What the store says, as often as it says it; `now`: to leave without saving."""
        before, self._orders = self._orders, max(self._orders, 1 + now)
        if self._orders > before:
            self._event.set()

    @property
    def _count(self) -> int:
        return max(self._signals, self._orders)

    @property
    def requested(self) -> bool:
        if self._watches_parent and os.getppid() != self._parent and self._count == 0:
            self.ask()
        return self._count > 0

    @property
    def urgent(self) -> bool:
        return self._count > 1

    def wait(self, seconds: float) -> None:
        """Sleeps, or less when asked to stop meanwhile, or since the last sleep: between a look at `requested` and
        the sleep after it, a signal may come."""
        self._event.wait(seconds)
        self._event.clear()
