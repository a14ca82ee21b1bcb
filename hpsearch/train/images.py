"""Images of rows: resized as the study says, and processed as the model's processor does it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from hpsearch.data.decoding import DECODED_AS, image_size, read_image
from hpsearch.data.images import CheckedImage
from hpsearch.spec.data import ImageSize
from hpsearch.train.tensor_cache import TensorCache

Outputs = dict[str, torch.Tensor]
"""The image processor's outputs for one image: `pixel_values` of any shape, and numbers such as a grid's."""


@dataclass
class Picture:
    """An image as the output of the model's vision tower.

    `pixels` are the tower's input until its output is there. `is_mapped`: the output is on disk, and takes no memory of
    this process.
    """

    name: str
    pixels: Outputs
    features: torch.Tensor | None = None
    is_mapped: bool = False


class Pictures(Protocol):
    """Gives a model image features instead of pixels: see `features.Features`."""

    def find(self, image: CheckedImage) -> tuple[Picture, Outputs] | None:
        """The image's picture, and the image processor's outputs; None: the image must be read."""

    def picture(self, image: CheckedImage, outputs: Outputs) -> Picture:
        """For an image that was read."""

    def given(self, pictures: list[Picture]) -> dict[str, Any]:
        """The model's `mm_encoder_outputs`; runs the tower where needed."""


def load_image(path: Path, size: ImageSize | None) -> Image.Image:
    """The image upright, in RGB, at the study's size. Raises UnusableImage."""
    rgb = read_image(path)
    wanted = fitted_size(rgb.size, size)
    return rgb if wanted == rgb.size else rgb.resize(wanted, Image.Resampling.LANCZOS)


def fitted_size(found: tuple[int, int], size: ImageSize | None) -> tuple[int, int]:
    """(width, height) for the study's image size: exactly a pair, or a limit for the longer side."""
    if size is None:
        return found
    if isinstance(size, tuple):
        return size
    scale = min(1.0, size / max(found))
    return max(1, round(found[0] * scale)), max(1, round(found[1] * scale))


class Resized:
    """Cached copies of images that the study scales down: reading a photograph of 12 megapixels takes 50 times as long
    as reading 448 × 448 pixels.
    """

    def __init__(self, cache: TensorCache, size: ImageSize) -> None:
        self._cache = cache
        self._size = size
        self._folder = f"resized-{size}-{DECODED_AS}".replace(" ", "")

    def load(self, image: CheckedImage) -> Image.Image:
        """The same as `load_image`, bit for bit."""
        place = f"{self._folder}/{image.sha256}"
        if found := self._cache.read(place):
            return Image.fromarray(found["rgb"].numpy())
        small = load_image(image.path, self._size)
        width, height = image_size(image.path)
        if small.width * small.height < width * height:
            self._cache.write(place, {"rgb": torch.from_numpy(np.asarray(small).copy())})
        return small


def process(processor: Any, text: str, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """The model's inputs for a text with images: (1, tokens), and pixels of any shape."""
    return dict(processor(text=[text], images=[list(images)], add_special_tokens=False, return_tensors="pt"))


def process_each(
    processor: Any, text: str, given: Sequence[Image.Image | Outputs]
) -> tuple[dict[str, torch.Tensor], list[Outputs]]:
    """(the same, the image processor's outputs for each image): images are processed one at a time.

    `given`: an image, or the image processor's outputs for it, as far as the text depends on them.
    """
    asked = _ImageProcessor(processor.image_processor, given)
    processor = copy.copy(processor)
    processor.image_processor = asked
    return process(processor, text, [Image.new("RGB", (1, 1))] * len(given)), asked.outputs


def spelled_out(processor: Any, text: str, said: Sequence[Outputs]) -> str:
    """A text with images as the tokenizer gets it, without the rest of a processor's work, which takes three times as
    long. `said`: the image processor's outputs for each image.

    As in transformers (5.24, processing_utils.py, `_process_images` and `get_text_with_replacements`).
    """
    first, *others = text.split(processor.image_token)
    written = [processor.replace_image_token(outputs, image_idx=0) for outputs in said]
    return first + "".join(f"{image}{other}" for image, other in zip(written, others, strict=True))


class _ImageProcessor:
    """Replaces a processor's image processor, and records its outputs: transformers' processors (5.24,
    processing_utils.py, `ProcessorMixin.__call__`) insert image tokens by them, and drop those that the model does not
    take.
    """

    def __init__(self, own: Any, given: Sequence[Image.Image | Outputs]) -> None:
        self._own = own
        self._given = given
        self.outputs: list[Outputs] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def __call__(self, images: Any, **options: Any) -> Outputs:
        del images
        self.outputs = [self._said(one, options) for one in self._given]
        return {name: torch.cat([outputs[name] for outputs in self.outputs]) for name in self.outputs[0]}

    def _said(self, one: Image.Image | Outputs, options: dict[str, Any]) -> Outputs:
        found = one if isinstance(one, dict) else self._own([[one]], **options)
        return {name: torch.as_tensor(value) for name, value in found.items()}
