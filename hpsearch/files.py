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
    """Replaces `file` at once: a reader sees the old text or the new, never half of it, also after a power cut."""
    draft = draft_of(file)
    try:
        draft.write_text(text)
        sync(draft)
        draft.replace(file)
        sync(file.parent)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def write_output(file: Path, text: str) -> Path:
    """Writes what a person asked for, with the folders that it needs. Raises InputError where it can't be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        raise InputError(f"{file}: can't be written: {error.strerror}") from None
    return file


def write_lines(file: Path, records: Iterable[BaseModel]) -> None:
    """Replaces `file` at once, as `write_text` does."""
    write_text(file, "".join(record.model_dump_json() + "\n" for record in records))


def append_line(file: Path, record: BaseModel) -> None:
    """Adds a line that is on the disk when this returns. A kill meanwhile leaves half a line, which is not read."""
    with file.open("ab") as lines:
        lines.write(record.model_dump_json().encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


class KeptLines:
    """Lines that are kept at once, for whoever is killed and begins again. Several processes may write.

    Each call of `add` is one write to the end of the file, in lines of their own: what a kill or a full disk leaves of
    an earlier one is for the reader to skip. Without a file, or on a disk that takes nothing, nothing is kept.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._end: FileIO | None = None
        self._open = ExitStack()

    def __enter__(self) -> KeptLines:
        if self._file is None:
            return self
        with suppress(OSError):  # a disk that is only to be read
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._end = self._open.enter_context(self._file.open("ab", buffering=0))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, lines: str) -> None:
        if self._end:
            with suppress(OSError):  # a full disk
                self._end.write(f"\n{lines}\n".encode())  # not onto half a line that a kill left


def sync(path: Path) -> None:
    """Returns when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def draft_of(path: Path) -> Path:
    """A name beside `path` that is nobody else's, also where machines or containers share a folder: their process
    ids repeat."""
    return path.with_name(f".{path.name}.{uuid4().hex}")


def is_draft(path: Path) -> bool:
    """Whether the name is one that `draft_of` gives: other hidden things may lie there, such as a repository's."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name) is not None


def read_file(file: Path, parse: Callable[[bytes], T]) -> T:
    """What `parse` makes of a file of ours. Raises UnreadableFile, whatever is wrong with it."""
    try:
        content = file.read_bytes()
        return parse(content)
    except ValidationError as error:
        raise UnreadableFile(file, _first_mistake(error) if content else "it is empty") from None
    except OSError as error:
        raise UnreadableFile(file, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:  # of `json`, which knows no limit of its own
        raise UnreadableFile(file, str(error)) from None


def _first_mistake(error: ValidationError) -> str:
    """Without the value that was found: a file may hold what a message should not."""
    first, *more = error.errors(include_url=False, include_input=False, include_context=False)
    place = ".".join(map(str, first["loc"]))
    words = f"{place}: {first['msg']}" if place else first["msg"]
    return f"{words} (and {len(more)} more)" if more else words


def read_lines(file: Path, kind: type[RecordT], of_last_bytes: int | None = None) -> list[RecordT]:
    """The records of a file of JSON lines; lines that a kill or a bad block tore are left out."""
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
