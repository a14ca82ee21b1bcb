"""What a part gets: a folder, its time, the shapes, and whether this is the rehearsal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.comparison import Say
from bench.gpu.figures import Figure


@dataclass(frozen=True)
class Place:
    """`folder` is shared by all parts: bases are built in it once. `deadline` is on the monotonic clock."""

    folder: Path
    deadline: float
    rehearses: bool
    say: Say
    show: Callable[[Figure], None]

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def fresh(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder
