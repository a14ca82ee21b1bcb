"""The train, validation and test splits, drawn once, groups kept together, labels stratified; and trials' subsets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from hpsearch.data.rows import ReadRows, Row
from hpsearch.errors import FieldError
from hpsearch.spec.data import SplitByColumn, SplitByFraction

SplitName = Literal["train", "validation", "test"]
Splits = dict[SplitName, list[Row]]

_NAMED = 8
_RARE = 10
"""Labels with fewer rows than this are stratified together: one row can't keep its share in three splits."""


def split_rows(read: ReadRows, spec: SplitByFraction | SplitByColumn) -> Splits:
    """Raises FieldError where a split would be empty or the data's own splits share a group or an image."""
    check_any_left(read)
    splits = _by_fraction(read.rows, spec) if isinstance(spec, SplitByFraction) else _by_column(read, spec)
    for name, rows in splits.items():
        if not rows:
            raise FieldError("data.split", f"the {name} split is empty ({len(read.rows)} rows in all)")
    return splits


class TooFewGroups(FieldError):
    """Fewer groups than splits."""

    def __init__(self) -> None:
        message = "too few groups for each split to have one; rows of a group or image stay together"
        super().__init__("data.split", message)


def check_any_left(read: ReadRows, key: str = "data.source") -> None:
    """Raises FieldError about `key`, with the reasons, where every row was left out."""
    if not read.rows:
        reasons = [f"{len(ids)} × {reason}" for reason, ids in read.left_out.items()]
        raise FieldError(key, f"no rows are left: {', '.join(reasons) or 'the source has none'}")


def _by_fraction(rows: Sequence[Row], spec: SplitByFraction) -> Splits:
    train, rest = _draw(rows, spec.validation + spec.test, spec.seed, fewest=2)
    validation, test = _draw(rest, spec.test / (spec.validation + spec.test), spec.seed)
    return {"train": train, "validation": validation, "test": test}


def draw_test(rows: Sequence[Row], spec: SplitByFraction) -> tuple[list[Row], list[Row]]:
    """(the others, the test split). Raises FieldError where it would be empty."""
    others, test = _draw(rows, spec.test, spec.seed)
    if not test:
        raise FieldError("data.split", f"the test split is empty ({len(rows)} rows in all)")
    return others, test


def split_two(rows: Sequence[Row], spec: SplitByFraction) -> tuple[list[Row], list[Row]]:
    """(train, validation) of rows without the test split. Raises FieldError where one would be empty."""
    train, validation = _draw(rows, spec.validation / (spec.train + spec.validation), spec.seed)
    if not train or not validation:
        raise FieldError("data.split", f"{len(rows)} rows beside the held-out set are too few for two splits")
    return train, validation


def _by_column(read: ReadRows, spec: SplitByColumn) -> Splits:
    found = Counter(row.split for row in read.rows)
    wanted = {"train": spec.train, "validation": spec.validation, "test": spec.test}
    for name, value in wanted.items():
        if isinstance(value, str) and value not in found:
            some = sorted(map(str, found))
            more = f" … ({len(some):,} values in all)" if len(some) > _NAMED else ""
            known = f"{', '.join(some[:_NAMED])}{more}"
            raise FieldError(f"data.split.{name}", f"no row says {value!r} in column {spec.column!r}; found: {known}")
    splits: Splits = {"train": [row for row in read.rows if row.split == spec.train]}
    remaining = 1.0
    parts: tuple[tuple[SplitName, str | float], ...] = (("test", spec.test), ("validation", spec.validation))
    for name, value in parts:
        if isinstance(value, str):
            splits[name] = [row for row in read.rows if row.split == value]
        else:
            splits["train"], splits[name] = _draw(splits["train"], value / remaining, spec.seed)
            remaining -= value
    return splits


def in_unused_splits(rows: Sequence[Row], spec: SplitByFraction | SplitByColumn) -> dict[str, str]:
    """Id → reason of the rows that `split_rows` uses nowhere: those in splits of the data that the study does not
    use.
    """
    if isinstance(spec, SplitByFraction):
        return {}
    unused = [row for row in rows if row.split not in (spec.train, spec.validation, spec.test)]
    return {row.id: f"in split {row.split!r}, which the study does not use" for row in unused}


def _draw(rows: Sequence[Row], share: float, seed: int, fewest: int = 1) -> tuple[list[Row], list[Row]]:
    """(the rest, about `share` of the rows), whole groups and stratified by label; at least `fewest` groups."""
    groups = leakage_groups(rows)
    if len(set(groups)) == len(rows):
        drawn = _stratified(rows, share, seed)
    else:
        drawn = _stratified_groups(rows, groups, share, seed, fewest)
    return [row for i, row in enumerate(rows) if i not in drawn], [row for i, row in enumerate(rows) if i in drawn]


def leakage_groups(rows: Sequence[Row]) -> list[int]:
    """A group number for each row: rows that share a group, any image or all words, directly or through others, have
    the same.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ties: dict[tuple[str, str], int] = {}
    pairs = [
        (position, ties.setdefault((kind, name), len(rows) + len(ties)))
        for position, row in enumerate(rows)
        for kind, name in row.ties
    ]
    size = len(rows) + len(ties)
    left, right = zip(*pairs, strict=True) if pairs else ((), ())
    graph = coo_matrix(([1] * len(pairs), (left, right)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return [int(number) for number in component[: len(rows)]]


def joined_groups(rows: Sequence[Row], column: str | None) -> list[str]:
    """A note for the person if groups of the `column` share images or texts: then fewer groups count than it has."""
    names: dict[int, set[str]] = {}
    for row, number in zip(rows, leakage_groups(rows), strict=True):
        if row.group is not None:
            names.setdefault(number, set()).add(row.group)
    joined = [found for found in names.values() if len(found) > 1]
    if not joined:
        return []
    what = "an image" if any(row.images for row in rows) else "a text"
    groups = f"{sum(map(len, joined))} groups (column {column})"
    return [f"{groups} share {what} with another one: they stay together, and count as {len(joined)}"]


def _strata(rows: Sequence[Row]) -> list[str]:
    names = [f"{row.label} {row.stage}" for row in rows]
    counts = Counter(names)
    return [name if counts[name] >= _RARE else "rare" for name in names]


def _stratified(rows: Sequence[Row], share: float, seed: int) -> set[int]:
    from sklearn.model_selection import train_test_split

    size = min(len(rows) - 1, max(1, round(share * len(rows))))
    if len(rows) < 2:
        return set()
    strata = _strata(rows)
    smallest = min(Counter(strata).values())
    feasible = smallest >= 2 and len(set(strata)) <= min(size, len(rows) - size)
    _, drawn = train_test_split(
        range(len(rows)), test_size=size, random_state=seed, stratify=strata if feasible else None
    )
    return set(drawn)


def _stratified_groups(rows: Sequence[Row], groups: list[int], share: float, seed: int, fewest: int) -> set[int]:
    """Decides for each group, the largest first, which side keeps both sides nearer to their shares.

    One pass over the labels of each group is enough: scikit-learn's StratifiedGroupKFold, which evaluates twenty folds
    for every group, takes half a minute for as many groups as a large data set has rows.
    """
    strata = _strata(rows)
    totals = Counter(strata)
    labels: dict[int, Counter[str]] = {}
    for group, stratum in zip(groups, strata, strict=True):
        labels.setdefault(group, Counter())[stratum] += 1
    if len(labels) < 2:
        raise TooFewGroups
    order = sorted(labels)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -labels[group].total())
    drawn, rest = Counter[str](), Counter[str]()
    chosen = set()
    for group in order:
        added = labels[group]
        is_drawn = _cost(added, drawn, totals) * (1 - share) < _cost(added, rest, totals) * share
        (drawn if is_drawn else rest).update(added)
        if is_drawn:
            chosen.add(group)
    for smallest in order[: -fewest - 1 : -1]:
        if len(chosen) < fewest:
            chosen.add(smallest)
    if len(chosen) == len(order):
        chosen.remove(order[-1])
    return {position for position, group in enumerate(groups) if group in chosen}


def _cost(added: Counter[str], side: Counter[str], totals: Counter[str]) -> float:
    """How much the sum over labels of (rows on this side / rows of the label)² grows. Divided by the side's share, the
    sum over both sides is smallest where both have their share of every label (Pearson's χ², with equal weight for
    every label).
    """
    return sum(count * (2 * side[label] + count) / totals[label] ** 2 for label, count in added.items())


def subset(rows: Sequence[Row], fraction: float) -> list[Row]:
    """The same `fraction` of the rows for every trial, stratified by label, in the rows' own order.

    Every stage of a curriculum keeps at least one row.
    """
    if fraction >= 1:
        return list(rows)
    drawn = _stratified(rows, fraction, seed=0)
    stages = {rows[position].stage for position in drawn}
    for position, row in enumerate(rows):
        if row.stage not in stages:
            stages.add(row.stage)
            drawn.add(position)
    return [row for position, row in enumerate(rows) if position in drawn]
