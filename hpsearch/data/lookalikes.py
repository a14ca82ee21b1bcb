"""Near-duplicate images, such as one picture saved again or resized: found by a perceptual hash and by their colours.

The hash is the pHash of C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), bit for
bit as in `imagehash.phash` 4.3, except that large images are made small first: which of the 64 lowest frequencies of
the grey picture, at 32 × 32 pixels, are above their median. It ignores colours and can't tell one blood cell from
another, so the mean colours of 4 × 4 fields must be near as well.

By `python -m bench.lookalikes FOLDER`: stored anew as JPEG of quality 50 and 75, as WebP of quality 60, at half and
twice its size, as a square, and at half its size with quality 60, a picture is found 100 % of the times among blood
smears (128 × 96 pixels), 95 % among parts of photographs (106 × 106), 93 % among blood cells (up to 64 × 64) and 40 %
among digits (8 × 8, of which half the size leaves nothing). Of 1,026,028 pairs of different cells 14 are near by their
hashes, and 1 when their colours are asked as well; of 1,613,706 pairs of digits 1,514 and none; of 66,066 pairs of
smears one, of the same place under another focus. A picture with its edge cut off, or brighter, is another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BITS = 8
"""Hashes of the same picture in two files differ in at most this many bits: 8 of 64."""
MOST_LEVELS = 8
"""The mean colours of their fields differ by at most this much: 8 of 256."""

_SIDE, _LOWEST, _FIELDS = 32, 8, 4
_HASH_BYTES = _LOWEST**2 // 8
_FLAT = 2.0
"""Standard deviation of the grey levels below which a picture is only noise: empty pages are not compared."""
_BAND_BITS, _BAND_DIFFERENCE = 16, MOST_BITS * 16 // 64
"""If 64 bits differ in at most 8, one of their four bands of 16 bits differs in at most 2."""
_AT_ONCE = 2**18
"""Pairs that are compared at once: 75 MiB at most."""


def look_of(image: Image) -> bytes:
    """Hash and colours of a picture in RGB, 56 bytes; empty for one with almost no contrast."""
    import numpy as np
    from PIL import Image as Pillow

    times = min(image.size) // (4 * _SIDE)
    small = image.reduce(times) if times > 1 else image
    grey = np.asarray(small.convert("L").resize((_SIDE, _SIDE), Pillow.Resampling.LANCZOS), dtype=np.float64)
    if grey.std() < _FLAT:
        return b""
    waves = np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(_LOWEST), 2 * np.arange(_SIDE) + 1))  # DCT-II
    lowest = waves @ grey @ waves.T
    bits = np.packbits(lowest > np.median(lowest)).tobytes()
    return bits + small.resize((_FIELDS, _FIELDS), Pillow.Resampling.BOX).tobytes()


def lookalike_groups(looks: Sequence[bytes]) -> list[list[int]]:
    """The indices of pictures that look alike, directly or through others: at least two in each group."""
    import numpy as np

    seen = [place for place, look in enumerate(looks) if look]
    if not seen:
        return []
    whole = np.frombuffer(b"".join(looks), dtype=np.uint8).reshape(len(seen), -1)
    hashes = np.ascontiguousarray(whole[:, :_HASH_BYTES]).view(np.uint64).ravel()
    colours = whole[:, _HASH_BYTES:].astype(np.int16)
    numbers = np.arange(len(seen))
    for left, right in _candidates(hashes):
        apart = numbers[left] != numbers[right]
        left, right = left[apart], right[apart]
        near = np.bitwise_count(hashes[left] ^ hashes[right]) <= MOST_BITS
        left, right = left[near], right[near]
        near = (np.abs(colours[left] - colours[right]) <= MOST_LEVELS).all(axis=1)
        if near.any():
            numbers = _joined(numbers, left[near], right[near])
    groups: dict[int, list[int]] = {}
    for place, number in zip(seen, numbers.tolist(), strict=True):
        groups.setdefault(number, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _joined(numbers: Any, left: Any, right: Any) -> Any:
    """The group numbers after merging the groups of `left[i]` and `right[i]`."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = (np.ones(len(left), dtype=np.int8), (numbers[left], numbers[right]))
    _, joined = connected_components(coo_matrix(edges, shape=(len(numbers), len(numbers))), directed=False)
    return joined[numbers]


def _candidates(hashes: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of indices (left, right) of hashes that may be near; all near pairs are among them.

    Multi-index hashing (M. Norouzi et al., "Fast Search in Hamming Space", 2012): in each band, a hash is looked up
    under every number that is near enough to its own.
    """
    import numpy as np

    masks = [mask for mask in range(2**_BAND_BITS) if mask.bit_count() <= _BAND_DIFFERENCE]
    for shift in range(0, 64, _BAND_BITS):
        band = ((hashes >> np.uint64(shift)) & np.uint64(2**_BAND_BITS - 1)).astype(np.int64)
        order = np.argsort(band, kind="stable")
        starts = np.searchsorted(band[order], np.arange(2**_BAND_BITS + 1))
        for mask in masks:
            first, end = starts[band ^ mask], starts[(band ^ mask) + 1]
            for left, places in _expanded(first, end - first):
                right = order[places]
                yield left[left < right], right[left < right]


def _expanded(first: Any, counts: Any) -> Iterator[tuple[Any, Any]]:
    """(i, index) for each of the `counts[i]` indices from `first[i]` on, about `_AT_ONCE` at a time."""
    import numpy as np

    ends = np.cumsum(counts)
    begin = taken = 0
    while begin < len(counts):
        stop = max(begin + 1, int(np.searchsorted(ends, taken + _AT_ONCE, side="right")))
        here = counts[begin:stop]
        offsets = np.arange(here.sum()) - np.repeat(ends[begin:stop] - here - taken, here)
        yield np.repeat(np.arange(begin, stop), here), np.repeat(first[begin:stop], here) + offsets
        begin, taken = stop, int(ends[stop - 1])
