"""Atomic files: written under a temporary name, synced and renamed. Reading a broken file gives a clear error."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from hpsearch.errors import InputError, UnreadableFile

RecordT = TypeVar("RecordT", bound=BaseModel)
T = TypeVar("T")


def write_text(file: Path, text: str) -> None:
    """Replaces `file` atomically: a reader sees the old text or the new one, also after a power cut."""
    draft = draft_of(file)
    try:
        draft.write_text(text)
        sync(draft)
        draft.replace(file)
        sync(file.parent)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def write_output(file: Path, text: str, *, unless_changed: str | None = None) -> Path:
    """Writes a file that the person requested, and its folders.

    `unless_changed` says what overwrites a file with other content, which a person may have changed: without it,
    such a file is overwritten.

    Raises:
        InputError: it can't be written, or has other content.
    """
    if unless_changed and file.exists() and not _holds(file, text):
        words = "is there already, with other content: it was changed, or is of another study or trial"
        raise InputError(f"{file}: {words}; give another name, or {unless_changed} to overwrite it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        raise InputError(f"{file}: can't be written: {error.strerror}") from None
    return file


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_bytes() == text.encode()
    except OSError:
        return False


def write_lines(file: Path, records: Iterable[BaseModel]) -> None:
    """Replaces `file` atomically, like `write_text`."""
    write_text(file, "".join(record.model_dump_json() + "\n" for record in records))


def append_line(file: Path, record: BaseModel) -> None:
    """Appends a line, which is on the disk on return. A kill meanwhile leaves half a line, which readers skip."""
    with file.open("ab") as lines:
        lines.write(record.model_dump_json().encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


class KeptLines:
    """Lines that are stored at once, for a process that continues after a kill. Several processes may write.

    Each call of `add` is one write to the end of the file, as lines of their own: readers skip incomplete lines from a
    kill or a full disk. Without a file, or on a read-only disk, nothing is stored.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._end: FileIO | None = None
        self._open = ExitStack()

    def __enter__(self) -> KeptLines:
        if self._file is None:
            return self
        with suppress(OSError):  # a read-only disk
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._end = self._open.enter_context(self._file.open("ab", buffering=0))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, lines: str) -> None:
        if self._end:
            with suppress(OSError):  # a full disk
                self._end.write(f"\n{lines}\n".encode())  # not after half a line that a kill left


def sync(path: Path) -> None:
    """Returns when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share_weights(file: Path) -> None:
    """Lets others read a safetensors file as they may read the files beside it: as the folder's own mode says.

    safetensors 0.8 writes it for its owner alone, whatever the umask: no worker of another user could continue from a
    checkpoint, and no server load the model (https://github.com/safetensors/safetensors/issues/782).
    """
    file.chmod(file.parent.stat().st_mode & 0o666)


def draft_of(path: Path) -> Path:
    """A unique name beside `path`, also where machines or containers share a folder: their process ids repeat."""
    return path.with_name(f".{path.name}.{uuid4().hex}")


def is_draft(path: Path) -> bool:
    """Whether the name is one of `draft_of`: the folder may have other hidden files, such as a repository's."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name) is not None


def read_file(file: Path, parse: Callable[[bytes], T]) -> T:
    """The result of `parse` for one of hpsearch's files. Raises UnreadableFile for any error in it."""
    try:
        content = file.read_bytes()
        return parse(content)
    except ValidationError as error:
        raise UnreadableFile(file, _first_mistake(error) if content else "it is empty") from None
    except OSError as error:
        raise UnreadableFile(file, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:  # raised by `json`, which has no depth limit of its own
        raise UnreadableFile(file, str(error)) from None


def _first_mistake(error: ValidationError) -> str:
    """Without the value that was found: it may be secret."""
    first, *more = error.errors(include_url=False, include_input=False, include_context=False)
    place = ".".join(map(str, first["loc"]))
    words = f"{place}: {first['msg']}" if place else first["msg"]
    return f"{words} (and {len(more)} more)" if more else words


def read_lines(file: Path, kind: type[RecordT], of_last_bytes: int | None = None) -> list[RecordT]:
    """The records of a JSON Lines file; incomplete lines from a kill or a bad block are left out."""
    if not file.exists():
        return []
    with file.open("rb") as content:
        if of_last_bytes:
            content.seek(max(0, file.stat().st_size - of_last_bytes))
        lines = content.read().splitlines()
    found = []
    for line in lines:
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError:
            continue
    return found


def read_json(file: Path) -> dict[str, object]:
    """Raises UnreadableFile."""
    return read_file(file, _json_object)


def _json_object(content: bytes) -> dict[str, object]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, found {type(found).__name__}")
    return found
