"""Fetching what another machine saved: small files, and the latest complete checkpoint.

A checkpoint is fetched under a temporary name, compared with its seal, and only then renamed. So a fetch that is cut
short by a kill or an outage leaves nothing that looks like a checkpoint, and is started again.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hpsearch.checkpoints import MARKER, flaw, last_checkpoint, replace_folder
from hpsearch.files import draft_of
from hpsearch.folders import JobFolder, TrialFolder
from hpsearch.mirror.copies import OWNER
from hpsearch.mirror.remote import Remote

log = logging.getLogger("hpsearch.mirror")

_CHECKPOINT = re.compile(r"checkpoints/(?:stage-(\d+)/)?checkpoint-(\d+)")
_ATTEMPT = re.compile(r"attempt-(\d+)/")


@dataclass(frozen=True, order=True)
class _Place:
    """A sealed checkpoint in the bucket; the greatest is the furthest."""

    stage: int
    step: int
    folder: str
    """The folder of its job, relative to the requested one."""
    name: str


def fetch_attempts(remote: Remote, trial: TrialFolder, name: str, before: int) -> None:
    """Downloads what earlier attempts left in the bucket and this machine lacks. Raises RemoteUnreachable."""
    files = remote.find(name)
    numbers = {int(found[1]) for found in map(_ATTEMPT.match, files) if found}
    folders = [f"attempt-{number}" for number in sorted(numbers) if number < before]
    _fetch(remote, trial.path, name, folders, files)


def fetch_run(remote: Remote, folder: JobFolder, name: str) -> None:
    """Downloads what this machine lacks of a final run; all of it where the run got further elsewhere. Raises
    RemoteUnreachable.
    """
    files = remote.find(name)
    files.pop(OWNER, None)
    own = folder.history.stat().st_size if folder.history.exists() else -1
    is_further = files.get("history.jsonl", -1) > own
    if is_further:
        folder.result.unlink(missing_ok=True)  # so an interrupted download never looks like a complete run
    _fetch(remote, folder.path, name, [""], files, anew=is_further)


def _fetch(
    remote: Remote, target: Path, name: str, folders: list[str], files: dict[str, int], *, anew: bool = False
) -> None:
    """`result.json` comes last. `anew`: replaces small files that exist here."""
    places = [place for folder in folders for place in _places(folder, files)]
    for place in sorted(places, reverse=True):
        if _is_here(target, folders, place) or _fetch_checkpoint(remote, target, name, place, files):
            break
    prefixes = [f"{folder}/" if folder else "" for folder in folders]
    small = [file for prefix in prefixes for file in files if file.startswith(prefix) and not _in_checkpoint(file)]
    for file in sorted(small, key=lambda file: (file.endswith("result.json"), file.endswith(MARKER), file)):
        here = target / file
        # Journals and histories only grow: the longer one is newer.
        if anew or not here.exists() or here.stat().st_size < files[file]:
            remote.get(f"{name}/{file}", here)


def _places(folder: str, files: Iterable[str]) -> Iterable[_Place]:
    prefix = f"{folder}/" if folder else ""
    for file in files:
        path = PurePosixPath(file)
        found = _CHECKPOINT.fullmatch(path.parent.as_posix().removeprefix(prefix))
        if path.name == MARKER and file.startswith(prefix) and found:
            yield _Place(int(found[1] or 0), int(found[2]), folder, path.parent.as_posix())


def _in_checkpoint(file: str) -> bool:
    return "checkpoint-" in file


def _is_here(target: Path, folders: list[str], place: _Place) -> bool:
    """Whether a local checkpoint is as far."""
    here = [last_checkpoint(JobFolder(target / folder)) for folder in folders]
    found = [_CHECKPOINT.search(path.as_posix()) for path in here if path]
    return any(each and (int(each[1] or 0), int(each[2])) >= (place.stage, place.step) for each in found)


def _fetch_checkpoint(remote: Remote, target: Path, name: str, place: _Place, files: dict[str, int]) -> bool:
    """Whether it is complete."""
    folder = target / place.name
    draft = draft_of(folder)
    try:
        for file in (file for file in files if file.startswith(f"{place.name}/")):
            remote.get(f"{name}/{file}", draft / file.removeprefix(f"{place.name}/"))
        if wrong := flaw(draft):
            log.warning("%s/%s/%s is not used: %s", remote.url, name, place.name, wrong)
            return False
        replace_folder(draft, folder)
        return True
    finally:
        shutil.rmtree(draft, ignore_errors=True)
