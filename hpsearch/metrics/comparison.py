"""How sure a number is, and whether two models differ on the same rows.

Percentile bootstrap over rows. Its known weakness: where all rows agree, the interval has no width, however few they
are. An interval is widened where needed to hold the number itself, which the percentiles of a biased metric may miss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.intp]
    Statistic = Callable[[Rows], NDArray[np.float64]]
    """A number over rows: takes the row numbers of many choices of rows, (choices, rows), and gives (choices,)."""

RESAMPLES = 2_000
SIGN_FLIPS = 9_999
SWAPS = 1_999
_SIGNIFICANCE = 0.05
_NUMBERS_AT_ONCE = 500_000
"""Choices of rows and sign flips are drawn in batches of about this many numbers: 4 MB."""


@dataclass(frozen=True)
class Interval:
    """95 % bootstrap interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """b's number minus a's, with its 95 % interval. Not `shown`: no difference was found, but one may exist."""

    difference: float
    low: float
    high: float
    p_value: float
    shown: bool
    method: str


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Of the mean of one number per row.

    Raises:
        ValueError: there are no values, or one is not a number.
    """
    numbers = _numbers(values)
    return resampled_interval(lambda rows: numbers[rows].mean(axis=1), len(numbers), seed)


def resampled_interval(statistic: Statistic, num_rows: int, seed: int) -> Interval:
    """Of any number over rows: the rows of each choice are from 0 to num_rows - 1, some of them repeated."""
    import numpy as np

    draws = np.random.default_rng(seed)
    resampled = _of_many(statistic, num_rows, RESAMPLES, lambda count: draws.integers(num_rows, size=(count, num_rows)))
    low, high = np.percentile(resampled, [2.5, 97.5])
    itself = float(statistic(np.arange(num_rows)[None])[0])
    return Interval(min(float(low), itself), max(float(high), itself))


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Difference:
    """Whether b's mean differs from a's, where both hold one number for each of the same rows, in the same order.

    The p-value comes from flipping the signs of the rows' differences, two-sided. Rows without a difference say nothing
    and are left out of it. With fewer than six that differ no p-value can fall below 0.05.

    Raises:
        ValueError: there are no values, not as many in a as in b, or one is not a number.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}: a paired comparison needs the same rows on both sides")
    differences = _numbers(b) - _numbers(a)
    bounds = interval(differences.tolist(), seed)
    p_value, test = _sign_flip_test(differences[differences != 0], seed)
    return Difference(
        difference=float(differences.mean()),
        low=bounds.low,
        high=bounds.high,
        p_value=p_value,
        shown=p_value < _SIGNIFICANCE,
        method=f"paired bootstrap ({RESAMPLES:,} resamples), paired permutation test ({test})",
    )


def resampled_difference(statistic: Statistic, num_rows: int, seed: int = 0) -> Difference:
    """Whether b's number over all rows differs from a's, where it is no mean of numbers per row, as BLEU or macro F1.

    The rows of each choice are from 0 to 2 * num_rows - 1: the first half are a's, the second b's, in the same order.
    The p-value comes from swapping a's and b's answer to random rows, two-sided (approximate randomization, Noreen
    1989).
    """
    import numpy as np

    def difference(rows: Rows) -> NDArray[np.float64]:
        return statistic(rows + num_rows) - statistic(rows)

    def swapped_difference(a: Rows) -> NDArray[np.float64]:
        return statistic(2 * every + num_rows - a) - statistic(a)

    every = np.arange(num_rows)
    found = float(difference(every[None])[0])
    bounds = resampled_interval(difference, num_rows, seed)
    draws = np.random.default_rng(seed)
    swapped = _of_many(
        swapped_difference,
        num_rows,
        SWAPS,
        lambda count: every + num_rows * draws.integers(2, size=(count, num_rows)),
    )
    as_far = 1 + int((np.abs(swapped) >= abs(found) - 1e-12).sum())
    p_value = as_far / (SWAPS + 1)
    return Difference(
        difference=found,
        low=bounds.low,
        high=bounds.high,
        p_value=p_value,
        shown=p_value < _SIGNIFICANCE,
        method=f"paired bootstrap ({RESAMPLES:,} resamples), paired permutation test ({SWAPS:,} random swaps)",
    )


def _of_many(statistic: Statistic, num_rows: int, num_choices: int, draw: Callable[[int], Rows]) -> NDArray[np.float64]:
    """`statistic` of `num_choices` choices of rows, (num_choices,); `draw` gives as many as it's asked for."""
    import numpy as np

    at_once = max(1, _NUMBERS_AT_ONCE // num_rows)
    counts = [min(at_once, num_choices - start) for start in range(0, num_choices, at_once)]
    return np.concatenate([statistic(draw(count)) for count in counts])


def _sign_flip_test(differences: NDArray[np.float64], seed: int) -> tuple[float, str]:
    """The p-value and how it was found. Only differences other than 0 belong here."""
    exact = "all sign flips"
    if len(differences) < 2:  # scipy refuses them; every flip is as extreme as what was seen
        return 1.0, exact
    from scipy.stats import permutation_test

    result = permutation_test(
        (differences,),
        lambda flipped, axis: flipped.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=SIGN_FLIPS,
        batch=max(1, _NUMBERS_AT_ONCE // len(differences)),
        rng=seed,
    )
    is_exact = 2 ** len(differences) <= SIGN_FLIPS
    return float(result.pvalue), exact if is_exact else f"{SIGN_FLIPS:,} random sign flips"


def _numbers(values: Sequence[float]) -> NDArray[np.float64]:
    import numpy as np

    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        raise ValueError("there are no values to compare")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(numbers))} of {len(numbers)} values are not finite numbers")
    return numbers
