"""Being asked to stop. Signal handlers set a flag and nothing else: they run between any two instructions."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


class StopFlag:
    """Once asked, a worker saves a checkpoint and leaves; asked again, it leaves at once."""

    def __init__(self) -> None:
        self._count = 0
        self._event = threading.Event()
        self._parent = os.getppid()
        self._watches_parent = False

    def install(self, *, watch_parent: bool) -> None:
        """Listens to Ctrl-C, SIGTERM and a closed terminal. `watch_parent`: the starter's death is a stop too."""
        self._watches_parent = watch_parent
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.ask()

    def ask(self) -> None:
        self._count += 1
        self._event.set()

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
