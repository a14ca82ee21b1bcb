"""Encoded rows, kept from trial to trial: the same rows recur in every epoch and in every trial of a base.

They are numpy arrays of 32 bits, not tensors: that takes half of the memory, and the ledger, which counts tensors, can
still check that a trial leaves none behind.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

LIMIT_BYTES = 64 * 2**20
Arrays = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Kept:
    """A row's arrays by their names in `Encoded`; images are cached elsewhere."""

    tokens: dict[str, NDArray[np.int32]]
    labels: NDArray[np.int32]
    num_prompt: int
    others: tuple[str, ...]
    """Names of other model inputs, from the image processor's outputs for the row's image."""

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in (*self.tokens.values(), self.labels))

    def arrays(self) -> tuple[Arrays, torch.Tensor]:
        """(tokens, labels), as new tensors."""
        tokens = {name: torch.from_numpy(array).long() for name, array in self.tokens.items()}
        return tokens, torch.from_numpy(self.labels).long()


@dataclass
class KeptRows:
    """Rows of one base, by everything that their arrays depend on; when the limit is reached, no more are added."""

    limit_bytes: int = LIMIT_BYTES
    _rows: dict[Hashable, Kept] = field(default_factory=dict)
    _num_bytes: int = 0

    def find(self, key: Hashable) -> Kept | None:
        return self._rows.get(key)

    def keep(
        self, key: Hashable, tokens: Arrays, labels: torch.Tensor, num_prompt: int, others: tuple[str, ...]
    ) -> None:
        arrays = {name: value.numpy().astype(np.int32) for name, value in tokens.items()}
        kept = Kept(arrays, labels.numpy().astype(np.int32), num_prompt, others)
        if key not in self._rows and self._num_bytes + kept.num_bytes <= self.limit_bytes:
            self._rows[key] = kept
            self._num_bytes += kept.num_bytes
