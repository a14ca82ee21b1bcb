"""Rows → tokens → batches: the chat template, what is learned and what is masked.

A conversation is rendered by the model's own chat template and cut into segments: what the model is given, and
what it shall learn to say (its answer and the end of its turn). Each segment is tokenized on its own, so that a
prompt has the same tokens in training as in generation. Everything but the learned segments is masked, and so
is every image token wherever it stands.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from hpsearch.data.decoding import image_size
from hpsearch.spec.rows import FORMATS
from hpsearch.train.images import (
    Picture,
    Pictures,
    Resized,
    checksum,
    fitted_size,
    load_image,
    process,
    process_known,
)
from hpsearch.train.kept_rows import KeptRows
from hpsearch.train.template import Segment, Template
from hpsearch.trial import RowsConfig

IGNORED = -100
"""The label of a token that is not learned."""

Row = dict[str, Any]
Batch = dict[str, Any]
"""What a model takes by name: tensors, and `mm_encoder_outputs` where it takes features of images.

`input_ids`, `attention_mask` and `labels` have shape (rows, tokens). Pixels are as each processor gives them: Gemma 3's
(images, channels, height, width), the Qwens' (patches of all images, numbers of a patch) beside an `image_grid_thw` of
(images, 3).
"""


@dataclass(frozen=True)
class Encoded:
    """One row as the model sees it.

    `tokens` are the arrays with one entry per token, shape (tokens,), `input_ids` and `attention_mask` among
    them; `others` are the rest, such as pixels, with rows first. `picture` is there instead of pixels where the
    vision tower is frozen. The first `num_prompt` tokens are what the model is given when it speaks last.
    """

    tokens: dict[str, torch.Tensor]
    others: dict[str, torch.Tensor]
    labels: torch.Tensor
    num_prompt: int = 0
    picture: Picture | None = None

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])

    def prompt(self) -> Encoded:
        """The conversation up to where the model speaks last: what `generate` is given."""
        tokens = {name: value[: self.num_prompt] for name, value in self.tokens.items()}
        return replace(self, tokens=tokens, labels=self.labels[: self.num_prompt])

    @property
    def num_bytes(self) -> int:
        """Of memory, besides what is mapped from disk."""
        held = [*self.tokens.values(), *self.others.values(), self.labels]
        if self.picture:
            held += self.picture.pixels.values()
            if self.picture.features is not None and not self.picture.is_mapped:
                held.append(self.picture.features)
        return sum(tensor.nbytes for tensor in held)


class Encoder:
    """Encodes rows for one model. `processor` is its tokenizer, or its processor where rows have an image.

    Of images it gives `features` where there are any to give, and else their pixels, at the size at which they are
    kept where they are `resized`. Rows without pixels are `kept`.
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
        self._resized = resized
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.rows = rows
        self.has_images = has_images
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._template = Template(processor, rows, has_images=has_images)
        self._extra_by_size: dict[tuple[int, int], int] = {}
        self.image_token_ids = self._find_image_tokens() if has_images else frozenset[int]()

    def encode(self, row: Row) -> Encoded:
        """The whole conversation, with labels."""
        if self._kept is None or (self.has_images and self._features is None):
            return self._encode(row)
        key = self._key(row)
        kept = self._kept.find(key)
        known = self._features.find(row) if kept and self._features else None
        if kept and (known or not self.has_images):
            picture, outputs = known or (None, {})
            tokens, labels = kept.arrays()
            return Encoded(tokens, {name: outputs[name] for name in kept.others}, labels, kept.num_prompt, picture)
        encoded = self._encode(row)
        self._kept.keep(key, encoded.tokens, encoded.labels, encoded.num_prompt, tuple(encoded.others))
        return encoded

    def _key(self, row: Row) -> Hashable:
        """All that a row's tokens depend on, besides the base."""
        turns = [*(row.get("examples") or []), *row["messages"]]
        words = tuple((message["role"], message["content"]) for message in turns)
        return self.rows, words, checksum(row) if self.has_images else None

    def _encode(self, row: Row) -> Encoded:
        segments = self._template.segments(row["messages"], row.get("examples"))
        rest = segments[1:]
        first, *pieces = self._pieces(segments)
        encoded = self._encode_first(segments[0].text, first, row)
        for segment, piece in zip(rest, pieces, strict=True):
            encoded = self._appended(replace(encoded, num_prompt=len(encoded)), piece, is_learned=segment.is_learned)
        return encoded

    def with_answer(self, prompt: Encoded, answer: str) -> Encoded:
        """The prompt of a row, and another answer to it than the row's own."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        return self.with_tokens(prompt, self._tokenize(self._template.segments(turns)[-1].text))

    def with_tokens(self, prompt: Encoded, answer: list[int]) -> Encoded:
        """The prompt of a row, and these tokens to learn behind it."""
        return self._appended(prompt, answer, is_learned=True)

    def num_tokens(self, row: Row) -> int:
        """Tokens of the whole conversation; cheap where images of one size recur."""
        length = sum(map(len, self._pieces(self._template.segments(row["messages"], row.get("examples")))))
        if not self.has_images:
            return length
        return length + self._extra_tokens(fitted_size(image_size(Path(row["image"])), self.rows.image_size))

    @cached_property
    def end_token(self) -> int | None:
        """The token that ends each taught answer: the last one that is learned.

        None where that is an ordinary one, which may stand in the middle of an answer: such a template marks no end.
        """
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        last = self._tokenize(self._template.segments(turns)[-1].text)[-1]
        return last if last in self._special_ids else None

    @property
    def _special_ids(self) -> set[int]:
        return set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _beginning(self) -> list[int]:
        """What the tokenizer puts before each text: most Llamas and Gemmas a BOS, the Qwens nothing.

        Raw prompts get it. Chat templates write their own.
        """
        bare = self._tokenize("a")
        with_special = list(self.tokenizer("a")["input_ids"])
        return with_special[: with_special.index(bare[0])]

    def _pieces(self, segments: list[Segment]) -> list[list[int]]:
        """The tokens of each segment.

        Raw prompts and completions have those of stock SFTTrainer (trl 1.16, trainer/sft_trainer.py, `tokenize_fn`),
        which tokenizes them together, as a tokenizer that begins each text with a space asks for. But where a token
        would reach across the border it trains on another prompt than generation is given; here the prompt stays.
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

    def _encode_first(self, text: str, tokens: list[int], row: Row) -> Encoded:
        """The first segment, of which nothing is learned."""
        picture = None
        if not self.has_images:
            ids = torch.tensor(tokens, dtype=torch.long)
            found = {"input_ids": ids.unsqueeze(0), "attention_mask": torch.ones_like(ids).unsqueeze(0)}
        elif self._features is None:
            found, _ = process(self.processor, text, self._image(row))
        elif known := self._features.find(row):
            picture, outputs = known
            found = process_known(self.processor, text, outputs)
        else:
            found, outputs = process(self.processor, text, self._image(row))
            picture = self._features.picture(row, outputs)
            found = {name: value for name, value in found.items() if not name.startswith("pixel_values")}
        arrays, others = _per_token(found)
        return Encoded(arrays, others, torch.full_like(arrays["input_ids"], IGNORED), picture=picture)

    def _image(self, row: Row) -> Image.Image:
        if self._resized:
            return self._resized.load(row)
        return load_image(Path(row["image"]), self.rows.image_size)

    def _find_image_tokens(self) -> frozenset[int]:
        """The special tokens that come with an image: those that no prompt without an image has."""
        found, _ = process(self.processor, self._template.blank_prompt(with_image=True), Image.new("RGB", (64, 64)))
        without = set(self._tokenize(self._template.blank_prompt(with_image=False)))
        return frozenset((set(found["input_ids"][0].tolist()) - without) & self._special_ids)

    def _extra_tokens(self, size: tuple[int, int]) -> int:
        """Tokens that an image of `size` adds to its placeholder."""
        if size not in self._extra_by_size:
            prompt = self._template.blank_prompt(with_image=True)
            found, _ = process(self.processor, prompt, Image.new("RGB", size))
            self._extra_by_size[size] = found["input_ids"].shape[1] - len(self._tokenize(prompt))
        return self._extra_by_size[size]

    def collate(self, rows: list[Row]) -> Batch:
        return self.batch([self.encode(row) for row in rows])

    def batch(self, rows: list[Encoded]) -> Batch:
        """To learn from: padded on the right."""
        labels = [row.labels for row in rows]
        return self._joined(rows, "right") | {"labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED)}

    def prompt_batch(self, rows: list[Encoded]) -> Batch:
        """To generate from: padded on the left, as each row goes on where its prompt ends; without labels."""
        return self._joined([row.prompt() for row in rows], "left")

    def _joined(self, rows: list[Encoded], side: str) -> Batch:
        """Per-token arrays padded to (rows, tokens), the others joined along their rows."""
        batch: Batch = {}
        for name in rows[0].tokens:
            fill = self.tokenizer.pad_token_id if name == "input_ids" else 0
            values = [row.tokens[name] for row in rows]
            batch[name] = pad_sequence(values, batch_first=True, padding_value=fill, padding_side=side)
        for name in rows[0].others:
            batch[name] = torch.cat([row.others[name] for row in rows])
        pictures = [row.picture for row in rows if row.picture]
        if self._features and pictures:
            batch["mm_encoder_outputs"] = self._features.given(pictures)
        return batch


def _per_token(found: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Arrays with an entry for each token of the one row, and the others."""
    shape = found["input_ids"].shape
    tokens = {name: value[0] for name, value in found.items() if value.shape == shape}
    return tokens, {name: value for name, value in found.items() if value.shape != shape}


def _filler(name: str, ids: torch.Tensor) -> torch.Tensor:
    """The entries of a per-token array for appended text."""
    if name == "input_ids":
        return ids
    return torch.ones_like(ids) if name == "attention_mask" else torch.zeros_like(ids)
