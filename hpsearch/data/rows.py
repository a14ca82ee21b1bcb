"""Reading a source into rows, each with its checksum, and counting the rows that are left out with the reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.data.formats import Message, as_text, conversation, is_desirable, rejected_answer
from hpsearch.data.image_lists import ImageLists, images_mistake
from hpsearch.data.images import CheckedImage
from hpsearch.data.places import NAMED, Places, Spot
from hpsearch.data.source import Source
from hpsearch.data.table import check_answers_are_there, check_labels_are_there, only_needed, with_class_names
from hpsearch.errors import FieldError
from hpsearch.jobs import Tell
from hpsearch.spec.data import ColumnsSpec, DataSpec, SplitByColumn
from hpsearch.spec.tasks import Images

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 1000


@dataclass(frozen=True)
class Row:
    """One example. `messages` ends with the assistant's answer, also for raw prompts and completions.

    Preference rows have a second, `rejected` answer to the same messages, or a label whether their answer is desirable.
    """

    id: str
    messages: list[Message]
    images: tuple[CheckedImage, ...]
    group: str | None
    label: str | None
    split: str | None
    stage: str | None = None
    examples: Sequence[Message] = ()
    """Turns of other rows (few-shot examples) that come before its own. Not part of its content: see
    `data/examples`.
    """
    rejected: str | None = None
    desirable: bool | None = None

    @cached_property
    def sha256(self) -> str:
        """Of the content: rows with equal checksums are duplicates, whatever their ids."""
        content = [self.messages, self._seen, self.label, *([self.stage] if self.stage else [])]
        judged = {"rejected": self.rejected, "desirable": self.desirable} if self.is_judged else None
        return _checksum([*content, judged] if judged else content)

    @property
    def asked_sha256(self) -> str:
        """Of everything except the answer."""
        return _checksum([self.messages[:-1], self._seen])

    @property
    def is_judged(self) -> bool:
        return self.rejected is not None or self.desirable is not None

    @property
    def ties(self) -> list[tuple[str, str]]:
        """Keys that must not be in two splits: (kind, name). The words are a key too: a curriculum may ask the same in
        two stages, and preferences may compare several answers to one question.
        """
        words_of = self.messages[:-1] if self.is_judged else self.messages
        words = hashlib.sha256(repr([words_of, self._seen]).encode()).hexdigest()
        group = [] if self.group is None else [("group", self.group)]
        seen = [("image", image.sha256) for image in self.images]
        alike = [
            ("picture in different files", image.lookalikes) for image in self.images if image.lookalikes is not None
        ]
        return [*group, *seen, *alike, ("words", words)]

    @property
    def _seen(self) -> list[str] | str | None:
        """The images' checksums. A single one is no list, as in manifests from when a row had at most one."""
        found = [image.sha256 for image in self.images]
        return found if len(found) > 1 else next(iter(found), None)


def _checksum(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


LeftOut = Mapping[str, Sequence[str]]
"""Reason → ids of the rows that are left out for it, in the order of the rows."""


@dataclass(frozen=True)
class ReadRows:
    """The usable rows, and the ids of the others by reason. Immutable: see `without`."""

    rows: Sequence[Row]
    left_out: LeftOut = field(default_factory=dict)
    notes: Sequence[str] = ()
    """Notes for the person about the usable rows."""
    places: Places | None = field(default=None, compare=False)

    def without(self, why: Mapping[str, str]) -> ReadRows:
        """A copy without the rows in `why` (id → reason), which are added to those left out."""
        left_out = {reason: list(ids) for reason, ids in self.left_out.items()}
        for row in self.rows:
            if row.id in why:
                left_out.setdefault(why[row.id], []).append(row.id)
        return ReadRows(tuple(row for row in self.rows if row.id not in why), left_out, self.notes, self.places)


def read_rows(source: Source, data: DataSpec, image_store: Path, tell: Tell, images: Images = "several") -> ReadRows:
    """Reads every row of `source`; images that are stored in the data are written to `image_store` once.

    `images`: how many a row may have, if there is an image column.

    Raises:
        FieldError: a column is missing, `data` names a label or an answer that no row has, or no image is found.
    """
    columns = data.columns
    split_column = data.split.column if isinstance(data.split, SplitByColumn) else None
    table = with_class_names(only_needed(source.rows, data, split_column))
    check_labels_are_there(table, columns, data.labels)
    check_answers_are_there(table, data)
    seen = None
    if columns.image:
        joins = data.group_duplicates
        seen = ImageLists(table, columns.image, source.images, image_store, tell, groups_lookalikes=joins)
        seen.check_any_found()
    rows: dict[int, Row] = {}
    left_out: defaultdict[str, list[Spot]] = defaultdict(list)
    for position, values in enumerate(_plain(table, data)):
        row_id = str(values[columns.id]) if columns.id else str(position)
        found = seen.of(position) if seen else ()
        row = _row(row_id, values, data, found, images if seen else None)
        if isinstance(row, str):
            left_out[row].append((position, row_id))
        else:
            rows[position] = row
        if position % 1000 == 0:
            tell("reading rows", position, len(table))
    unique, kept = _without_duplicates(rows)
    if kept:
        left_out["duplicate of another row"] = [(position, rows[position].id) for position in kept]
    _check_ids_are_unique(list(unique.values()), columns)
    return ReadRows(
        tuple(unique.values()),
        {reason: [row_id for _, row_id in spots] for reason, spots in left_out.items()},
        seen.notes if seen else (),
        Places(
            file=source.file,
            num_rows=len(table),
            has_ids=columns.id is not None,
            used={row.id: position for position, row in unique.items()},
            left_out={reason: spots[:NAMED] for reason, spots in left_out.items()},
            kept=kept,
        ),
    )


def _row(
    row_id: str,
    values: Mapping[str, Any],
    data: DataSpec,
    found: tuple[CheckedImage, ...] | str,
    allowed: Images | None,
) -> Row | str:
    """The row, or why it is left out. `found`: its images, or what is wrong with them; `allowed`: None without an image
    column.
    """
    columns = data.columns
    label = as_text(values[columns.label]) if columns.label else None
    if label is not None and label in data.labels:
        label = data.labels[label]
        if label is None:
            return "label is left out by data.labels"
    messages = conversation(values, data, label)
    if isinstance(messages, str):
        return messages
    if isinstance(found, str):
        return found
    if allowed and (mistake := images_mistake(messages, len(found), allowed)):
        return mistake
    return Row(
        id=row_id,
        messages=messages,
        images=found,
        group=as_text(values[columns.group]) if columns.group else None,
        label=label,
        split=as_text(values[data.split.column]) if isinstance(data.split, SplitByColumn) else None,
        stage=as_text(values[columns.stage]) if columns.stage else None,
        rejected=rejected_answer(values, data),
        desirable=is_desirable(values, data),
    )


def _plain(table: Dataset, data: DataSpec) -> Iterator[dict[str, Any]]:
    """The rows without their images; an image path is kept where it names the row's group."""
    columns = data.columns
    roles = {f"data.columns.{role}": name for role, name in columns.named().items() if role != "image"}
    shared = [key for key, name in roles.items() if name == columns.image]
    shared += ["data.prompt"] if columns.image in data.template.columns else []
    if shared:
        import datasets

        if not isinstance(table.features[columns.image], datasets.Value):
            message = f"column {columns.image!r} holds images, not text; rows of one image stay in one split anyway"
            raise FieldError(shared[0], message)
    without = table.remove_columns([columns.image]) if columns.image and not shared else table
    if not without.column_names:
        return iter({} for _ in range(len(table)))
    return (
        dict(zip(batch, values, strict=True))
        for batch in without.iter(_BATCH)  # three times as fast as row by row
        for values in zip(*batch.values(), strict=True)
    )


def _without_duplicates(rows: Mapping[int, Row]) -> tuple[dict[int, Row], dict[int, Spot]]:
    """(the first row of each content; position of each other row → the first one)."""
    first: dict[str, Spot] = {}
    unique, kept = {}, {}
    for position, row in rows.items():
        spot = first.setdefault(row.sha256, (position, row.id))
        if spot[0] == position:
            unique[position] = row
        else:
            kept[position] = spot
    return unique, kept


def _check_ids_are_unique(rows: list[Row], columns: ColumnsSpec) -> None:
    repeated, times = Counter(row.id for row in rows).most_common(1)[0] if rows else ("", 0)
    if times > 1:
        raise FieldError("data.columns.id", f"{columns.id!r} does not name rows: {repeated!r} occurs {times} times")
