"""A folder's copy in the bucket, kept up to date: a checkpoint's seal is uploaded last and deleted first.

A final run has one folder for all machines, so its copy has an owner: the machine that began last. Another one, which
has not heard of it, adds nothing to it.

So what a kill, an outage or a full bucket leaves behind has no seal, and is ignored by everyone who fetches (see
`checkpoints`). Everything that a checkpoint depends on (the journal, earlier stages) is uploaded before its seal.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from uuid import uuid4

from hpsearch.checkpoints import MARKER
from hpsearch.errors import HpsearchError
from hpsearch.files import is_draft
from hpsearch.folders import JobFolder
from hpsearch.mirror.remote import Remote, Vanished

log = logging.getLogger("hpsearch.mirror")

OWNER = ".owner"
"""The file that names the owner; in the bucket only."""
_STAY_HERE = ("exports", "predictions")
"""Folders of a final run that are not mirrored: they are large and can be made again from what is."""
_TELLING = ("journal.jsonl", "result.json", "reports.json", MARKER)
State = dict[str, tuple[int, int]]
"""File name → its size and time on this machine."""


class Overtaken(HpsearchError):
    """Another machine has begun to mirror the same folder."""


class Copy:
    """Mirrors a folder under `name` in the storage URL. For one thread. `is_shared`: other machines may mirror theirs
    under the same name.
    """

    def __init__(self, remote: Remote, folder: JobFolder, name: str, *, is_shared: bool = False) -> None:
        self._remote = remote
        self._folder = folder
        self.name = name
        self._there: dict[str, tuple[int, int] | None] | None = None
        """The bucket's files, with their local state when uploaded; None: not listed yet."""
        self._own = f"{socket.gethostname()} {uuid4().hex}" if is_shared else None
        self._overtaken: str | None = None

    def state(self) -> State:
        """Changes with events worth an upload: a report, a seal, the end of a stage or of the job. Not with each
        step.
        """
        return {name: stamp for name, stamp in self._files() if PurePosixPath(name).name in _TELLING}

    def keep_up(self) -> None:
        """Uploads what is new, then deletes what was removed here. Can be repeated.

        Names are listed before any content is read, so that an uploaded journal includes all reports before the listed
        checkpoints.

        Raises:
            RemoteUnreachable: it may succeed later.
            Overtaken: from now on always; logged at the first time.
        """
        if self._own is not None:
            self._check_owner(self._own)
        files = dict(sorted(self._files(), key=lambda file: _turn(file[0])))
        if self._there is None:
            found = self._remote.find(self.name)
            self._there = {name: None for name in found if name != OWNER}
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

    def _check_owner(self, own: str) -> None:
        owner = f"{self.name}/{OWNER}"
        found = None if self._there is None or self._overtaken else self._remote.read(owner)
        if found not in (None, own):
            host = found.partition(" ")[0]
            self._overtaken = (
                f"{self._remote.url}/{self.name} is the copy of {host}, which has begun this run since; "
                f"what is trained here stays in {self._folder.path}"
            )
            log.error("%s", self._overtaken)
        if self._overtaken:
            raise Overtaken(self._overtaken)
        if found is None:
            self._remote.write(owner, own)

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
