"""Images of rows: found or taken out of the data, decoded once, and known by their checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.data.decoding import DECODED_AS, UnusableImage, read_image
from hpsearch.errors import FieldError, UnreadableFile
from hpsearch.files import draft_of, read_json, write_text
from hpsearch.jobs import Tell

if TYPE_CHECKING:
    from datasets import Dataset


_THREADS = 8
"""As many images are decoded at once, and twice as many held as they were stored."""


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:[a-z]+/", re.IGNORECASE)
_LONGEST_TOLD = 80


@dataclass(frozen=True)
class CheckedImage:
    path: Path
    sha256: str


class RowImages:
    """Checks every image of a table once: by path, or by content where the data carries the bytes.

    A table may hold more bytes than the host has memory: few images are held at once, whatever their number.

    Raises:
        FieldError: the column holds addresses; nothing is downloaded here.
    """

    def __init__(self, table: Dataset, column: str, folder: Path, store: Path, tell: Tell) -> None:
        import datasets

        if isinstance(table.features[column], datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
        self._folder = folder
        self._store = store
        self._before = _CheckedBefore(store / f"checked-{DECODED_AS}.json")
        checked: dict[str, Future[CheckedImage | str]] = {}
        waiting: deque[Future[CheckedImage | str]] = deque()
        rows: list[Future[CheckedImage | str]] = []
        with _bombs_refused(), ThreadPoolExecutor(_THREADS) as pool:
            for done, row in enumerate(table.select_columns([column])):
                if problem := address_problem(row[column]):
                    raise FieldError("data.columns.image", f"column {column!r} of row {done}: {problem}")
                name, check = self._check_of(row[column])
                if name not in checked:
                    checked[name] = pool.submit(check)
                    waiting.append(checked[name])
                    if len(waiting) == 2 * _THREADS:
                        waiting.popleft().result()
                rows.append(checked[name])
                if done % 200 == 0:
                    tell("checking images", done, len(table))
            self._found = [image.result() for image in rows]
        self._before.save()

    def of(self, position: int) -> CheckedImage | str:
        """The image of the row at `position`, or why it can't be used."""
        return self._found[position]

    def _check_of(self, value: Any) -> tuple[str, Callable[[], CheckedImage | str]]:
        """A name that rows of the same image share, and its check."""
        content = value.get("bytes") if isinstance(value, dict) else None
        if content:
            digest = hashlib.sha256(content).hexdigest()
            path = self._store / digest[:2] / digest
            return str(path), partial(_stored, content, digest, path)
        name = value.get("path") if isinstance(value, dict) else value
        if not name:
            return "", lambda: "no image"
        path = self._folder / str(name)
        return str(path), partial(_checked_file, path, self._before)


def address_problem(value: Any) -> str | None:
    """What is said of an image that is named by an address instead of a path."""
    name = value.get("path") if isinstance(value, dict) and not value.get("bytes") else value
    if not isinstance(name, str) or not _ADDRESS.match(name):
        return None
    told = name if len(name) <= _LONGEST_TOLD else name[:_LONGEST_TOLD] + "…"
    if name.startswith("data:"):
        return f"{told!r} is an image written as text; save it as a file, and name that"
    return f"{told!r} is a URL; download the images first, and name the files"


def _stored(content: bytes, digest: str, path: Path) -> CheckedImage | str:
    if not path.exists():
        if problem := _undecodable(content):
            return problem
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_of(path)
        draft.write_bytes(content)
        draft.replace(path)
    return CheckedImage(path, digest)


@contextmanager
def _bombs_refused() -> Iterator[None]:
    """Some kilobytes may decode to gigabytes: Pillow only warns of an image up to twice as large as it likes."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


class _CheckedBefore:
    """Checksums of image files that were decoded on this machine already, by path: good while the file's size and
    time are the same, as for a study's other files. Of images that can't be used nothing is kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = self._read()
        self._new: dict[str, list[object]] = {}

    def sha256(self, path: Path) -> str | None:
        match self._known.get(str(path)):
            case [size, time, str(sha256)] if [size, time] == _stamp(path.stat()):
                return sha256
        return None

    def add(self, path: Path, status: os.stat_result, sha256: str) -> None:
        self._new[str(path)] = [*_stamp(status), sha256]

    def save(self) -> None:
        if self._new:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._file, json.dumps(self._read() | self._new))

    def _read(self) -> dict[str, object]:
        try:
            return read_json(self._file) if self._file.exists() else {}
        except UnreadableFile:  # then they are decoded once more
            return {}


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns]


def _checked_file(path: Path, before: _CheckedBefore) -> CheckedImage | str:
    try:
        path = path.resolve()
        is_file = path.is_file()  # a device or a pipe has no end
        if is_file and (sha256 := before.sha256(path)):
            return CheckedImage(path, sha256)
        status, content = (path.stat(), path.read_bytes()) if is_file else (None, None)
    except (OSError, ValueError):  # a name with a NUL, or of half a character
        status, content = None, None
    if content is None or status is None:
        return "image file is missing"
    if problem := _undecodable(content):
        return problem
    image = CheckedImage(path, hashlib.sha256(content).hexdigest())
    before.add(path, status, image.sha256)
    return image


def _undecodable(content: bytes) -> str | None:
    try:
        read_image(content)
    except UnusableImage as problem:
        return f"image {problem}"
    return None
