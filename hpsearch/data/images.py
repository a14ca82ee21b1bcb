"""Images of rows: found as files or taken out of the data, decoded once, and identified by their checksum."""

from __future__ import annotations

import hashlib
import re
import warnings
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.data.checked import CheckedFiles, ImageFacts
from hpsearch.data.decoding import DECODED_AS, UnusableImage, read_first_frame
from hpsearch.data.lookalikes import look_of, lookalike_groups
from hpsearch.errors import FieldError, cut
from hpsearch.files import draft_of
from hpsearch.jobs import Tell

if TYPE_CHECKING:
    from datasets import Dataset


_THREADS = 8
"""Number of images decoded at once; twice as many are held in encoded form."""


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:[a-z]+/", re.IGNORECASE)
_LONGEST_SHOWN = 80
_MISSING = "image file is missing"
NO_IMAGE = "no image"
"""Why an empty value can't be used as an image."""


@dataclass(frozen=True)
class CheckedImage:
    path: Path
    sha256: str
    lookalikes: str | None = None
    """A name shared by images that look alike; None: no other does, or it was not requested."""


Checked = tuple[CheckedImage, ImageFacts] | str
"""A str says why the image can't be used."""


class RowImages:
    """Checks every image of a table once: by path, or by content where the data contains the bytes.

    A table may hold more bytes than the host has memory: only a few images are held at once. The result of each image
    is stored at once, so that a process that continues after a kill need not check it again.

    `groups_lookalikes`: finds the same picture in different files, see `lookalikes`.

    Raises:
        FieldError: the column holds URLs; nothing is downloaded here.
    """

    def __init__(
        self,
        table: Dataset,
        column: str,
        folder: Path,
        store: Path,
        tell: Tell,
        row_of: Callable[[int], int] = lambda position: position,
        *,
        groups_lookalikes: bool = False,
    ) -> None:
        """`row_of`: the row of the person's data that owns the image at a position of `table`."""
        import datasets

        if isinstance(table.features[column], datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
        self._folder = folder
        self._store = store
        self._groups_lookalikes = groups_lookalikes
        self._row_of = row_of
        self.notes: list[str] = []
        """Notes for the person about the usable images."""
        self._images: list[CheckedImage | str] = []
        self._numbers: dict[str, int] = {}
        self._of_row = array("L")
        self._looks: dict[str, bytes] = {}
        self._have_more = 0
        self._check_all(table, column, tell)
        if self._have_more:
            self.notes.append(f"images with several frames or pages, of which the first is taken: {self._have_more}")
        if groups_lookalikes:
            tell("comparing images", 0, len(self._looks))
            self._group_lookalikes()

    def of(self, position: int) -> CheckedImage | str:
        """The image of the row at `position`, or why it can't be used."""
        return self._images[self._of_row[position]]

    def check_any_found(self) -> None:
        """Raises FieldError where images are named and not one of them is found: their folder is wrong."""
        missing = [Path(name) for name, number in self._numbers.items() if self._images[number] == _MISSING]
        if not missing or any(image not in (_MISSING, NO_IMAGE) for image in self._images):
            return
        path, folder = missing[0], self._folder.resolve()
        name = path.relative_to(self._folder) if path.is_relative_to(self._folder) else path
        where = next((root for root in folder.parents if _is_file(root / name)), None)
        if where:
            hint = f"{where / name} is there: paths in the data begin at {where}, so write data.images: {where}"
        else:
            hint = f"paths in the data begin at {folder}; data.images: FOLDER names another one"
        message = f"none of the {len(missing):,} images is found, such as {folder / name}; {hint}"
        raise FieldError("data.images", cut(message, 1000))

    def _check_all(self, table: Dataset, column: str, tell: Tell) -> None:
        waiting: deque[tuple[int, Future[Checked]]] = deque()
        notes = CheckedFiles(self._store / f"checked-{DECODED_AS}.jsonl")
        with notes as before, _bombs_refused(), ThreadPoolExecutor(_THREADS) as pool:
            for position, row in enumerate(table.select_columns([column])):
                if problem := address_problem(row[column]):
                    message = f"column {column!r} of row {self._row_of(position)}: {problem}"
                    raise FieldError("data.columns.image", message)
                name, check = self._check_of(row[column], before)
                number = self._numbers.setdefault(name, len(self._images))
                self._of_row.append(number)
                if number == len(self._images):
                    self._images.append("not checked yet")
                    waiting.append((number, pool.submit(check)))
                    if len(waiting) == 2 * _THREADS:
                        self._settle(*waiting.popleft())
                if position % 200 == 0:
                    tell("checking images", position, len(table))
            while waiting:
                self._settle(*waiting.popleft())

    def _settle(self, number: int, checked: Future[Checked]) -> None:
        found = checked.result()
        if isinstance(found, str):
            self._images[number] = found
            return
        self._images[number], facts = found
        self._have_more += facts.has_more
        if self._groups_lookalikes:
            self._looks[facts.sha256] = facts.look or b""

    def _group_lookalikes(self) -> None:
        images, looks = list(self._looks), list(self._looks.values())
        groups = [[images[place] for place in group] for group in lookalike_groups(looks)]
        names = {sha256: min(group) for group in groups for sha256 in group}
        for number, image in enumerate(self._images):
            if isinstance(image, CheckedImage) and image.sha256 in names:
                self._images[number] = replace(image, lookalikes=names[image.sha256])
        largest = f", the largest of {max(map(len, groups))}" if groups else ""
        self.notes.append(f"{len(names)} of {len(images)} images look like another one: {len(groups)} groups{largest}")

    def _check_of(self, value: Any, before: CheckedFiles) -> tuple[str, Callable[[], Checked]]:
        """A key that rows of the same image share, and its check."""
        content = value.get("bytes") if isinstance(value, dict) else None
        if content:
            digest = hashlib.sha256(content).hexdigest()
            path = place_of(digest, self._store)
            return str(path), partial(_stored, content, digest, path, before, self._groups_lookalikes)
        if isinstance(value, dict) and "path" not in value:
            return "", lambda: f"image is neither a path nor a picture, but has: {', '.join(value)}"
        name = value.get("path") if isinstance(value, dict) else value
        if not name:
            return "", lambda: NO_IMAGE
        path = self._folder / str(name)
        return str(path), partial(_checked_file, path, before, self._groups_lookalikes)


def address_problem(value: Any) -> str | None:
    """The message for an image given as a URL instead of a path."""
    name = value.get("path") if isinstance(value, dict) and not value.get("bytes") else value
    if not isinstance(name, str) or not _ADDRESS.match(name):
        return None
    shown = name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "…"
    if name.startswith("data:"):
        return f"{shown!r} is an image written as text; save it as a file, and name that"
    return f"{shown!r} is a URL; download the images first, and name the files"


def place_of(sha256: str, store: Path) -> Path:
    """The path of an image that came as bytes."""
    return store / sha256[:2] / sha256


def keep_image(content: bytes, path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_of(path)
        draft.write_bytes(content)
        draft.replace(path)


def _stored(content: bytes, digest: str, path: Path, before: CheckedFiles, has_look: bool) -> Checked:
    if path.exists() and (known := before.find(path, path.stat(), has_look=has_look)):
        return CheckedImage(path, digest), known
    facts = _facts(content, digest, has_look)
    if isinstance(facts, str):
        return facts
    keep_image(content, path)
    before.add(path, path.stat(), facts)
    return CheckedImage(path, digest), facts


def _checked_file(path: Path, before: CheckedFiles, has_look: bool) -> Checked:
    try:
        path = path.resolve()
        if not path.is_file():  # a device or a pipe has no end
            return _MISSING
        status = path.stat()
        if known := before.find(path, status, has_look=has_look):
            return CheckedImage(path, known.sha256), known
        content = path.read_bytes()
    except (OSError, ValueError):  # a name with a NUL or a lone surrogate
        return _MISSING
    facts = _facts(content, hashlib.sha256(content).hexdigest(), has_look)
    if isinstance(facts, str):
        return facts
    before.add(path, status, facts)
    return CheckedImage(path, facts.sha256), facts


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _facts(content: bytes, sha256: str, has_look: bool) -> ImageFacts | str:
    try:
        image, has_more = read_first_frame(content)
    except UnusableImage as problem:
        return f"image {problem}"
    return ImageFacts(sha256, has_more, look_of(image) if has_look else None)


@contextmanager
def _bombs_refused() -> Iterator[None]:
    """Makes decompression bombs an error (kilobytes may decode to gigabytes): up to twice its limit Pillow only
    warns.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
