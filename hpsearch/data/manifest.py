"""The manifest: which row is in which split, with checksums. Stored with the study, checked at every start."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from hpsearch.data.examples import with_examples
from hpsearch.data.places import Places
from hpsearch.data.rows import LeftOut, ReadRows, Row
from hpsearch.data.split import SplitName, Splits
from hpsearch.errors import FieldError
from hpsearch.trial import Record

RowKey = tuple[str, str]
"""A row's id and the SHA-256 of its content."""


class Manifest(Record):
    splits: dict[SplitName, list[RowKey]]
    left_out: dict[str, list[str]]
    """Reason → ids."""
    left_out_at: dict[str, str] = Field({}, description="reason → where the first such rows stand, for people")
    labels: dict[SplitName, dict[str, int]] = Field({}, description="how many rows of each split have which label")
    notes: list[str] = Field([], description="notes about the rows that are used")

    examples: int = Field(0, description="how many training rows each row is shown")
    examples_sha256: str | None = Field(
        None, description="of the examples, where there are any: which rows are tied is no part of the splits"
    )
    num_images: dict[SplitName, dict[int, int]] = Field(
        {},
        description="rows of each split by their number of images; missing in manifests of an earlier version",
    )

    @property
    def classes(self) -> list[str]:
        """Every label, sorted."""
        return sorted({label for counts in self.labels.values() for label in counts})

    @property
    def sha256(self) -> str:
        what = {"splits", *(("examples", "examples_sha256") if self.examples else ())}
        return hashlib.sha256(self.model_dump_json(include=what).encode()).hexdigest()

    def to_bytes(self) -> bytes:
        return gzip.compress(self.model_dump_json().encode(), mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Raises ValueError where that is no manifest."""
        try:
            return cls.model_validate_json(gzip.decompress(content))
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"it is no manifest: {error}") from None

    def rows_of(self, read: ReadRows) -> Splits:
        """The rows of each split, from freshly read data.

        Raises:
            FieldError: the data has changed since the study was created, or two splits overlap.
        """
        by_id = {row.id: row for row in read.rows}
        known = {row_id for keys in self.splits.values() for row_id, _ in keys}
        known |= {row_id for ids in self.left_out.values() for row_id in ids}
        differences = [(row_id, "is new") for row_id in by_id if row_id not in known]
        differences += [
            (row_id, "has changed" if row_id in by_id else "is gone")
            for keys in self.splits.values()
            for row_id, sha256 in keys
            if row_id not in by_id or by_id[row_id].sha256 != sha256
        ]
        if differences:
            lines = read.places.lines_of([row_id for row_id, _ in differences[:3]]) if read.places else {}
            places = {row_id: f" (line {line})" for row_id, line in lines.items()}
            named = ", ".join(f"row {row_id!r}{places.get(row_id, '')} {what}" for row_id, what in differences[:3])
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise FieldError(
                "data.source",
                f"the data is not what it was when the study was created: {named}{more}. "
                "Bring the old data back, or give the study a new name",
            )
        splits: Splits = {name: [by_id[row_id] for row_id, _ in keys] for name, keys in self.splits.items()}
        check_disjoint(splits, read.places)
        found = with_examples(splits, self.examples)
        if self.examples_sha256 not in (None, _checksum_of_examples(found)):
            message = "other rows share a group or a picture than when the study was created: others may be shown"
            raise FieldError("data.examples", message)
        return found


def make_manifest(
    splits: Splits,
    left_out: LeftOut,
    examples: int = 0,
    notes: Sequence[str] = (),
    places: Places | None = None,
) -> Manifest:
    check_disjoint(splits, places)
    keys: dict[SplitName, list[RowKey]] = {
        name: [(row.id, row.sha256) for row in rows] for name, rows in splits.items()
    }
    labels: dict[SplitName, dict[str, int]] = {
        name: dict(Counter(row.label for row in rows if row.label is not None)) for name, rows in splits.items()
    }
    num_images: dict[SplitName, dict[int, int]] = {
        name: dict(sorted(Counter(len(row.images) for row in rows).items())) for name, rows in splits.items()
    }
    ids = {reason: list(ids) for reason, ids in left_out.items()}
    return Manifest(
        splits=keys,
        left_out=ids,
        left_out_at=places.describe(ids) if places else {},
        labels=labels,
        num_images=num_images,
        examples=examples,
        examples_sha256=_checksum_of_examples(splits) if examples else None,
        notes=list(notes),
    )


def _checksum_of_examples(splits: Splits) -> str:
    """Checksum of the rows that have examples."""
    digest = hashlib.sha256()
    for row in (row for rows in splits.values() for row in rows):
        digest.update(json.dumps([row.id, list(row.examples)]).encode())
    return digest.hexdigest()


def check_disjoint(splits: Splits, places: Places | None = None) -> None:
    """Raises FieldError where a row, its content, its group or one of its images is in two splits."""
    owner: dict[tuple[str, str], tuple[SplitName, Row]] = {}
    overlaps: list[tuple[SplitName, Row, SplitName, Row, str]] = []
    for name, rows in splits.items():
        for row in rows:
            shared = [tie for tie in row.ties if tie[0] != "words"]
            found = None
            for kind, value in [("row", row.id), ("content", row.sha256), *shared]:
                first, first_row = owner.setdefault((kind, value), (name, row))
                if first != name:
                    what = f"{kind} {value!r}" if kind == "group" else kind
                    found = found or (first, first_row, name, row, what)
            overlaps += [found] if found else []
    if overlaps:
        first, first_row, name, row, what = overlaps[0]
        pair = _both(first_row.id, row.id, places)
        more = f" ({len(overlaps) - 1:,} more rows overlap)" if len(overlaps) > 1 else ""
        raise FieldError("data.split", f"{first} and {name} overlap: {pair} share the same {what}{more}")


def _both(one: str, other: str, places: Places | None) -> str:
    lines = places.lines_of([one, other]) if places else {}
    if not lines or not places or not places.file:
        return f"rows {one!r} and {other!r}"
    return f"lines {lines[one]} and {lines[other]} of {places.file.name}"
