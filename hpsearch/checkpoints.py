"""Folders that are complete or ignored: checkpoints, and the adapters of finished stages.

They are written under a temporary name, sealed with a list of their files, synced, and then renamed. A folder without
that list, or that differs from it, is incomplete (a kill, a full disk, a bad block), and is never used.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from pydantic import ValidationError

from hpsearch.files import draft_of, is_draft, share_weights, sync
from hpsearch.folders import JobFolder, StageFolder, number_of
from hpsearch.trial import Record

MARKER = "whole.json"
_CHUNK_BYTES = 2**20


class Torn(Exception):
    """What is wrong with a folder that should be complete, in one line."""


class _File(Record):
    size_bytes: int
    blake2b: str


class _Seal(Record):
    """Every file of the folder except the seal itself, by its relative path."""

    files: dict[str, _File]


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Gives a folder to write into, which becomes `target` at the end: sealed, synced, atomically."""
    draft = draft_of(target)
    try:
        draft.mkdir(parents=True)
        yield draft
        _seal(draft)
        replace_folder(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def replace_folder(draft: Path, target: Path) -> None:
    """Renames `draft` to `target`. An existing target is removed first: a folder can't be renamed over another."""
    for path in (*draft.rglob("*"), draft):
        if path.suffix == ".safetensors":
            share_weights(path)
        sync(path)
    drop(target)
    draft.rename(target)
    sync(target.parent)


def drop(folder: Path) -> None:
    """Removes a folder, if there is one: it is renamed first, so that a kill leaves a draft and no torn folder."""
    if folder.exists():
        doomed = folder.rename(draft_of(folder))
        shutil.rmtree(doomed, ignore_errors=True)


def clear_drafts(folder: Path) -> None:
    """Removes the half-written folders that a killed trainer left."""
    for path in folder.glob(".*"):
        if is_draft(path) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def flaw(folder: Path) -> str | None:
    """Why the folder is not complete, in one line; None: it is."""
    try:
        for name, wanted in _read_seal(folder).files.items():
            _compare(name, wanted, _facts(folder / name))
    except Torn as torn:
        return str(torn)
    except OSError as error:
        return f"{Path(error.filename or folder).name} can't be read: {error.strerror}"
    return None


def copy_whole(source: Path, target: Path) -> None:
    """Copies a complete folder that may vanish or change meanwhile.

    Raises:
        Torn: it did, or was torn before.
        OSError: the copy can't be written.
    """
    with reading(source):
        seal = _read_seal(source)
    with written_whole(target) as draft:
        for name, wanted in seal.files.items():
            copy = draft / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            _copy(source / name, copy)
            _compare(name, wanted, _facts(copy))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns read errors into Torn: another attempt's folder may vanish at any time. Write errors pass through."""
    try:
        yield
    except OSError as error:
        raise Torn(f"{path.name} can't be read: {error.strerror}") from None


def last_checkpoint(folder: JobFolder) -> Path | None:
    """The newest complete checkpoint, of the last stage that has one."""
    stages = sorted(folder.checkpoints.glob("stage-*"), key=number_of)
    found = [
        checkpoint for path in (folder.checkpoints, *stages) for checkpoint in reversed(StageFolder(path).checkpoints())
    ]
    return next((checkpoint for checkpoint in reversed(found) if flaw(checkpoint) is None), None)


def _seal(folder: Path) -> None:
    files = {str(path.relative_to(folder)): _facts(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / MARKER).write_text(_Seal(files=files).model_dump_json(indent=2))


def _read_seal(folder: Path) -> _Seal:
    """All of its files are there, so none is outside of the folder."""
    file = folder / MARKER
    if not file.exists():
        raise Torn(f"{MARKER} is missing")
    try:
        seal = _Seal.model_validate_json(file.read_bytes())
    except ValidationError:
        raise Torn(f"{MARKER} is torn") from None
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if missing := sorted(seal.files.keys() - there):
        raise Torn(f"{missing[0]} is missing")
    return seal


def _facts(file: Path) -> _File:
    digest = blake2b()
    size = 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return _File(size_bytes=size, blake2b=digest.hexdigest())


def _compare(name: str, wanted: _File, found: _File) -> None:
    if found.size_bytes != wanted.size_bytes:
        raise Torn(f"{name} has {found.size_bytes} bytes, not {wanted.size_bytes}")
    if found != wanted:
        raise Torn(f"{name} does not have the checksum that it was written with")


def _copy(source: Path, to: Path) -> None:
    """Separates read errors from write errors: an unreadable source is skipped."""
    with to.open("wb") as copy:
        with reading(source):
            content = source.open("rb")
        with content:
            while True:
                with reading(source):
                    chunk = content.read(_CHUNK_BYTES)
                if not chunk:
                    return
                copy.write(chunk)
