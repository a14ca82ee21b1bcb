"""The validation loss in slices: the same numbers as a projection of everything, and never a large tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from hpsearch.errors import FieldError
from hpsearch.train import loss
from hpsearch.train.encoding import IGNORED, Batch
from hpsearch.train.loss import token_losses
from hpsearch.train.tiny.architectures import ARCHITECTURES

VOCABULARY = 1024
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}
MODELS: dict[str, Callable[[], Any]] = {
    **{name: lambda build=build: build()[0] for name, build in ARCHITECTURES.items()},  # type: ignore[misc]
    "capped": lambda: Gemma2ForCausalLM(Gemma2Config(**_SIZES, head_dim=64, final_logit_softcapping=0.5)),
    "divided": lambda: GraniteForCausalLM(GraniteConfig(**_SIZES, logits_scaling=8.0)),
    "multiplied": lambda: CohereForCausalLM(CohereConfig(**_SIZES, logit_scale=0.25)),
}


def batch_of(num_rows: int, num_learned: int = 6) -> Batch:
    """Rows that learn two runs of tokens each, at other places in each row, padded on the right."""
    generator = torch.Generator().manual_seed(0)
    length = 2 * num_learned + 8
    ids = torch.randint(500, 900, (num_rows, length), generator=generator)
    mask, labels = torch.ones_like(ids), torch.full_like(ids, IGNORED)
    for row in range(num_rows):
        first = 1 + row % 3
        for start in (first, first + num_learned):
            labels[row, start : start + num_learned // 2] = ids[row, start : start + num_learned // 2]
        mask[row, length - row % 3 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("name", list(MODELS))
def test_slices_give_the_loss_of_the_whole(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    batch = batch_of(num_rows=5)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        logits, wanted = model(**inputs).logits[:, :-1].float(), batch["labels"][:, 1:]
    whole = cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none").double().sum(dim=1)
    for num_positions in (4, VOCABULARY):
        monkeypatch.setattr(loss, "SLICE_BYTES", 4 * VOCABULARY * num_positions)
        totals, counts = token_losses(model, batch, torch.float32)
        assert torch.allclose(totals, whole, rtol=1e-6, atol=0), "beyond float32's rounding"
        assert counts.tolist() == [6] * 5
    assert "forward" not in vars(model.base_model), "the model is as it was"


@pytest.mark.parametrize("num_rows", [1, 16])
def test_the_largest_logits_are_bounded_whatever_the_batch(monkeypatch: pytest.MonkeyPatch, num_rows: int) -> None:
    model = MODELS["tiny:qwen2"]().eval()
    num_decoded, sizes = 0, []

    def decoded(*_: Any) -> None:
        nonlocal num_decoded
        num_decoded += 1

    model.model.layers[0].register_forward_hook(decoded)
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: sizes.append(logits.numel()))
    monkeypatch.setattr(loss, "SLICE_BYTES", 4 * VOCABULARY * 8)
    token_losses(model, batch_of(num_rows, num_learned=40), torch.float32)
    assert max(sizes) == 8 * VOCABULARY
    assert sum(sizes) == num_rows * 40 * VOCABULARY, "what is not learned is not projected"
    assert num_decoded == 1, "the decoder runs once"


def test_a_row_without_learned_tokens_has_no_loss() -> None:
    batch = batch_of(num_rows=2)
    batch["labels"][:] = IGNORED
    totals, counts = token_losses(MODELS["tiny:qwen2"]().eval(), batch, torch.float32)
    assert (totals.tolist(), counts.tolist()) == ([0, 0], [0, 0])


def test_a_model_without_its_decoder_in_the_usual_place_is_refused() -> None:
    model = MODELS["tiny:qwen2"]().eval()
    with pytest.raises(FieldError, match="keeps its decoder where"):
        token_losses(model.model, batch_of(num_rows=1), torch.float32)
