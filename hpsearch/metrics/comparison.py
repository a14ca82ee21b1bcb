"""How sure a number is, and whether two models differ on the same rows: groups of rows are drawn and swapped, whole.

Percentile bootstrap over groups (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application,
1997, 3.8), its percentiles moved outwards as Student's t asks for few groups (Hesterberg, What Teachers Should Know
About the Bootstrap, The American Statistician 69, 2015, 5.3). Where all groups agree, every draw gives the same
number, and there is no interval. It is widened where needed to hold the number itself, which the percentiles of a
biased metric may miss.
`python -m bench.coverage` measures how often it holds the truth.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpsearch.metrics.groups import Groups, grouped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

RESAMPLES = 2_000
SWAPS = 9_999
SIGNIFICANCE = 0.05
_NUMBERS_AT_ONCE = 100_000
"""Resamples are drawn in batches of about this many numbers: 0.8 MB, which stay in the cache."""
_ROUNDING = 1e-9
"""Smaller differences, as a share of the numbers' size, are rounding errors of the order of summation."""


@dataclass(frozen=True)
class Interval:
    """95 % bootstrap interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """b's number minus a's. `around`: its 95 % interval, None as of `interval`. `p_value` is for a single test.

    `test`: equal where two metrics are one test: both models' numbers are the same on each row by itself, and over all
    rows, their draws and their swaps.
    """

    difference: float
    around: Interval | None
    p_value: float
    method: str
    test: str = ""

    @property
    def shown(self) -> bool:
        """False: no difference was found, but one may exist."""
        return self.p_value < SIGNIFICANCE


@dataclass(frozen=True)
class Summed:
    """A number that is a function of sums over rows, for any choice of rows.

    `rows`: (n, K) the summands of each row, an array or a sparse one. `of`: sums (choices, K) → numbers (choices,).
    """

    rows: Any
    of: Callable[[Numbers], Numbers]


def mean_of(values: Sequence[float]) -> Summed:
    """Raises ValueError: there are no values, or one is not a number."""
    import numpy as np

    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        raise ValueError("there are no values to compare")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(numbers))} of {len(numbers)} values are not finite numbers")
    return Summed(np.column_stack([numbers, np.ones_like(numbers)]), lambda sums: sums[:, 0] / sums[:, 1])


def interval(summed: Summed, groups: Sequence[Hashable] | None = None, seed: int = 0) -> Interval | None:
    """None with too few groups, and where all draws give the same number. `groups`: one per row; without them every
    row is its own.

    Raises:
        ValueError: not as many groups as rows.
    """
    found = _checked(summed, groups)
    table = _by_group(summed.rows, found)
    return _interval(table, summed.of, found, _ROUNDING * _size(table, summed.of), seed)


def difference(a: Summed, b: Summed, groups: Sequence[Hashable] | None = None, seed: int = 0) -> Difference:
    """Whether b's number differs from a's, both of the same rows in the same order.

    The p-value comes from swapping a's and b's answers to all rows of random groups, two-sided (approximate
    randomization; Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989): for means that is flipping the
    signs of the groups' differences. Groups whose swap changes nothing carry no information and are left out. With
    fewer than six others no p-value can fall below 0.05.

    Raises:
        ValueError: not as many rows in a as in b, or as groups.
    """
    import numpy as np
    from scipy import sparse

    if a.rows.shape[0] != b.rows.shape[0]:
        sizes = f"{a.rows.shape[0]} values against {b.rows.shape[0]}"
        raise ValueError(f"{sizes}: a paired comparison needs the same rows on both sides")
    found = _checked(a, groups)
    of_a, of_b = _by_group(a.rows, found), _by_group(b.rows, found)
    both = sparse.hstack([of_a, of_b], format="csr") if sparse.issparse(of_a) else np.hstack([of_a, of_b])
    width = of_a.shape[1]

    def gap(sums: Numbers) -> Numbers:
        gaps: Numbers = b.of(sums[:, width:]) - a.of(sums[:, :width])
        return gaps

    rounding = _ROUNDING * max(_size(of_a, a.of), _size(of_b, b.of))
    p_value, swaps = _swap_test(of_a, of_b, gap, rounding, seed)
    gap_found, around = float(gap(_total(both))[0]), _interval(both, gap, found, rounding, seed)
    ends = (around.low, around.high) if around else ()
    return Difference(
        difference=gap_found,
        around=around,
        p_value=p_value,
        method=f"paired bootstrap ({RESAMPLES:,} resamples of {found.num:,}), paired permutation test ({swaps})",
        test=_digest(*_of_rows(a), *_of_rows(b), [gap_found, p_value, *ends]),
    )


def _of_rows(summed: Summed) -> list[Any]:
    """The number of each row by itself; of sparse ones, which may be as many as their columns, the summands and the
    number of all.
    """
    from scipy import sparse

    if sparse.issparse(summed.rows):
        return [summed.rows.indices, summed.rows.data, summed.of(_total(summed.rows))]
    return [summed.of(summed.rows)]


def _digest(*numbers: Any) -> str:
    import numpy as np

    digest = hashlib.sha256()
    for each in numbers:
        digest.update((np.round(np.asarray(each, dtype=np.float64), 9) + 0.0).tobytes())  # -0.0 is 0.0
    return digest.hexdigest()


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple tests: those below 0.05 contain a false one in at most 5 % of cases, for any
    dependence.

    Of m in ascending order, the i-th becomes the largest of (m - j + 1) p_j over j ≤ i, and at most 1 (Holm, A Simple
    Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979; as adjusted p-values:
    Wright, Biometrics 48, 1992).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def _checked(summed: Summed, groups: Sequence[Hashable] | None) -> Groups:
    num_rows = summed.rows.shape[0]
    if groups is not None and len(groups) != num_rows:
        raise ValueError(f"{len(groups)} groups for {num_rows} rows: each row is in one")
    return grouped(range(num_rows) if groups is None else groups)


def _by_group(rows: Any, groups: Groups) -> Any:
    """Sums within the groups: (n, K) → (G, K), sparse where the rows are."""
    import numpy as np
    from scipy.sparse import csr_array

    every = np.arange(len(groups.codes))
    holds = csr_array((np.ones(len(every)), (groups.codes, every)), shape=(groups.num, len(every)))
    return holds @ rows


def _total(table: Any) -> Numbers:
    import numpy as np

    total: Numbers = np.ones((1, table.shape[0])) @ table
    return total


def _size(table: Any, of: Callable[[Numbers], Numbers]) -> float:
    """How large the numbers are: the one of all groups, or the mean of each group's own, without signs. Of a sparse
    table only the first: its groups may be as many as its columns.
    """
    import numpy as np
    from scipy import sparse

    size = abs(float(of(_total(table))[0]))
    if sparse.issparse(table):
        return size
    each = abs(of(table))
    each = each[np.isfinite(each)]
    return max(size, float(each.mean())) if len(each) else size


def _interval(
    table: Any, of: Callable[[Numbers], Numbers], groups: Groups, rounding: float, seed: int
) -> Interval | None:
    import numpy as np

    if not groups.are_enough:
        return None
    resampled = np.concatenate([of(chosen @ table) for chosen in _resamples(groups.num, table.shape[1], seed)])
    tail = _tail(groups.effective)
    itself = float(of(_total(table))[0])
    if abs(resampled - itself).max() <= rounding:
        return None
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(min(float(low), itself), max(float(high), itself))


def _tail(num_groups: float) -> float:
    """The share beyond each end: Φ(-√(n/(n-1)) t) with t of n - 1 degrees, near 0.025 for many (Hesterberg 2015)."""
    from scipy.special import ndtr, stdtrit

    t = stdtrit(num_groups - 1, 1 - SIGNIFICANCE / 2)
    return float(ndtr(-((num_groups / (num_groups - 1)) ** 0.5) * t))


def _batches(num_choices: int, num_groups: int, width: int) -> list[int]:
    at_once = max(1, _NUMBERS_AT_ONCE // max(num_groups, width))
    return [min(at_once, num_choices - start) for start in range(0, num_choices, at_once)]


def _resamples(num_groups: int, width: int, seed: int) -> Iterator[Numbers]:
    """How often each group is drawn: (choices, G) at a time."""
    import numpy as np

    draws = np.random.default_rng(seed)
    for count in _batches(RESAMPLES, num_groups, width):
        drawn = draws.integers(num_groups, size=(count, num_groups)) + num_groups * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * num_groups)
        yield times.reshape(count, num_groups).astype(np.float64)


def _swap_test(
    of_a: Any, of_b: Any, gap: Callable[[Numbers], Numbers], rounding: float, seed: int
) -> tuple[float, str]:
    """The p-value and how it was found. `gap` takes the sums of a and b side by side."""
    import numpy as np

    change = of_b - of_a
    change = change[np.flatnonzero(abs(change).sum(axis=1))]
    a, b = _total(of_a), _total(of_b)
    as_found = abs(gap(np.hstack([a, b]))[0]) - rounding

    def num_as_far(swapped: Numbers) -> int:
        moved = swapped @ change
        return int((abs(gap(np.hstack([a + moved, b - moved]))) >= as_found).sum())

    num_changed, width = change.shape
    if num_changed <= math.log2(SWAPS):
        every = np.arange(2**num_changed)[:, None] >> np.arange(num_changed) & 1
        return num_as_far(every.astype(np.float64)) / len(every), "all swaps"
    draws = np.random.default_rng(seed)
    batches = _batches(SWAPS, num_changed, width)
    as_far = sum(num_as_far(draws.integers(2, size=(count, num_changed)).astype(np.float64)) for count in batches)
    return (1 + as_far) / (SWAPS + 1), f"{SWAPS:,} random swaps"
