"""16 bit where it is safe: what a frozen base weighs, and how near its losses and gradients are to float32's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, Gemma3Config, Qwen2_5_VLConfig, Qwen2Config

from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.train import bases
from hpsearch.train.adapters import attach
from hpsearch.train.bases import Base, load_base
from hpsearch.train.loss import mixed_precision, token_losses
from hpsearch.train.tasks import TASKS

GB = 1e9
NUM_LEARNED = 4 * 40

# The published config.json of google/gemma-3-4b-it (medgemma-4b-it has the same) and Qwen/Qwen2.5-VL-7B-Instruct, as
# far as shapes go; the rest are transformers' defaults.
GEMMA_3_4B = Gemma3Config(
    text_config={
        "vocab_size": 262_208,
        "hidden_size": 2560,
        "num_hidden_layers": 34,
        "intermediate_size": 10_240,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    },
    vision_config={
        "hidden_size": 1152,
        "num_hidden_layers": 27,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
        "vision_use_head": False,
    },
    mm_tokens_per_image=256,
)
QWEN_2_5_VL_7B = Qwen2_5_VLConfig(
    text_config={
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "intermediate_size": 18_944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    vision_config={
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
    },
    tie_word_embeddings=False,
)


def on_paper(config: Any, dtype: torch.dtype) -> Any:
    """The frozen model without a byte of memory."""
    kind = AutoModelForCausalLM if isinstance(config, Qwen2Config) else AutoModelForImageTextToText
    with torch.device("meta"):
        model = kind.from_config(config, dtype=dtype)
    model.tie_weights()
    return bases._freeze(model, dtype)


def gigabytes(model: Any) -> tuple[float, float]:
    """(of embeddings and head, of all weights that 4-bit quantization leaves as they are)."""
    head = model.get_output_embeddings()
    words = {id(module.weight): module.weight for module in (model.get_input_embeddings(), head)}
    quantized = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)} - set(words)
    kept = [weight for weight in model.parameters() if id(weight) not in quantized]
    return tuple(sum(weight.nbytes for weight in weights) / GB for weights in (words.values(), kept))  # type: ignore[return-value]


def test_the_arithmetic_of_the_shipped_studies() -> None:
    """What their comments say; the shapes are right where the parameters are as many as published."""
    text_only = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    published = [
        (GEMMA_3_4B, 4_300_079_472, 3.2, 8.6),
        (QWEN_2_5_VL_7B, 8_292_166_656, 5.9, 16.6),
        (text_only, 494_032_768, 0.46, 0.99),
    ]
    for config, num_weights, in_4_bit, in_16_bit in published:
        model = on_paper(config, torch.bfloat16)
        assert model.num_parameters() == num_weights
        _, kept = gigabytes(model)
        quantized = num_weights - kept * GB / 2
        # half a byte, and for each 64 weights a scale of one byte, of which 256 share one of four
        assert quantized * (0.5 + 1 / 64 + 4 / (64 * 256)) / GB + kept == pytest.approx(in_4_bit, rel=0.012)
        assert 2 * num_weights / GB == pytest.approx(in_16_bit, rel=0.01)
    assert pytest.approx(21, rel=0.01) == 3 * (2560 + 10_240) * 34 * 16 / 1e6
    assert pytest.approx(0.56, rel=0.01) == 64 * 22_912 * 24 * 16 / GB


@pytest.mark.parametrize(
    ("config", "embeddings", "in_float16"),
    [
        (GEMMA_3_4B, 262_208 * 2560 * 2, 2 * 262_208 * 2560 * 2),  # tied, so they are wide there
        (QWEN_2_5_VL_7B, 2 * 152_064 * 3584 * 2, 152_064 * 3584 * (4 + 2)),  # the head can stay narrow
    ],
    ids=["Gemma-3-4B", "Qwen2.5-VL-7B"],
)
def test_embeddings_and_head_of_real_shapes_weigh_half_of_what_they_did(
    config: Any, embeddings: int, in_float16: int
) -> None:
    words, kept = gigabytes(on_paper(config, torch.bfloat16))
    assert words == pytest.approx(embeddings / GB)
    assert words <= kept < words + 0.03, "norms, biases, positions and patch embeddings are what else is not 4-bit"
    assert gigabytes(on_paper(config, torch.float16))[0] == pytest.approx(in_float16 / GB)
    assert gigabytes(on_paper(config, torch.float32))[0] == pytest.approx(2 * embeddings / GB)


def loaded(name: str, dtype: str, quantization: str) -> Base:
    spec = ModelSpec(base=name, dtype=dtype, quantization=quantization)  # type: ignore[arg-type]
    return load_base(TASKS["text-sft" if name == "tiny:qwen2" else "vlm-sft"], spec, lambda *_: None)


def learned(model: Any) -> dict[str, torch.Tensor]:
    """4 rows of 48 tokens, of which the last 40 are learned."""
    size = model.config.get_text_config().vocab_size
    ids = torch.randint(5, size - 300, (4, 48), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :8] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def loss_of(model: Any, dtype: torch.dtype) -> float:
    return float(token_losses(model, learned(model), dtype)[0].sum()) / NUM_LEARNED


def dtypes_of(base: Base) -> set[torch.dtype]:
    return {weight.dtype for weight in base.model.parameters()} - {torch.uint8}


def gradients_of(base: Base, dtype: torch.dtype) -> torch.Tensor:
    """Of a fresh adapter's second matrices, in one vector; the first ones have none yet."""
    torch.manual_seed(0)
    model = attach(base.fresh_model(), LoraSpec(r=4, dropout=0.0))
    with mixed_precision(model.device, dtype):
        model(**learned(model)).loss.backward()
    found = [w.grad.flatten() for name, w in model.named_parameters() if w.grad is not None and "lora_B" in name]
    return torch.cat(found)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("name", ["tiny:qwen2", "tiny:gemma3"])
def test_in_bfloat16_nothing_is_widened_and_loss_and_gradient_stay_near(name: str, quantization: str) -> None:
    wide, narrow = loaded(name, "float32", quantization), loaded(name, "bfloat16", quantization)
    assert dtypes_of(wide) == {torch.float32}
    assert dtypes_of(narrow) == {torch.bfloat16}
    assert loss_of(narrow.model, torch.bfloat16) == pytest.approx(loss_of(wide.model, torch.float32), rel=1e-3)
    exact, found = gradients_of(wide, torch.float32), gradients_of(narrow, torch.bfloat16)
    assert found.dtype == torch.float32, "adapters learn in float32"
    assert float(torch.cosine_similarity(exact, found, dim=0)) > 0.99


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_in_float16_only_what_autocast_rounds_anyway_is_narrow(quantization: str) -> None:
    """The losses are those of a base that is float32 altogether, bit for bit."""
    base = loaded("tiny:gemma3", "float16", quantization)
    assert base.model.get_input_embeddings().weight.dtype == torch.float32
    hidden = []
    base.model.get_decoder().layers[0].register_forward_hook(lambda _, __, output: hidden.append(output))
    loss = loss_of(base.model, torch.float16)
    state = hidden[0][0] if isinstance(hidden[0], tuple) else hidden[0]
    assert state.dtype == torch.float32
    for weight in base.model.parameters():
        if weight.dtype == torch.float16:
            weight.data = weight.data.float()
    assert loss_of(base.model, torch.float16) == loss
