"""A held-out set: test rows that several studies share, in a file of their ids and checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from hpsearch.data.rows import ReadRows, Row
from hpsearch.errors import FieldError
from hpsearch.files import draft_of

_KEY = "data.held_out"


def write_held_out(file: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Writes ids and checksums once: an existing set must have the same rows.

    Raises:
        FieldError: another study wrote a different set meanwhile.
    """
    keys = [list(key) for key in rows]
    about = "Test rows that several studies share: id and SHA-256 of the content. Written by hpsearch; don't edit."
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(file)
    draft.write_text(json.dumps({"about": about, "sha256": _checksum(keys), "rows": keys}, indent=1))
    try:
        file.hardlink_to(draft)  # unlike a rename, it fails where the file exists
    except OSError:
        if not file.exists():  # a file system without links
            draft.replace(file)
        elif _keys(file) != keys:
            message = f"{file} was written by another study meanwhile; start again, and its rows are held out here too"
            raise FieldError(_KEY, message) from None
    finally:
        draft.unlink(missing_ok=True)


def take_held_out(file: Path, read: ReadRows) -> tuple[list[Row], ReadRows]:
    """(the held-out rows, the others). Other rows that are tied to a held-out row are left out.

    Raises:
        FieldError: the file was edited, or a row of it is missing, has changed or can't be used.
    """
    keys = _keys(file)
    by_id = {row.id: row for row in read.rows}
    unusable = {row_id: reason for reason, ids in read.left_out.items() for row_id in ids}
    for row_id, sha256 in keys:
        if row_id not in by_id or by_id[row_id].sha256 != sha256:
            what = f"is left out of this data ({unusable[row_id]})" if row_id in unusable else "is gone from this data"
            what = "has changed in this data" if row_id in by_id else what
            raise FieldError(_KEY, f"row {row_id!r} of {file} {what}")
    held = {row_id for row_id, _ in keys}
    ties = {tie for row_id in held for tie in by_id[row_id].ties}
    others = ReadRows([row for row in read.rows if row.id not in held], read.left_out)
    tied = [row.id for row in others.rows if not ties.isdisjoint(row.ties)]
    reason = "shares its group, image or words with a held-out row"
    return [by_id[row_id] for row_id, _ in keys], others.without(dict.fromkeys(tied, reason))


def holds_out(file: Path, rows: Iterable[tuple[str, str]]) -> bool:
    """Whether the set has these rows, or is not written yet. Raises FieldError where it was edited."""
    return not file.exists() or _keys(file) == [list(key) for key in rows]


def _keys(file: Path) -> list[list[str]]:
    try:
        content = json.loads(file.read_text())
        keys: list[list[str]] = content["rows"]
        was = content["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FieldError(_KEY, f"{file} is no held-out set ({type(error).__name__}: {error})") from None
    if _checksum(keys) != was:
        raise FieldError(_KEY, f"{file} does not match its checksum: it was edited after it was written")
    return keys


def _checksum(keys: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()
