"""Class labels: distinct, present in every split, and balanced if the study asks for it."""

from __future__ import annotations

import json
import random
import unicodedata
from collections import Counter
from collections.abc import Sequence

from hpsearch.data.rows import Row
from hpsearch.data.split import SplitName, Splits
from hpsearch.errors import FieldError
from hpsearch.spec.data import DataSpec

_KEY = "data.columns.label"


def check_labels(rows: Sequence[Row]) -> None:
    """Raises FieldError where labels differ only in case or whitespace, or there is just one."""
    counts = Counter(row.label for row in rows if row.label is not None)
    if len(counts) == 1:
        raise FieldError(_KEY, f"every row has the label {quoted(next(iter(counts)))}: nothing to learn")
    alike: dict[str, list[str]] = {}
    for label, _ in counts.most_common():
        key = " ".join(unicodedata.normalize("NFC", label).split()).casefold()
        alike.setdefault(key, []).append(label)
    groups = [labels for labels in alike.values() if len(labels) > 1]
    if groups:
        same = "; ".join(" and ".join(f"{quoted(name)} ({counts[name]} rows)" for name in names) for names in groups)
        renamed = ", ".join(f"{quoted(name)}: {quoted(first)}" for first, *others in groups for name in others)
        raise FieldError(
            _KEY,
            f"{same} differ only in case or whitespace. If they are one class, say so with "
            f"data.labels: {{{renamed}}}; if not, give one of them another name there",
        )


def quoted(label: str) -> str:
    """As YAML text, with invisible characters escaped."""
    return json.dumps(label, ensure_ascii=not label.isprintable())


def check_classes(splits: Splits) -> None:
    """Raises FieldError where a class is missing in a split."""
    found = {name: Counter(row.label for row in rows) for name, rows in splits.items()}
    for label in sorted({str(label) for counts in found.values() for label in counts}):
        missing = [name for name, counts in found.items() if label not in counts]
        if missing:
            there = ", ".join(f"{counts[label]} in {name}" for name, counts in found.items() if label in counts)
            raise FieldError(
                _KEY,
                f"class {quoted(label)} has no rows in {' and '.join(missing)} ({there}): give it more rows or groups, "
                f"split with another seed, or leave it out with data.labels: {{{quoted(label)}: null}}",
            )


def balanced(splits: Splits, data: DataSpec) -> tuple[Splits, dict[str, str]]:
    """(the splits, with at most the given number of train rows per label, drawn once; id → reason of the surplus rows).
    Rows without a label are kept.
    """
    counts = Counter(row.label for row in splits["train"] if row.label is not None)
    if data.balance is None or not counts:
        return splits, {}
    most = min(counts.values()) if data.balance == "smallest" else data.balance
    drawn = {row.id for row in splits["train"] if row.label is None}
    for label in counts:
        ids = [row.id for row in splits["train"] if row.label == label]
        drawn.update(random.Random(data.split.seed).sample(ids, min(most, len(ids))))
    reason = f"balance: more than {most} training rows of its label"
    too_many = {row.id: reason for row in splits["train"] if row.id not in drawn}
    train: SplitName = "train"
    return {**splits, train: [row for row in splits[train] if row.id in drawn]}, too_many
