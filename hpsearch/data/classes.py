"""Labels that are learned: told apart, present in every split, and balanced where the study says so."""

from __future__ import annotations

import random
from collections import Counter

from hpsearch.data.rows import ReadRows, Row
from hpsearch.data.split import SplitName, Splits
from hpsearch.errors import FieldError
from hpsearch.spec.data import DataSpec


def check_labels(rows: list[Row]) -> None:
    """Raises FieldError where labels differ in nothing but case or blanks, or there is just one."""
    counts = Counter(row.label for row in rows if row.label is not None)
    if len(counts) == 1:
        raise FieldError("data.columns.label", f"every row has the label {next(iter(counts))!r}: nothing to learn")
    alike: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: -counts[label]):
        key = " ".join(label.split()).casefold()
        first = alike.setdefault(key, label)
        if first != label:
            raise FieldError(
                "data.columns.label",
                f"{first!r} ({counts[first]} rows) and {label!r} ({counts[label]}) differ in nothing but case or "
                f"blanks. If they are one class, say so with data.labels: {{{label!r}: {first!r}}}",
            )


def check_classes(splits: Splits) -> None:
    """Raises FieldError where a class is missing in a split."""
    found = {name: Counter(row.label for row in rows) for name, rows in splits.items()}
    for label in sorted({str(label) for counts in found.values() for label in counts}):
        missing = [name for name, counts in found.items() if label not in counts]
        if missing:
            there = ", ".join(f"{counts[label]} in {name}" for name, counts in found.items() if label in counts)
            raise FieldError(
                "data.columns.label",
                f"class {label!r} has no rows in {' and '.join(missing)} ({there}): give it more rows or groups, "
                f"split with another seed, or leave it out with data.labels: {{{label!r}: null}}",
            )


def balanced(splits: Splits, data: DataSpec, read: ReadRows) -> Splits:
    """The splits with a train split of at most so many rows per label, drawn once."""
    if data.balance is None:
        return splits
    counts = Counter(row.label for row in splits["train"])
    most = min(counts.values()) if data.balance == "smallest" else data.balance
    drawn: set[str] = set()
    for label in counts:
        ids = [row.id for row in splits["train"] if row.label == label]
        drawn.update(random.Random(data.split.seed).sample(ids, min(most, len(ids))))
    for row in splits["train"]:
        if row.id not in drawn:
            read.leave_out(f"balance: more than {most} training rows of its label", row.id)
    train: SplitName = "train"
    return {**splits, train: [row for row in splits[train] if row.id in drawn]}
