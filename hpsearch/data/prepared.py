"""Prepared rows: one Arrow folder for each split and subset, in a folder named by the manifest's checksum.

A trial's config names the folders of train and validation rows. The test rows are written only when an
evaluation asks for them, into a folder that no trial's config names.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from hpsearch.data.images import CheckedImage
from hpsearch.data.manifest import Manifest
from hpsearch.data.rows import ReadRows, Row, read_rows
from hpsearch.data.source import Source, open_source
from hpsearch.data.split import SplitName, Splits, leakage_groups, subset
from hpsearch.errors import UnreadableFile
from hpsearch.files import draft_of, read_json, write_text
from hpsearch.jobs import Tell
from hpsearch.spec.data import DataSpec
from hpsearch.spec.tasks import Images

_SUMS = "sums.json"
"""The SHA-256 of each file of prepared rows, stored beside them."""


class DataFolder:
    """The folder of prepared rows: `<storage>/data`."""

    def __init__(self, storage: Path) -> None:
        self.path = storage / "data"
        self.images = self.path / "images"
        self.counted = self.path / "tokens"

    def of(self, manifest_sha256: str) -> Path:
        return self.path / manifest_sha256[:16]

    def rows(self, manifest: Manifest, split: SplitName, fraction: float = 1.0) -> Path:
        part = "" if fraction >= 1 else f"-{fraction:g}"
        return self.of(manifest.sha256) / f"{split}{part}"

    def files(self, manifest: Manifest) -> Path:
        return self.of(manifest.sha256) / "files.json"


def read_data(
    data: DataSpec, folder: Path, storage: DataFolder, tell: Tell, images: Images = "several"
) -> tuple[ReadRows, list[Path]]:
    """All usable rows, and the files that they came from."""
    source = open_source(data, folder)
    read = read_rows(source, data, storage.images, tell, images)
    return read, _files(source, read)


def _files(source: Source, read: ReadRows) -> list[Path]:
    images = {image.path for row in read.rows for image in row.images}
    return [*source.files, *sorted(images)]


def ensure_prepared(
    manifest: Manifest,
    data: DataSpec,
    folder: Path,
    storage: DataFolder,
    wanted: Sequence[tuple[SplitName, float]],
    tell: Tell,
    images: Images = "several",
) -> dict[tuple[SplitName, float], Path]:
    """Folders of the wanted splits and fractions, checked against the manifest and written where missing.

    Raises:
        FieldError: the data differs from the manifest.
    """
    paths = {(split, fraction): storage.rows(manifest, split, fraction) for split, fraction in wanted}
    if all(map(_is_whole, paths.values())) and are_unchanged(storage.files(manifest)):
        return paths
    read, files = read_data(data, folder, storage, tell, images)
    write_prepared(manifest, manifest.rows_of(read), files, storage, wanted)
    return paths


def write_prepared(
    manifest: Manifest,
    splits: Splits,
    files: list[Path],
    storage: DataFolder,
    wanted: Sequence[tuple[SplitName, float]],
) -> None:
    for split, fraction in wanted:
        path = storage.rows(manifest, split, fraction)
        if not _is_whole(path):
            write_rows(subset(splits[split], fraction), path, with_groups=split == "test")
    write_text(storage.files(manifest), json.dumps({str(file): _stamp(file) for file in files}))


def write_rows(rows: Sequence[Row], path: Path, *, with_groups: bool = False) -> None:
    """Writes rows as an Arrow folder, atomically. `with_groups`: rows of one group share a number.

    A complete folder is kept: another process was faster, and its trainer may be reading it. A damaged one stays until
    it is replaced.
    """
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    draft = draft_of(path)
    columns: dict[str, list[object]] = {
        "id": [row.id for row in rows],
        "messages": [row.messages for row in rows],
        "label": [row.label for row in rows],
    }
    if any(row.stage for row in rows):
        columns["stage"] = [row.stage for row in rows]
    for name in ("rejected", "desirable"):
        if any(getattr(row, name) is not None for row in rows):
            columns[name] = [getattr(row, name) for row in rows]
    if any(row.images for row in rows):  # TRL treats any data set with an "images" column as a vision one
        columns["images"] = [[str(image.path) for image in row.images] for row in rows]
        columns["image_sha256s"] = [[image.sha256 for image in row.images] for row in rows]
    if any(row.examples for row in rows):
        columns["examples"] = [list(row.examples) for row in rows]
    if with_groups:
        columns["group"] = list(leakage_groups(rows))
    Dataset.from_dict(columns).save_to_disk(str(draft))
    (draft / _SUMS).write_text(json.dumps(_sums(draft)))
    aside = draft_of(path)
    if path.is_dir() and not _is_whole(path):
        with suppress(OSError):
            path.rename(aside)
    try:
        draft.rename(path)
    except OSError:  # another process was faster
        shutil.rmtree(draft)
    shutil.rmtree(aside, ignore_errors=True)


def read_written(path: Path) -> list[Row]:
    """The rows that `write_rows` wrote, without groups, splits and examples."""
    from datasets import Dataset

    return [
        Row(
            id=row["id"],
            messages=row["messages"],
            images=tuple(images_of(row)),
            group=None,
            label=row.get("label"),
            split=None,
            stage=row.get("stage"),
        )
        for row in Dataset.load_from_disk(str(path))
    ]


def images_of(row: Mapping[str, Any]) -> list[CheckedImage]:
    """The images of a prepared row. Folders of an earlier version have exactly one, in columns of their own."""
    if "images" in row:
        return list(map(CheckedImage, map(Path, row["images"]), row["image_sha256s"]))
    if not row.get("image"):
        return []
    path = Path(row["image"])
    return [CheckedImage(path, row.get("image_sha256") or hashlib.sha256(path.read_bytes()).hexdigest())]


def _is_whole(path: Path) -> bool:
    """Whether all written bytes are there. Folders of an earlier version have no checksums and are trusted."""
    if not (path / _SUMS).exists():
        return path.is_dir()
    try:
        return cast(dict[str, str], read_json(path / _SUMS)) == _sums(path)
    except (OSError, UnreadableFile):
        return False


def _sums(path: Path) -> dict[str, str]:
    sums = {}
    for file in path.iterdir():
        if file.name != _SUMS:
            with file.open("rb") as content:
                sums[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
    return sums


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def are_unchanged(record: Path) -> bool:
    """Whether the size and time of every source file are unchanged since the rows were prepared."""
    if not record.exists():
        return False
    stamps = cast(dict[str, list[int]], read_json(record))
    try:
        return all(_stamp(Path(file)) == stamp for file, stamp in stamps.items())
    except OSError:
        return False
