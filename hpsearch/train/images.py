"""Images of rows, as large as the study wants them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from hpsearch.spec.data import ImageSize


def load_image(path: Path, size: ImageSize | None) -> Image.Image:
    """The image in RGB at the study's size."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    wanted = fitted_size(rgb.size, size)
    return rgb if wanted == rgb.size else rgb.resize(wanted, Image.Resampling.LANCZOS)


def fitted_size(found: tuple[int, int], size: ImageSize | None) -> tuple[int, int]:
    """(width, height) for the study's image size: exactly a pair, or at most one number on the longer side."""
    if size is None:
        return found
    if isinstance(size, tuple):
        return size
    scale = min(1.0, size / max(found))
    return max(1, round(found[0] * scale)), max(1, round(found[1] * scale))
