"""The question whether a search begins that will take long."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from hpsearch.bridge.stopping import StopFlag

LONG_S = 3600.0
"""A longer search needs a confirmation."""
_PATIENCE_S = 60.0
"""Without an answer in this time, it begins."""
_LOOK_EVERY_S = 0.5


def agrees(console: Console, stop: StopFlag, stream: int | None = None) -> bool:
    """Asks a person at the terminal whether to begin. Without a terminal, or without an answer within a minute, it
    begins.

    Raises:
        Interrupted: a stop was requested meanwhile.
    """
    from hpsearch.errors import Interrupted

    descriptor = _stdin() if stream is None else stream
    if descriptor is None or not (console.is_terminal and _is_foreground(descriptor)):
        return True
    console.print("This takes more than an hour. Start? [Y/n] (it starts by itself in a minute) ", end="")
    for _ in range(round(_PATIENCE_S / _LOOK_EVERY_S)):
        if select.select([descriptor], [], [], _LOOK_EVERY_S)[0]:
            said = os.read(descriptor, 1000).decode(errors="replace").strip().lower()
            return said in ("", "y", "yes")
        if stop.requested:
            raise Interrupted("stopped before anything was trained")
    console.print("\nno answer: it starts")
    return True


def _stdin() -> int | None:
    """None where it is closed, as in `hpsearch run study.yaml <&-`, or no file."""
    try:
        return None if sys.stdin is None else sys.stdin.fileno()
    except (OSError, ValueError):
        return None


def _is_foreground(descriptor: int) -> bool:
    """A background process that reads from a terminal is stopped."""
    try:
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
