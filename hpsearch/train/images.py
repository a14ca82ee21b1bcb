"""Images of rows: as large as the study wants them, and as the model's processor takes them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from hpsearch.data.decoding import DECODED_AS, image_size, read_image
from hpsearch.spec.data import ImageSize
from hpsearch.train.tensor_cache import TensorCache

Outputs = dict[str, torch.Tensor]
"""What an image processor says of one image: `pixel_values` in whatever shape, and numbers such as a grid's."""


@dataclass
class Picture:
    """An image that goes into a model as what its vision tower made of it.

    `pixels` are what the tower is asked with, until its answer is there. `is_mapped`: the answer lies on disk, and
    takes no memory of this process's own.
    """

    name: str
    pixels: Outputs
    features: torch.Tensor | None = None
    is_mapped: bool = False


class Pictures(Protocol):
    """Gives features of images to a model in the place of their pixels: `features.Features`."""

    def find(self, row: Mapping[str, Any]) -> tuple[Picture, Outputs] | None:
        """The row's picture, and what the image processor said of it; None: the image must be read."""

    def picture(self, row: Mapping[str, Any], outputs: Outputs) -> Picture:
        """Of an image that was read."""

    def given(self, pictures: list[Picture]) -> dict[str, Any]:
        """What a model takes as `mm_encoder_outputs`; where the tower has still to be asked, it is asked here."""


def load_image(path: Path, size: ImageSize | None) -> Image.Image:
    """The image as people see it, in RGB at the study's size. Raises UnusableImage."""
    rgb = read_image(path)
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


def checksum(row: Mapping[str, Any]) -> str:
    """SHA-256 of the row's image file: as the data says, or read here."""
    if known := row.get("image_sha256"):
        return str(known)
    path = Path(row["image"])
    status = path.stat()
    return _checksum(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _checksum(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Resized:
    """Images that the study wants smaller than they are, kept at that size: a photograph of 12 megapixels takes 50
    times as long to read as the 448 pixels a side that are left of it."""

    def __init__(self, cache: TensorCache, size: ImageSize) -> None:
        self._cache = cache
        self._size = size
        self._folder = f"resized-{size}-{DECODED_AS}".replace(" ", "")

    def load(self, row: Mapping[str, Any]) -> Image.Image:
        """As `load_image` does, bit for bit."""
        place = f"{self._folder}/{checksum(row)}"
        if found := self._cache.read(place):
            return Image.fromarray(found["rgb"].numpy())
        image = load_image(Path(row["image"]), self._size)
        width, height = image_size(Path(row["image"]))
        if image.width * image.height < width * height:
            self._cache.write(place, {"rgb": torch.from_numpy(np.asarray(image).copy())})
        return image


def process(processor: Any, text: str, image: Image.Image) -> tuple[dict[str, torch.Tensor], Outputs]:
    """(what the model takes, all that the image processor said)."""
    return _process(processor, text, image, None)


def process_known(processor: Any, text: str, outputs: Outputs) -> dict[str, torch.Tensor]:
    """The same without the image: `outputs` are what the image processor said of it, as far as text depends on it."""
    return _process(processor, text, Image.new("RGB", (1, 1)), outputs)[0]


def _process(
    processor: Any, text: str, image: Image.Image, known: Outputs | None
) -> tuple[dict[str, torch.Tensor], Outputs]:
    asked = _ImageProcessor(processor.image_processor, known)
    processor = copy.copy(processor)
    processor.image_processor = asked
    found = processor(text=[text], images=[[image]], add_special_tokens=False, return_tensors="pt")
    return dict(found), asked.outputs


class _ImageProcessor:
    """Stands in a processor for the image processor, and keeps what that said: transformers' processors (5.24,
    processing_utils.py, `ProcessorMixin.__call__`) put as many image tokens into the text as it tells, and leave out
    what the model does not take."""

    def __init__(self, own: Any, known: Outputs | None) -> None:
        self._own = own
        self._known = known
        self.outputs: Outputs = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def __call__(self, images: Any, **options: Any) -> Any:
        found = self._own(images, **options) if self._known is None else self._known
        self.outputs = {name: torch.as_tensor(value) for name, value in found.items()}
        return found
