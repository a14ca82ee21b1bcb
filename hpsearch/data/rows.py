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

from hpsearch.data.formats import Message, answer_name, as_text, conversation, is_desirable, rejected_answer
from hpsearch.data.image_lists import ImageLists, images_mistake
from hpsearch.data.images import CheckedImage
from hpsearch.data.source import Source
from hpsearch.errors import FieldError
from hpsearch.jobs import Tell
from hpsearch.spec.data import ColumnsSpec, DataSpec, SplitByColumn
from hpsearch.spec.rows import FORMATS
from hpsearch.spec.tasks import Images

if TYPE_CHECKING:
    from datasets import Dataset

_NAMED_LABELS = 8
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

    def without(self, why: Mapping[str, str]) -> ReadRows:
        """A copy without the rows in `why` (id → reason), which are added to those left out."""
        left_out = {reason: list(ids) for reason, ids in self.left_out.items()}
        for row in self.rows:
            if row.id in why:
                left_out.setdefault(why[row.id], []).append(row.id)
        return ReadRows(tuple(row for row in self.rows if row.id not in why), left_out, self.notes)


def read_rows(source: Source, data: DataSpec, image_store: Path, tell: Tell, images: Images = "several") -> ReadRows:
    """Reads every row of `source`; images that are stored in the data are written to `image_store` once.

    `images`: how many a row may have, if there is an image column.

    Raises:
        FieldError: a column is missing, or `data` names a label or an answer that no row has.
    """
    columns, labels = data.columns, data.labels
    split_column = data.split.column if isinstance(data.split, SplitByColumn) else None
    table = _with_class_names(_only_needed(source.rows, data, split_column))
    _check_labels_are_there(table, columns, labels)
    _check_answers_are_there(table, data)
    seen = None
    if columns.image:
        joins = data.group_duplicates
        seen = ImageLists(table, columns.image, source.images, image_store, tell, groups_lookalikes=joins)
    rows: list[Row] = []
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for position, values in enumerate(_plain(table, data)):
        row_id = str(values[columns.id]) if columns.id else str(position)
        label = as_text(values[columns.label]) if columns.label else None
        if label is not None and label in labels:
            label = labels[label]
            if label is None:
                left_out["label is left out by data.labels"].append(row_id)
                continue
        messages = conversation(values, data, label)
        if isinstance(messages, str):
            left_out[messages].append(row_id)
            continue
        found = seen.of(position) if seen else ()
        if isinstance(found, str):
            left_out[found].append(row_id)
            continue
        if seen and (mistake := images_mistake(messages, len(found), images)):
            left_out[mistake].append(row_id)
            continue
        row = Row(
            id=row_id,
            messages=messages,
            images=found,
            group=as_text(values[columns.group]) if columns.group else None,
            label=label,
            split=as_text(values[split_column]) if split_column else None,
            stage=as_text(values[columns.stage]) if columns.stage else None,
            rejected=rejected_answer(values, data),
            desirable=is_desirable(values, data),
        )
        rows.append(row)
        if position % 1000 == 0:
            tell("reading rows", position, len(table))
    unique, duplicates = _without_duplicates(rows)
    if duplicates:
        left_out["duplicate of another row"] = duplicates
    _check_ids_are_unique(unique, columns)
    return ReadRows(tuple(unique), dict(left_out), seen.notes if seen else ())


def _only_needed(table: Dataset, data: DataSpec, split_column: str | None) -> Dataset:
    roles = {f"data.columns.{role}": name for role, name in data.columns.named().items()}
    if split_column:
        roles["data.split.column"] = split_column
    for key, name in roles.items():
        if name not in table.column_names:
            raise FieldError(key, f"the data has no column {name!r}; it has: {', '.join(table.column_names)}")
    asked = [_column_of(name, table) for name in data.template.columns]
    return table.select_columns(list(dict.fromkeys([*roles.values(), *asked])))


def _column_of(name: str, table: Dataset) -> str:
    """The column that a prompt means by `name`, which may be a part of it.

    Raises FieldError where there is none, or where it holds no text, nor a list or a mapping of texts.
    """
    from datasets import ClassLabel, Value
    from datasets.features import Json

    place: Any = dict(table.features)
    parts = [name] if name in place else name.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(place, dict) or part not in place:
            inside = [".".join([*parts[:depth], inner]) for inner in place] if isinstance(place, dict) else []
            there = ", ".join(inside or table.column_names)
            raise FieldError("data.prompt", f"the data has no column {name!r}; it has: {there}")
        place = place[part]
    inner = list(place.values()) if isinstance(place, dict) else [getattr(place, "feature", place)]
    if not all(isinstance(feature, Value | ClassLabel | Json) for feature in inner):
        raise FieldError("data.prompt", f"column {name!r} holds no text, nor a list of texts")
    return parts[0]


def _with_class_names(table: Dataset) -> Dataset:
    """Replaces the class numbers of `datasets` by names: its ClassLabel uses -1 for a missing one."""
    from datasets import ClassLabel

    for column, feature in table.features.items():
        if isinstance(feature, ClassLabel):
            names = [None if number is None or number < 0 else feature.names[number] for number in table[column]]
            table = table.remove_columns([column]).add_column(column, names)
    return table


def _check_labels_are_there(table: Dataset, columns: ColumnsSpec, labels: Mapping[str, str | None]) -> None:
    if not labels or columns.label is None:
        return
    found = Counter(as_text(value) for value in table.select_columns([columns.label])[columns.label])
    missing = [label for label in labels if label not in found]
    if missing:
        known = ", ".join(repr(label) for label, _ in found.most_common(_NAMED_LABELS) if label is not None)
        raise FieldError("data.labels", f"no row has the label {missing[0]!r}; found: {known}")


def _check_answers_are_there(table: Dataset, data: DataSpec) -> None:
    if not data.answers:
        return
    column = data.columns.named()[str(FORMATS[data.columns.row_format].answers)]
    found = Counter(answer_name(value) for value in table.select_columns([column])[column])
    missing = [answer for answer in data.answers if answer not in found]
    if missing:
        known = ", ".join(repr(answer) for answer, _ in found.most_common(_NAMED_LABELS) if answer is not None)
        raise FieldError("data.answers", f"no row has the answer {missing[0]!r}; found: {known}")


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


def _without_duplicates(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """(the first row of each content, the ids of the others)."""
    seen: set[str] = set()
    unique, duplicates = [], []
    for row in rows:
        if row.sha256 in seen:
            duplicates.append(row.id)
        else:
            seen.add(row.sha256)
            unique.append(row)
    return unique, duplicates


def _check_ids_are_unique(rows: list[Row], columns: ColumnsSpec) -> None:
    repeated, times = Counter(row.id for row in rows).most_common(1)[0] if rows else ("", 0)
    if times > 1:
        raise FieldError("data.columns.id", f"{columns.id!r} does not name rows: {repeated!r} occurs {times} times")
