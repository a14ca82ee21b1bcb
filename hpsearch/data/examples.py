"""Few-shot examples: training rows that are shown before a question with their answers.

They are chosen by the row and the train split alone, so that every trial, the final run, evaluations and predictions
show the same. Training rows are placed on a ring by their checksums (consistent hashing). The question of a row gives
its points on the ring, and the next training rows from there are its examples. So removing a training row changes
only the rows that it was shown to.
"""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hpsearch.data.rows import Row
from hpsearch.data.split import SplitName, Splits, leakage_groups
from hpsearch.errors import FieldError
from hpsearch.spec.data import DataSpec

_KEY = "data.examples"


class Examples:
    """Few-shot examples from `train`; never a row that shares a group, an image, all words or the question with the
    row.
    """

    def __init__(self, train: Sequence[Row], count: int) -> None:
        self._count = count
        self._ring = sorted(train, key=lambda row: row.sha256)
        self._places = [row.sha256 for row in self._ring]
        self._groups = dict(zip((row.sha256 for row in train), leakage_groups(train), strict=True))

    def of(self, row: Row) -> list[Row]:
        """Raises FieldError where the train split has too few."""
        found: dict[str, Row] = {}
        for number in range(self._count):
            start = bisect(self._places, hashlib.sha256(f"{number} {row.asked_sha256}".encode()).hexdigest())
            ring = (self._ring[(start + step) % len(self._ring)] for step in range(len(self._ring)))
            drawn = next((other for other in ring if other.sha256 not in found and self._may_show(other, row)), None)
            if drawn is None:
                message = f"row {row.id!r} can be shown {len(found)} training rows only: the others are tied to it"
                raise FieldError(_KEY, message)
            found[drawn.sha256] = drawn
        return list(found.values())

    def before(self, row: Row) -> Row:
        """The row with its examples."""
        return replace(row, examples=[turn for other in self.of(row) for turn in _shown(other)])

    def _may_show(self, other: Row, row: Row) -> bool:
        is_tied = self._groups[other.sha256] == self._groups.get(row.sha256)
        return not is_tied and other.messages[:-1] != row.messages[:-1]


def _shown(row: Row) -> list[dict[str, str]]:
    return [turn for turn in row.messages if turn["role"] != "system"]


def with_examples(splits: Splits, count: int) -> Splits:
    """Rows of every split, each with `count` training rows before it."""
    if not count:
        return splits
    examples = Examples(splits["train"], count)
    return {name: [examples.before(row) for row in rows] for name, rows in splits.items()}


@dataclass(frozen=True)
class Length:
    """Tokens of a row alone, and the tokens that it adds as an example."""

    alone: int
    shown: int


def fitting(splits: Splits, data: DataSpec, lengths: Mapping[str, Length]) -> tuple[Splits, dict[str, str]]:
    """(the splits with examples, id → why a row was left out: with its examples it is too long).

    Redraws where a dropped row was an example. `lengths`: id → tokens.

    Raises:
        FieldError: a split would be empty, or a row has too few possible examples.
    """
    left_out: dict[str, str] = {}
    while True:
        examples = Examples(splits["train"], data.examples)
        too_long = {
            row.id
            for rows in splits.values()
            for row in rows
            if lengths[row.id].alone + sum(lengths[other.id].shown for other in examples.of(row)) > data.max_tokens
        }
        if not too_long:
            return with_examples(splits, data.examples), left_out
        left_out |= dict.fromkeys(too_long, f"longer than {data.max_tokens} tokens with its examples")
        splits = {name: [row for row in rows if row.id not in too_long] for name, rows in splits.items()}
        for name in splits:
            _check_any_left(name, splits, data)


def _check_any_left(name: SplitName, splits: Splits, data: DataSpec) -> None:
    if not splits[name]:
        raise FieldError(
            _KEY,
            f"no rows of the {name} split are left: with {data.examples} examples before them they are longer than "
            f"data.max_tokens, {data.max_tokens}",
        )
