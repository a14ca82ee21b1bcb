"""Which image files were checked already: one line per file, written at once, so that a preparation that was killed
continues where it stopped.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from hpsearch.files import KeptLines


@dataclass(frozen=True)
class ImageFacts:
    """Facts about a decodable image. For other files nothing is stored: they may be fixed later."""

    sha256: str
    has_more: bool
    """There are more frames or pages after the first."""
    look: bytes | None = None
    """As from `lookalikes.look_of`; None: not computed yet."""


class CheckedFiles:
    """Facts by path: valid while the file's size and time are the same, also for other studies."""

    def __init__(self, file: Path) -> None:
        self._known = dict(_read(file))
        self._lines = KeptLines(file)

    def __enter__(self) -> CheckedFiles:
        self._lines.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.__exit__()

    def find(self, path: Path, status: os.stat_result, *, has_look: bool) -> ImageFacts | None:
        size, time, facts = self._known.get(str(path), (None, None, None))
        if facts is None or (size, time) != (status.st_size, status.st_mtime_ns):
            return None
        return None if has_look and facts.look is None else facts

    def add(self, path: Path, status: os.stat_result, facts: ImageFacts) -> None:
        look = None if facts.look is None else facts.look.hex()
        self._lines.add(json.dumps([str(path), status.st_size, status.st_mtime_ns, facts.sha256, facts.has_more, look]))


_Known = tuple[int, int, ImageFacts]


def _read(file: Path) -> list[tuple[str, _Known]]:
    try:
        with file.open("rb") as lines:
            return [known for line in lines if (known := _parsed(line))]
    except OSError:
        return []


def _parsed(line: bytes) -> tuple[str, _Known] | None:
    try:
        match json.loads(line):
            case [str(path), int(size), int(time), str(sha256), bool(has_more), str() | None as look]:
                return path, (size, time, ImageFacts(sha256, has_more, None if look is None else bytes.fromhex(look)))
    except ValueError:
        pass
    return None
