"""The rows of one optimizer step: encoded in the background, and divided into micro-batches with little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TypeVar

from hpsearch.spec.training import Rows
from hpsearch.train.encoding import Encoded, Row
from hpsearch.train.failure import unless_out_of_memory
from hpsearch.trial import Fit

Encode = Callable[[Row], Encoded]
T = TypeVar("T")
R = TypeVar("R")

ROWS_WITHOUT_GRADIENTS = 32
"""Rows per forward of a validation or evaluation, if they fit: more gain little."""


@dataclass
class MicroBatch:
    """Rows per forward, for a whole run; `halvings` are the sizes that did not fit during it."""

    size: int
    halvings: list[int] = field(default_factory=list)
    fit: Fit | None = None

    @property
    def recomputes(self) -> bool:
        return self.fit is not None and self.fit.gradient_checkpointing

    def begin(self, fit: Fit) -> None:
        self.fit, self.size = fit, fit.rows

    def halve(self, size: int) -> None:
        self.halvings.append(size)
        self.size = size // 2
        if self.fit is not None:
            self.fit = self.fit.model_copy(update={"rows": self.size})


def chosen(wanted: Rows, most: int) -> int:
    """Rows per forward to begin with: `auto` is `most`, which is halved if it does not fit."""
    return most if wanted == "auto" else min(wanted, most)


@dataclass(frozen=True)
class StepRows:
    """The data loader's batch for a step: rows that are being encoded."""

    _encoding: Future[list[Encoded]]

    def encoded(self) -> list[Encoded]:
        """Waits for them. Raises the error of the encoding."""
        return self._encoding.result()


class StepCollator:
    """Encodes a step's rows in a thread: the data loader is one step ahead, so this overlaps with the device's work."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoding")

    def __call__(self, rows: list[Row]) -> StepRows:
        return StepRows(self._thread.submit(lambda: [self._encode(row) for row in rows]))

    def __enter__(self) -> StepCollator:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)


def in_parts(rows: list[T], most: MicroBatch, do: Callable[[list[T]], R]) -> Iterator[tuple[list[T], R]]:
    """(rows, the result of `do` for them), part after part.

    Out of memory: the part is repeated with half the rows, and no later one is larger. Raised if it is one row.
    """
    done = 0
    while done < len(rows):
        part = rows[done : done + most.size]
        found = unless_out_of_memory(partial(do, part), may_fail=len(part) > 1)
        if found is None:
            most.halve(len(part))
            continue
        done += len(part)
        yield part, found[0]


def micro_batches(rows: list[Encoded], size: int) -> list[list[Encoded]]:
    """As few parts as `size` allows, as equal as possible, the longest rows together and first.

    First, so that an out-of-memory error comes at once; in the order of the data if one part holds all.
    """
    num_parts = -(-len(rows) // size)
    if num_parts == 1:
        return [rows]
    by_length = sorted(rows, key=len, reverse=True)
    ends = [len(rows) * part // num_parts for part in range(num_parts + 1)]
    return [by_length[start:end] for start, end in pairwise(ends)]
