"""From rows to splits, as a study says: held-out set, split, classes, curriculum."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hpsearch.data.classes import balanced, check_classes, check_labels
from hpsearch.data.held_out import take_held_out, write_held_out
from hpsearch.data.manifest import Manifest
from hpsearch.data.rows import LeftOut, ReadRows
from hpsearch.data.split import (
    Splits,
    TooFewGroups,
    check_any_left,
    draw_test,
    in_unused_splits,
    split_rows,
    split_two,
)
from hpsearch.errors import FieldError
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import DataSpec, SplitByFraction


def divide(read: ReadRows, data: DataSpec, curriculum: CurriculumSpec, folder: Path) -> tuple[Splits, LeftOut]:
    """(the splits, the left-out rows) of a study whose relative paths start at `folder`.

    Raises:
        FieldError: a split, a class or a stage would be empty, or the held-out set doesn't fit.
    """
    check_any_left(read)
    if data.columns.row_format == "question-label":
        check_labels(read.rows)
    if curriculum.stages:
        read = _in_stages(read, curriculum)
    try:
        splits, read = _split(read, data, folder)
    except TooFewGroups:
        if data.columns.group is None:
            raise
        raise FieldError("data.columns.group", _too_few(read, data.columns.group)) from None
    splits, thinned_out = balanced(splits, data)
    if data.columns.row_format == "question-label":
        check_classes(splits)
    for stage in curriculum.stages:
        if not any(curriculum.stage_of(row.stage) == stage.name for row in splits["train"]):
            raise FieldError("curriculum.stages", f"stage {stage.name!r} has no training rows")
    return splits, read.without(thinned_out).left_out


def _split(read: ReadRows, data: DataSpec, folder: Path) -> tuple[Splits, ReadRows]:
    if data.held_out:
        assert isinstance(data.split, SplitByFraction), "refused when the file was read"
        return _around_held_out(folder / data.held_out, read, data.split)
    return split_rows(read, data.split), read.without(in_unused_splits(read.rows, data.split))


def _too_few(read: ReadRows, column: str) -> str:
    number = len({row.group for row in read.rows})
    groups = f"{number} group{'' if number == 1 else 's'}"
    return f"column {column!r} has {groups}, and each split needs one of its own: rows of a group stay together"


def _around_held_out(file: Path, read: ReadRows, split: SplitByFraction) -> tuple[Splits, ReadRows]:
    """(the splits, the rows outside the held-out set): the same for the study that draws the held-out set and for those
    that find it, including that study itself later.
    """
    if file.exists():
        test, others = take_held_out(file, read)
    else:
        drawn_from, test = draw_test(read.rows, split)
        others = ReadRows(drawn_from, read.left_out)
    train, validation = split_two(others.rows, split)
    return {"train": train, "validation": validation, "test": test}, others


def keep_held_out(manifest: Manifest, data: DataSpec, folder: Path) -> None:
    """Writes the held-out set that the study names, if it does not exist yet.

    Raises:
        FieldError: another study wrote a different one since the rows were split.
    """
    if data.held_out:
        write_held_out(folder / data.held_out, manifest.splits["test"])


def _in_stages(read: ReadRows, curriculum: CurriculumSpec) -> ReadRows:
    """The rows that belong to a stage."""
    found = Counter(row.stage for row in read.rows)
    for stage in curriculum.stages:
        if not any(value is not None and stage.accepts(value) for value in found):
            named = [("nothing" if value is None else repr(value), count) for value, count in found.most_common(8)]
            says = ", ".join(f"{value} ({count} rows)" for value, count in named)
            raise FieldError("curriculum.stages", f"stage {stage.name!r} has no rows; the stage column says {says}")
    outside = [row for row in read.rows if curriculum.stage_of(row.stage) is None]
    return read.without({row.id: f"{row.stage!r} is in no stage of the curriculum" for row in outside})
