"""Groups of rows: questions to one image, visits of one patient.  Rows of one group are not independent of each other.

With m rows per group and an intraclass correlation of r, a mean varies 1 + (m - 1) r times as much as one of as many
independent rows (the design effect; Kish, Survey Sampling, 1965, 5.4): 3.4 times at nine rows and 0.3.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST = 10
"""With fewer groups than this no interval is given: they don't show how much groups vary."""


@dataclass(frozen=True)
class Groups:
    """`codes`: (n,) the group of each row, from 0 to num - 1; none is empty."""

    codes: NDArray[np.intp]

    @cached_property
    def num(self) -> int:
        return int(self.codes.max()) + 1

    @cached_property
    def effective(self) -> float:
        """The number of equal-sized groups with the same information: (sum of n)² / sum of n² over the groups' sizes
        (Kish, 1965, 11.7).
        """
        import numpy as np

        sizes = np.bincount(self.codes).astype(float)
        return float(sizes.sum() ** 2 / (sizes**2).sum())

    @property
    def are_enough(self) -> bool:
        return are_enough(self.effective)


def are_enough(num_groups: float) -> bool:
    """For an interval."""
    return num_groups > FEWEST - 1e-9


def grouped(names: Sequence[Hashable]) -> Groups:
    """Rows with equal names are a group. Raises ValueError where there are no rows."""
    import numpy as np

    if not names:
        raise ValueError("there are no values to compare")
    codes: dict[Hashable, int] = {}
    return Groups(np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.intp))


def joined(*namings: Sequence[Hashable]) -> list[int]:
    """A number for each row: rows that share a name in any naming, directly or through others, have the same."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num_rows = len(namings[0])
    names: dict[tuple[int, Hashable], int] = {}
    named = [
        names.setdefault((at, name), num_rows + len(names)) for at, naming in enumerate(namings) for name in naming
    ]
    size = num_rows + len(names)
    rows = [*range(num_rows)] * len(namings)
    _, component = connected_components(coo_array(([1] * len(rows), (rows, named)), shape=(size, size)), directed=False)
    return [int(number) for number in component[:num_rows]]
