"""Texts with images, as the model's inputs: tokens, and pixels or the features of a frozen vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from hpsearch.data.decoding import image_size
from hpsearch.data.images import CheckedImage
from hpsearch.spec.data import ImageSize
from hpsearch.train.images import (
    Outputs,
    Picture,
    Pictures,
    Resized,
    fitted_size,
    load_image,
    process,
    process_each,
    spelled_out,
)
from hpsearch.train.template import Template

Arrays = dict[str, torch.Tensor]


class ImageTexts:
    """Encodes texts with images. Images become `features` if given, else pixels, read from the `resized` copies if
    given.

    `token_ids` are the special tokens for images, which no prompt without an image contains. `token_arrays` are the
    names of the arrays with one entry per token.
    """

    def __init__(
        self,
        processor: Any,
        template: Template,
        size: ImageSize | None,
        features: Pictures | None,
        resized: Resized | None,
    ) -> None:
        self._processor = processor
        self._size = size
        self._features = features
        self._resized = resized
        self._said_by_size: dict[tuple[int, int], Outputs] = {}
        self._blank = template.blank_prompt(with_image=True)
        found = process(processor, self._blank, [Image.new("RGB", (64, 64))])
        special = special_ids(processor.tokenizer)
        with_image, without = (
            set(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in (self._blank, template.blank_prompt(with_image=False))
        )
        self.token_ids = frozenset(((set(found["input_ids"][0].tolist()) | with_image) - without) & special)
        self.token_arrays = tuple(_per_token(found)[0])

    def known(self, images: Sequence[CheckedImage]) -> list[tuple[Picture, Outputs]] | None:
        """Each image's picture, and the image processor's outputs; None where one of them must be read."""
        found = [self._features.find(image) for image in images] if self._features else []
        known = [one for one in found if one is not None]
        return known if len(known) == len(images) else None

    def encode(self, text: str, images: Sequence[CheckedImage]) -> tuple[Arrays, Arrays, list[Picture]]:
        """(arrays with one entry per token, (tokens,); other inputs of the model, one image after the other; pictures).

        Images are processed one at a time where features are used, which do not depend on other images.
        """
        if self._features is None:
            return *_per_token(process(self._processor, text, list(map(self._load, images)))), []
        known = [self._features.find(image) for image in images]
        given = [one[1] if one else self._load(image) for one, image in zip(known, images, strict=True)]
        found, said = process_each(self._processor, text, given)
        pictures = [
            one[0] if one else self._features.picture(image, outputs)
            for one, image, outputs in zip(known, images, said, strict=True)
        ]
        return *_per_token(_without_pixels(found)), pictures

    def num_tokens(self, text: str, images: Sequence[CheckedImage]) -> int:
        """Of the whole text; no image is decoded."""
        said = list(map(self._said_of, images))
        if type(self._processor).replace_image_token is ProcessorMixin.replace_image_token:  # as with Idefics 2
            return process_each(self._processor, text, said)[0]["input_ids"].shape[1]
        whole = spelled_out(self._processor, text, said)
        return len(self._processor.tokenizer(whole, add_special_tokens=False)["input_ids"])

    def _said_of(self, image: CheckedImage) -> Outputs:
        """The image processor's outputs for an image of this size, without its pixels."""
        size = fitted_size(image_size(image.path), self._size)
        if size not in self._said_by_size:
            (said,) = process_each(self._processor, self._blank, [Image.new("RGB", size)])[1]
            self._said_by_size[size] = _without_pixels(said)
        return self._said_by_size[size]

    def _load(self, image: CheckedImage) -> Image.Image:
        return self._resized.load(image) if self._resized else load_image(image.path, self._size)


def special_ids(tokenizer: Any) -> set[int]:
    return set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)


def _without_pixels(found: Arrays) -> Arrays:
    return {name: value for name, value in found.items() if not name.startswith("pixel_values")}


def _per_token(found: Arrays) -> tuple[Arrays, Arrays]:
    """Arrays with one entry per token of the one row, and the others."""
    shape = found["input_ids"].shape
    tokens = {name: value[0] for name, value in found.items() if value.shape == shape}
    return tokens, {name: value for name, value in found.items() if value.shape != shape}
