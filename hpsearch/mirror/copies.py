"""A folder's copy in the bucket, kept up to date: a checkpoint's seal is uploaded last and deleted first.

So what a kill, an outage or a full bucket leaves behind has no seal, and is ignored by everyone who fetches (see
`checkpoints`). Everything that a checkpoint depends on (the journal, earlier stages) is uploaded before its seal.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from hpsearch.checkpoints import MARKER
from hpsearch.files import is_draft
from hpsearch.folders import JobFolder
from hpsearch.mirror.remote import Remote, Vanished

_STAY_HERE = ("exports", "predictions")
"""Folders of a final run that are not mirrored: they are large and can be made again from what is."""
_TELLING = ("journal.jsonl", "result.json", "reports.json", MARKER)
State = dict[str, tuple[int, int]]
"""File name → its size and time on this machine."""


class Copy:
    """Mirrors a folder under `name` in the storage URL. For one thread."""

    def __init__(self, remote: Remote, folder: JobFolder, name: str) -> None:
        self._remote = remote
        self._folder = folder
        self.name = name
        self._there: dict[str, tuple[int, int] | None] | None = None
        """The bucket's files, with their local state when uploaded; None: not listed yet."""

    def state(self) -> State:
        """Changes with events worth an upload: a report, a seal, the end of a stage or of the job. Not with each
        step.
        """
        return {name: stamp for name, stamp in self._files() if PurePosixPath(name).name in _TELLING}

    def keep_up(self) -> None:
        """Uploads what is new, then deletes what was removed here. Can be repeated.

        Names are listed before any content is read, so that an uploaded journal includes all reports before the listed
        checkpoints.

        Raises: RemoteUnreachable
        """
        files = dict(sorted(self._files(), key=lambda file: _turn(file[0])))
        if self._there is None:
            self._there = dict.fromkeys(self._remote.find(self.name))
        torn = set()
        for name, stamp in files.items():
            place = PurePosixPath(name)
            if self._there.get(name) == stamp or (place.name == MARKER and place.parent in torn):
                continue
            try:
                self._remote.put(self._folder.path / name, f"{self.name}/{name}")
            except Vanished:  # its trainer keeps the last two checkpoints
                torn.add(place.parent)
            self._there[name] = stamp
        dropped = [name for name in self._there.keys() - files.keys() if self._is_dropped(name, files)]
        for name in sorted(dropped, key=lambda name: not name.endswith(MARKER)):
            self._remote.delete(f"{self.name}/{name}")
            del self._there[name]

    def _is_dropped(self, name: str, files: Collection[str]) -> bool:
        """Whether the trainer deleted it (rather than somebody the whole folder, which is only a cache): a trainer
        deletes a checkpoint as a whole, and only where a later one, or the result, exists.
        """
        place = PurePosixPath(name)
        if place.parts[0] == "checkpoints" and (self._folder.path / place.parent).exists():
            return False
        return "result.json" in files or any(PurePosixPath(each).name == MARKER for each in files)

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """`os.walk`, which, unlike `Path.glob`, skips what a trainer deletes meanwhile."""
        for path, folders, names in os.walk(self._folder.path):
            folders[:] = [name for name in folders if not is_draft(Path(name)) and name not in _STAY_HERE]
            for name in names:
                file = Path(path) / name
                try:
                    facts = file.stat()
                except OSError:
                    continue
                if not is_draft(file):
                    yield file.relative_to(self._folder.path).as_posix(), (facts.st_size, facts.st_mtime_ns)


def _turn(name: str) -> tuple[int, PurePosixPath, bool, str]:
    """The order of uploads: first what later files depend on."""
    place = PurePosixPath(name)
    turn = 0
    if place.parts[0] == "checkpoints":
        turn = 2 if place.name == "reports.json" else 1 if "adapter" in place.parts else 3
    elif name == "result.json":
        turn = 4
    return turn, place.parent, place.name == MARKER, name
