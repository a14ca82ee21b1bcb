"""The source's table: the columns that a study names, checked before any row is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpsearch.data.formats import answer_name, as_text
from hpsearch.errors import FieldError, or_near
from hpsearch.spec.data import ColumnsSpec, DataSpec
from hpsearch.spec.rows import FORMATS

if TYPE_CHECKING:
    from datasets import Dataset

_NAMED_LABELS = 8


def only_needed(table: Dataset, data: DataSpec, split_column: str | None) -> Dataset:
    roles = {f"data.columns.{role}": name for role, name in data.columns.named().items()}
    if split_column:
        roles["data.split.column"] = split_column
    asked: list[str] = []
    missing = [
        FieldError(key, f"the data has no column {or_near(name, there)}; it has: {', '.join(there)}")
        for key, name in roles.items()
        if name not in (there := table.column_names)
    ]
    for name in data.template.columns:
        try:
            asked.append(_column_of(name, table))
        except FieldError as error:
            missing.append(error)
    if missing:
        raise FieldError(missing[0].key, missing[0].message, missing[1:])
    _check_texts(table, data)
    return table.select_columns(list(dict.fromkeys([*roles.values(), *asked])))


def _check_texts(table: Dataset, data: DataSpec) -> None:
    """Raises FieldError where a column of texts holds lists or mappings; in preferences they may be turns."""
    from datasets import ClassLabel, Value
    from datasets.features import Json

    row_format = FORMATS[data.columns.row_format]
    for role in ("question", "answer", "prompt", "completion", "text"):
        name = data.columns.named().get(role)
        if name is None or row_format.is_judged or isinstance(table.features[name], Value | ClassLabel | Json):
            continue
        feature = table.features[name]
        found = f"several values ({', '.join(feature)})" if isinstance(feature, dict) else "lists or images"
        parts = f"{name}.{next(iter(feature))}" if isinstance(feature, dict) else name
        hint = f"; data.prompt can ask over it in its place: {{{parts}}}" if role == row_format.asks else ""
        raise FieldError(f"data.columns.{role}", f"column {name!r} holds {found}, not text{hint}")


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
            there = inside or table.column_names
            shown = repr(name) if depth else or_near(name, there)
            raise FieldError("data.prompt", f"the data has no column {shown}; it has: {', '.join(there)}")
        place = place[part]
    inner = list(place.values()) if isinstance(place, dict) else [getattr(place, "feature", place)]
    if not all(isinstance(feature, Value | ClassLabel | Json) for feature in inner):
        raise FieldError("data.prompt", f"column {name!r} holds no text, nor a list of texts")
    return parts[0]


def with_class_names(table: Dataset) -> Dataset:
    """Replaces the class numbers of `datasets` by names: its ClassLabel uses -1 for a missing one."""
    from datasets import ClassLabel

    for column, feature in table.features.items():
        if isinstance(feature, ClassLabel):
            names = [None if number is None or number < 0 else feature.names[number] for number in table[column]]
            table = table.remove_columns([column]).add_column(column, names)
    return table


def check_labels_are_there(table: Dataset, columns: ColumnsSpec, labels: Mapping[str, str | None]) -> None:
    if not labels or columns.label is None:
        return
    found = Counter(as_text(value) for value in table.select_columns([columns.label])[columns.label])
    missing = [label for label in labels if label not in found]
    if missing:
        known = ", ".join(repr(label) for label, _ in found.most_common(_NAMED_LABELS) if label is not None)
        raise FieldError("data.labels", f"no row has the label {missing[0]!r}; found: {known}")


def check_answers_are_there(table: Dataset, data: DataSpec) -> None:
    if not data.answers:
        return
    column = data.columns.named()[str(FORMATS[data.columns.row_format].answers)]
    found = Counter(answer_name(value) for value in table.select_columns([column])[column])
    missing = [answer for answer in data.answers if answer not in found]
    if missing:
        known = ", ".join(repr(answer) for answer, _ in found.most_common(_NAMED_LABELS) if answer is not None)
        raise FieldError("data.answers", f"no row has the answer {missing[0]!r}; found: {known}")
