"""A way in the race, as a process: it runs its next trial when it is asked to, and reports the result.

`next` on stdin, a line of JSON on stdout. What libraries print goes to the log, which is stderr.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.race.setting import Setting


@dataclass(frozen=True)
class Ran:
    """A trial's end: the validation losses that it reported, in their order."""

    losses: list[float]

    def told(self) -> str:
        return json.dumps(asdict(self))


class Lane:
    """The racer's end of the pipes. `python -m bench.race.WAY FOLDER`, where FOLDER holds the setting and is free."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.folder = Path(sys.argv[1])
        self.setting = Setting.read(self.folder.parent)

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune writes its searcher, which holds this, to the disk."""
        return {"folder": self.folder, "setting": self.setting}

    def ready(self) -> None:
        """What a study needs once is done."""
        self._say("ready")

    def wait_for_turn(self) -> None:
        """Raises SystemExit where the race is over."""
        if sys.stdin.readline().strip() != "next":
            sys.exit(0)

    def ran(self, losses: list[float]) -> None:
        self._say(Ran(losses).told())

    def _say(self, line: str) -> None:
        self._answers.write(f"{line}\n")
        self._answers.flush()
