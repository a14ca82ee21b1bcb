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
"""From the process that keeps a worker: leave without saving."""


class StopFlag:
    """The first request: save a checkpoint and leave. The second: leave without saving. The third: exit at once.

    `hpsearch stop` asks through the store and through the engine: an order and a signal count as one request. So do all
    signals to a worker with a keeper: SLURM and systemd signal every process of a job, and the keeper forwards its own.
    Only the keeper makes the request urgent, with AT_ONCE.
    """

    def __init__(self, parent: int | None = None) -> None:
        """`parent` is the process to watch, which may be dead already; None: the current parent."""
        self._signals = self._orders = 0
        self._patience = 2
        self._event = threading.Event()
        self._parent = parent or os.getppid()
        self._watches_parent = False

    def install(self, *, watch_parent: bool) -> None:
        """Handles Ctrl-C, SIGTERM and a closed terminal. `watch_parent`: the parent's death is a stop too."""
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
        """Trainers notice that their worker is gone; other workers take its lease over."""
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
        os._exit(130)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Within this there is nothing to save: the second request exits at once."""
        self._patience = 1
        try:
            yield
        finally:
            self._patience = 2

    def ask(self) -> None:
        self._signals += 1
        self._event.set()

    def order(self, *, now: bool) -> None:
        """An order from the store, which may be repeated; `now`: leave without saving."""
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
        """Sleeps; returns earlier when a stop is requested, now or since the last sleep: a signal may arrive between a
        check of `requested` and the next sleep.
        """
        self._event.wait(seconds)
        self._event.clear()
