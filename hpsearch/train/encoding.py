"""Rows → tokens → batches: the chat template, what is learned and what is masked.

A conversation is rendered by the model's own chat template and cut into segments: those that the model is given, and
those that it learns (its answers and the end of its turns). Each segment is tokenized by itself, so that a prompt has
the same tokens in training as in generation. Everything except the learned segments is masked, and so are all image
tokens. A row may have any number of images, in any given segment.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import images_of
from hpsearch.errors import FieldError
from hpsearch.spec.rows import FORMATS
from hpsearch.train.image_texts import ImageTexts, special_ids
from hpsearch.train.images import Picture, Pictures, Resized
from hpsearch.train.kept_rows import KeptRows
from hpsearch.train.template import Segment, Template
from hpsearch.trial import RowsConfig

IGNORED = -100
"""The label of a token that is not learned."""

_OWN_TOKEN = "its words hold a token that stands for an image in this base; write <image> where an image stands"

Row = dict[str, Any]
Batch = dict[str, Any]
"""A model's keyword arguments: tensors, and `mm_encoder_outputs` where it takes image features.

`input_ids`, `attention_mask` and `labels` have shape (rows, tokens). Pixels are as each processor returns them: Gemma
3's (images, channels, height, width), the Qwens' (patches of all images, values per patch) with an `image_grid_thw` of
(images, 3).
"""


def with_rejected(row: Row) -> Row | None:
    """The row with its rejected answer, if it has one."""
    if row.get("rejected") is None:
        return None
    return {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": row["rejected"]}]}


@dataclass(frozen=True)
class Encoded:
    """One row as the model's input.

    `tokens` are the arrays with one entry per token, shape (tokens,), including `input_ids` and `attention_mask`;
    `others` are the rest, such as pixels, one image after the other. `pictures` replace pixels where the vision tower
    is frozen. The first `num_prompt` tokens come before the model's last turn: they contain all images.
    """

    tokens: dict[str, torch.Tensor]
    others: dict[str, torch.Tensor]
    labels: torch.Tensor
    num_prompt: int = 0
    pictures: tuple[Picture, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])

    def prompt(self) -> Encoded:
        """The conversation before the model's last turn: the input of `generate`."""
        tokens = {name: value[: self.num_prompt] for name, value in self.tokens.items()}
        return replace(self, tokens=tokens, labels=self.labels[: self.num_prompt])

    @property
    def num_bytes(self) -> int:
        """In memory, without what is mapped from disk."""
        held = [*self.tokens.values(), *self.others.values(), self.labels]
        for picture in self.pictures:
            held += picture.pixels.values()
            if picture.features is not None and not picture.is_mapped:
                held.append(picture.features)
        return sum(tensor.nbytes for tensor in held)


class Encoder:
    """Encodes rows for one model. `processor` is its tokenizer, or its processor where rows may have images.

    Images become `features` if given, else pixels, read from the `resized` copies if given. Rows without pixels are
    cached in `kept`.
    """

    def __init__(
        self,
        processor: Any,
        rows: RowsConfig,
        *,
        has_images: bool,
        features: Pictures | None = None,
        resized: Resized | None = None,
        kept: KeptRows | None = None,
    ) -> None:
        self._kept = kept
        self._features = features
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.rows = rows
        self.has_images = has_images
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._template = Template(processor, rows, has_images=has_images)
        self._texts = ImageTexts(processor, self._template, rows.image_size, features, resized) if has_images else None
        self.image_token_ids = self._texts.token_ids if self._texts else frozenset[int]()

    def encode(self, row: Row) -> Encoded:
        """The whole conversation, with labels."""
        images = images_of(row) if self.has_images else []
        if self._kept is None or (images and self._features is None):
            return self._encode(row, images)
        key = self._key(row, images)
        kept = self._kept.find(key)
        known = self._texts.known(images) if kept and self._texts else []
        if kept and known is not None:
            tokens, labels = kept.arrays()
            others = {name: torch.cat([outputs[name] for _, outputs in known]) for name in kept.others}
            return Encoded(tokens, others, labels, kept.num_prompt, tuple(picture for picture, _ in known))
        encoded = self._encode(row, images)
        self._kept.keep(key, encoded.tokens, encoded.labels, encoded.num_prompt, tuple(encoded.others))
        return encoded

    def _key(self, row: Row, images: list[CheckedImage]) -> Hashable:
        """Everything that a row's tokens depend on, besides the base."""
        shown, own = (
            tuple((message["role"], message["content"]) for message in turns)
            for turns in (row.get("examples") or [], row["messages"])
        )
        return self.rows, shown, own, tuple(image.sha256 for image in images)

    def _segments(self, row: Row, images: list[CheckedImage]) -> list[Segment]:
        return self._template.segments(row["messages"], row.get("examples"), len(images))

    def _encode(self, row: Row, images: list[CheckedImage]) -> Encoded:
        segments = self._segments(row, images)
        nothing = torch.zeros(0, dtype=torch.long)
        names = self._texts.token_arrays if self._texts else ("input_ids", "attention_mask")
        encoded = Encoded(dict.fromkeys(names, nothing), {}, nothing)
        for segment, piece in zip(segments, self._pieces(segments), strict=True):
            encoded = replace(encoded, num_prompt=len(encoded))
            if segment.num_images:
                seen, images = images[: segment.num_images], images[segment.num_images :]
                encoded = self._with_images(encoded, segment.text, seen)
            else:
                encoded = self._appended(encoded, piece, is_learned=segment.is_learned)
        return encoded

    def with_answer(self, prompt: Encoded, answer: str) -> Encoded:
        """The prompt of a row with another answer."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        return self.with_tokens(prompt, self._tokenize(self._template.segments(turns)[-1].text))

    def with_tokens(self, prompt: Encoded, answer: list[int]) -> Encoded:
        """The prompt of a row with these tokens to learn after it."""
        return self._appended(prompt, answer, is_learned=True)

    def num_tokens(self, row: Row) -> int:
        """Tokens of the whole conversation; cheap where image sizes repeat.

        Raises:
            FieldError: its text contains one of the base's own image tokens.
        """
        images = images_of(row) if self.has_images else []
        segments = self._segments(row, images)
        length = 0
        for segment, piece in zip(segments, self._pieces(segments), strict=True):
            num_own = sum(token in self.image_token_ids for token in piece)
            if num_own and num_own != segment.num_images * self._own_per_image:
                raise FieldError("data.source", f"row {row['id']!r}: {_OWN_TOKEN}")
            seen, images = images[: segment.num_images], images[segment.num_images :]
            length += self._texts.num_tokens(segment.text, seen) if self._texts and seen else len(piece)
        return length

    @cached_property
    def end_token(self) -> int | None:
        """The token that ends each taught answer: the last learned one.

        None where that is an ordinary token, which may occur within an answer: such a template marks no end.
        """
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        last = self._tokenize(self._template.segments(turns)[-1].text)[-1]
        return last if last in special_ids(self.tokenizer) else None

    @cached_property
    def _own_per_image(self) -> int:
        """How many image tokens a chat template writes per image; the processor expands them."""
        prompt = self._template.blank_prompt(with_image=True)
        return sum(token in self.image_token_ids for token in self._tokenize(prompt))

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _beginning(self) -> list[int]:
        """The tokens that the tokenizer puts before each text: a BOS for most Llamas and Gemmas, none for the Qwens.

        Used for raw prompts; chat templates write their own.
        """
        bare = self._tokenize("a")
        with_special = list(self.tokenizer("a")["input_ids"])
        return with_special[: with_special.index(bare[0])]

    def _pieces(self, segments: list[Segment]) -> list[list[int]]:
        """The tokens of each segment.

        Raw prompts and completions get those of stock SFTTrainer (trl 1.16, trainer/sft_trainer.py, `tokenize_fn`),
        which tokenizes both together, as needed by tokenizers that begin each text with a space. But if a token would
        cross the border, SFTTrainer trains on another prompt than generation gets; here the prompt is unchanged.
        """
        if not FORMATS[self.rows.row_format].is_raw:
            return [self._tokenize(segment.text) for segment in segments]
        prompt = self._tokenize(segments[0].text)
        whole = self._tokenize("".join(segment.text for segment in segments))
        completion = [self._tokenize(segment.text) for segment in segments[1:]]
        if completion and whole[: len(prompt)] == prompt:
            completion = [whole[len(prompt) :]]
        return [self._beginning + prompt, *completion]

    def _appended(self, encoded: Encoded, piece: list[int], *, is_learned: bool) -> Encoded:
        ids = torch.tensor(piece, dtype=torch.long)
        tokens = {name: torch.cat([value, _filler(name, ids)]) for name, value in encoded.tokens.items()}
        labels = [token if is_learned and token not in self.image_token_ids else IGNORED for token in piece]
        return replace(
            encoded, tokens=tokens, labels=torch.cat([encoded.labels, torch.tensor(labels, dtype=torch.long)])
        )

    def _with_images(self, encoded: Encoded, text: str, images: list[CheckedImage]) -> Encoded:
        """Appends a text with images, of which nothing is learned."""
        assert self._texts is not None
        tokens, others, pictures = self._texts.encode(text, images)
        before = encoded.others
        return Encoded(
            {name: torch.cat([value, tokens[name]]) for name, value in encoded.tokens.items()},
            {name: torch.cat([before[name], value]) if name in before else value for name, value in others.items()},
            torch.cat([encoded.labels, torch.full_like(tokens["input_ids"], IGNORED)]),
            encoded.num_prompt,
            (*encoded.pictures, *pictures),
        )

    def collate(self, rows: list[Row]) -> Batch:
        return self.batch([self.encode(row) for row in rows])

    def batch(self, rows: list[Encoded]) -> Batch:
        """For training: padded on the right."""
        labels = [row.labels for row in rows]
        return self._joined(rows, "right") | {"labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED)}

    def prompt_batch(self, rows: list[Encoded]) -> Batch:
        """For generation: padded on the left, as each row continues after its prompt; without labels."""
        return self._joined([row.prompt() for row in rows], "left")

    def _joined(self, rows: list[Encoded], side: str) -> Batch:
        """Per-token arrays padded to (rows, tokens), the others concatenated, image by image in the order of the rows.

        If no row has an image there are no image arrays: the model does not run its vision tower, whose adapter, if
        any, learns nothing from such a batch.
        """
        batch: Batch = {}
        for name in rows[0].tokens:
            fill = self.tokenizer.pad_token_id if name == "input_ids" else 0
            values = [row.tokens[name] for row in rows]
            batch[name] = pad_sequence(values, batch_first=True, padding_value=fill, padding_side=side)
        for name in dict.fromkeys(name for row in rows for name in row.others):
            batch[name] = torch.cat([row.others[name] for row in rows if name in row.others])
        pictures = [picture for row in rows for picture in row.pictures]
        if self._features and pictures:
            batch["mm_encoder_outputs"] = self._features.given(pictures)
        return batch


def _filler(name: str, ids: torch.Tensor) -> torch.Tensor:
    """The values of a per-token array for appended text."""
    if name == "input_ids":
        return ids
    return torch.ones_like(ids) if name == "attention_mask" else torch.zeros_like(ids)
