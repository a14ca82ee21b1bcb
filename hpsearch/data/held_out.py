"""A held-out set: test rows that several studies share, in a file of their ids and checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hpsearch.data.rows import ReadRows, Row
from hpsearch.errors import FieldError
from hpsearch.folders import read_json, write_text

_KEY = "data.held_out"


def write_held_out(file: Path, rows: list[Row]) -> None:
    keys = [[row.id, row.sha256] for row in rows]
    about = "Test rows that several studies share: id and SHA-256 of the content. Written by hpsearch; don't edit."
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"about": about, "sha256": _checksum(keys), "rows": keys}, indent=1))


def take_held_out(file: Path, read: ReadRows) -> tuple[list[Row], list[Row]]:
    """(the held-out rows, the others). What shares a group or an image with a held-out row is left out.

    Raises:
        FieldError: the file was edited, or a row of it is gone or has changed.
    """
    keys = _keys(file)
    by_id = {row.id: row for row in read.rows}
    for row_id, sha256 in keys:
        if row_id not in by_id or by_id[row_id].sha256 != sha256:
            what = "has changed" if row_id in by_id else "is gone"
            raise FieldError(_KEY, f"row {row_id!r} of {file} {what} in this data")
    held = {row_id for row_id, _ in keys}
    groups = {by_id[row_id].group for row_id in held} - {None}
    images = {by_id[row_id].image_sha256 for row_id in held} - {None}
    others = []
    for row in read.rows:
        if row.id in held:
            continue
        if row.group in groups or row.image_sha256 in images:
            read.leave_out("shares its group or image with a held-out row", row.id)
        else:
            others.append(row)
    return [by_id[row_id] for row_id, _ in keys], others


def _keys(file: Path) -> list[list[str]]:
    try:
        content = read_json(file)
        keys: list[list[str]] = content["rows"]  # type: ignore[assignment]
        was = content["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise FieldError(_KEY, f"{file} is no held-out set ({error})") from None
    if _checksum(keys) != was:
        raise FieldError(_KEY, f"{file} does not match its checksum: it was edited after it was written")
    return keys


def _checksum(keys: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()
