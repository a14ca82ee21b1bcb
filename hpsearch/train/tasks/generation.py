"""The method of the language tasks: generating the answer, greedily and in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from hpsearch.train.encoding import IGNORED, Batch, Encoded, Encoder, Row
from hpsearch.train.ending import end_tokens
from hpsearch.train.loss import mixed_precision, on_device, token_losses
from hpsearch.train.tasks.task import Answer, RowLoss
from hpsearch.trial import AnswersConfig


class Generation:
    """Learns answers token by token; trains only the adapter."""

    has_own_loss = False

    def __init__(self, encoder: Encoder, answers: AnswersConfig, train_rows: Dataset | None) -> None:
        del train_rows
        self._encoder = encoder
        self._max_new_tokens = answers.max_new_tokens

    def extend(self, model: Any) -> None:
        pass

    def encode(self, row: Row) -> Encoded:
        return self._encoder.encode(row)

    def num_tokens(self, row: Row) -> int:
        return self._encoder.num_tokens(row)

    def batch(self, rows: list[Encoded]) -> Batch:
        return self._encoder.batch(rows)

    def num_items(self, rows: list[Encoded]) -> int:
        return sum(int((row.labels[1:] != IGNORED).sum()) for row in rows)

    def shared(self, model: Any, rows: list[Encoded], size: int) -> Batch:
        del model, rows, size
        return {}

    def training_loss(self, model: Any, batch: Batch, num_items: int) -> torch.Tensor:
        raise NotImplementedError("the model has a loss of its own")

    def losses(self, model: Any, rows: list[Encoded], dtype: torch.dtype) -> list[RowLoss]:
        totals, counts = token_losses(model, self._encoder.batch(rows), dtype)
        return [RowLoss(float(total), int(count)) for total, count in zip(totals, counts, strict=True)]

    @torch.no_grad()
    def answers(self, model: Any, rows: list[Encoded], dtype: torch.dtype, *, is_tuned: bool) -> list[Answer]:
        del is_tuned
        tokenizer = self._encoder.tokenizer
        ends = end_tokens(self._encoder, model.generation_config)
        inputs = on_device(self._encoder.prompt_batch(rows), model.device)
        with mixed_precision(model.device, dtype):
            generated = model.generate(
                **inputs,
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=ends or None,
            )
        said = generated[:, inputs["input_ids"].shape[1] :].tolist()
        return [_decoded(tokenizer, tokens, set(ends)) for tokens in said]

    def measure(
        self, model: Any, rows: list[Encoded], dtype: torch.dtype, *, with_texts: bool = True
    ) -> tuple[list[RowLoss], list[Answer]]:
        """One forward for the taught answer, and one per token of the model's own answer."""
        del with_texts
        return self.losses(model, rows, dtype), self.answers(model, rows, dtype, is_tuned=True)

    def save(self, model: Any, folder: Path) -> None:
        pass

    def load(self, model: Any, folder: Path) -> None:
        pass


def _decoded(tokenizer: Any, tokens: list[int], ends: set[int]) -> Answer:
    """After its end an answer is padded up to the longest of its batch."""
    length = next((place for place, token in enumerate(tokens) if token in ends), None)
    return Answer(tokenizer.decode(tokens[:length], skip_special_tokens=True).strip(), is_cut=length is None)
