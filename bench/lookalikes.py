"""How often the same picture is found in another file, and another one taken for it.

    python -m bench.lookalikes [FOLDER…]

Every one of scikit-learn's digits, of parts of its two photographs, and of the images in each folder is saved again in
seven ways, and every pair of different images is compared. "By hash" is the hash alone, without the colours. Some pairs
in a folder may really show the same: look at them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from hpsearch.data.decoding import read_image
from hpsearch.data.lookalikes import MOST_BITS, MOST_LEVELS, look_of

_MOST_COPIED = 400


def main() -> None:
    print(f"within {MOST_BITS} of 64 bits, and {MOST_LEVELS} of 256 levels in each of 16 fields")
    for name, images in _sets():
        looks = [look_of(image) for image in images]
        copied = list(zip(looks, images, strict=True))[:_MOST_COPIED]
        found = [_near(look, look_of(copy)) for look, image in copied if look for copy in _copies(image)]
        by_hash = together = 0
        for place, look in enumerate(looks):
            near = [_near(look, other) for other in looks[place + 1 :] if look and other]
            by_hash += sum(hash_is_near for hash_is_near, _ in near)
            together += sum(map(all, near))
        pairs = len(looks) * (len(looks) - 1) // 2
        shares = (
            f"{np.mean([of_hash for of_hash, _ in found]):.1%} by hash, {np.mean(list(map(all, found))):.1%} in all"
        )
        print(f"{name}: {len(images)} images, {looks.count(b'')} without contrast", flush=True)
        print(f"  copies found: {shares}; of {pairs:,} pairs near: {by_hash} by hash, {together} in all", flush=True)


def _near(one: bytes, other: bytes) -> tuple[bool, bool]:
    if not one or not other:
        return False, False
    bits = (int.from_bytes(one[:8]) ^ int.from_bytes(other[:8])).bit_count()
    if bits > MOST_BITS:
        return False, False
    return True, max(abs(a - b) for a, b in zip(one[8:], other[8:], strict=True)) <= MOST_LEVELS


def _copies(image: Image.Image) -> Iterator[Image.Image]:
    half = (max(1, image.width // 2), max(1, image.height // 2))
    yield _stored(image, "JPEG", 50)
    yield _stored(image, "JPEG", 75)
    yield _stored(image, "WEBP", 60)
    yield image.resize(half, Image.Resampling.BICUBIC)
    yield image.resize((2 * image.width, 2 * image.height), Image.Resampling.BICUBIC)
    yield _stored(image.resize(half, Image.Resampling.BILINEAR), "JPEG", 60)
    yield image.resize((image.width, image.width), Image.Resampling.BICUBIC)


def _stored(image: Image.Image, kind: str, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, kind, quality=quality)
    return read_image(content.getvalue())


def _sets() -> Iterator[tuple[str, list[Image.Image]]]:
    levels = (np.uint8(np.round(pixels * (255 / 16))) for pixels in load_digits().images)
    yield "digits", [Image.fromarray(pixels).convert("RGB") for pixels in levels]
    photographs = map(Image.fromarray, load_sample_images().images)
    places = [(x, y) for y in range(0, 321, 53) for x in range(0, 534, 53)]
    yield "parts of photographs", [of.crop((x, y, x + 106, y + 106)) for of in photographs for x, y in places]
    for folder in sys.argv[1:]:
        files = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        yield folder, [read_image(file) for file in files]


if __name__ == "__main__":
    main()
