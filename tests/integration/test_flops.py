"""What a row costs in the shapes of real bases, counted on meta tensors, which need neither memory nor a card.

A product of matrices of (n, k) and (k, m) is 2nkm FLOPs. A linear layer of W weights over n tokens is 2nW forward, and
as many for its input's gradient; its own weights are frozen. With gradient checkpointing the forward is done twice, so
a language layer is 6nW. Adapters and attention over so few tokens add a few percent. What 4-bit weights cost to be
dequantized is not counted, nor is the head, which is the same with pixels and features.

Two layers of each kind are counted. With all of them, a row of 300 tokens of Gemma-3-4B (34 language layers, 27 in the
tower, 896 pixels a side) is 5.9 TFLOP with features; asking its tower once is 5.5 more, and with back-propagation
through it, as SFTTrainer does, that is 17.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

from hpsearch.spec.model import LoraSpec
from hpsearch.train.adapters import attach

META = torch.device("meta")
LAYERS = 2
NUM_TOKENS = 300
CLOSE = 0.06
"""Adapters of rank 16, attention among 300 tokens, and the rounding of this arithmetic."""


@dataclass(frozen=True)
class Shape:
    """`language`: weights of a layer. `tower`: FLOPs of one look at an image, with `LAYERS` layers."""

    build: Callable[[], Any]
    language: int
    tower: int
    pixels: Callable[[], dict[str, torch.Tensor]]
    features: Callable[[], Any]


def gemma_3_4b() -> Any:
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 8, "num_key_value_heads": 4}
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "patch_size": 14}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=text | {"head_dim": 256, "num_hidden_layers": LAYERS, "vocab_size": 262208},
            vision_config=vision | {"image_size": 896, "num_hidden_layers": LAYERS, "vision_use_head": False},
            mm_tokens_per_image=256,
        )
    )


def qwen2_5_vl_7b() -> Any:
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    vision = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=text | {"num_hidden_layers": LAYERS, "vocab_size": 152064, "rope_parameters": rope},
            vision_config=vision | {"depth": LAYERS, "patch_size": 14, "fullatt_block_indexes": [1]},
        )
    )


SHAPES = {
    # 896 / 14 = 64: 4,096 patches of 14 × 14 × 3, each of which looks at all; 256 tokens come out of the projector
    "Gemma-3-4B": Shape(
        gemma_3_4b,
        language=2560 * (2048 + 2 * 1024) + 2048 * 2560 + 3 * 2560 * 10240,
        tower=2 * 4096 * (588 * 1152 + LAYERS * (4 * 1152**2 + 2 * 1152 * 4304))
        + LAYERS * 4 * 4096**2 * 1152
        + 2 * 256 * 1152 * 2560,
        pixels=lambda: {"pixel_values": torch.empty(1, 3, 896, 896, device=META)},
        features=lambda: torch.empty(1, 256, 2560, device=META),
    ),
    # 448 / 14 = 32: 1,024 patches of two frames of 14 × 14 × 3, which look at all in one of the two layers and at their
    # window of 64 in the other; four at a time are merged into 256 tokens
    "Qwen2.5-VL-7B": Shape(
        qwen2_5_vl_7b,
        language=3584 * (3584 + 2 * 512) + 3584**2 + 3 * 3584 * 18944,
        tower=2 * 1024 * (1176 * 1280 + LAYERS * (4 * 1280**2 + 3 * 1280 * 3420))
        + 4 * 1024 * (1024 + 64) * 1280
        + 2 * 256 * (5120**2 + 5120 * 3584),
        pixels=lambda: {
            "pixel_values": torch.empty(1024, 1176, device=META),
            "image_grid_thw": torch.tensor([[1, 32, 32]]),
        },
        features=lambda: [torch.empty(256, 3584, device=META)],
    ),
}


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks that look at numbers; indices that are made of the grid's numbers follow the model."""
    for module in (modeling_gemma3, modeling_qwen2_5_vl):
        monkeypatch.setattr(module, "torch_compilable_check", lambda *_, **__: None)
    positions, windows = modeling_qwen2_5_vl.get_vision_position_ids, modeling_qwen2_5_vl.get_vision_window_index

    def moved_windows(*arguments: Any, **named: Any) -> Any:
        index, lengths = windows(*arguments, **named)
        return index.to(META), lengths

    monkeypatch.setattr(modeling_qwen2_5_vl, "get_vision_position_ids", lambda *a, **n: positions(*a, **n).to(META))
    monkeypatch.setattr(modeling_qwen2_5_vl, "get_vision_window_index", moved_windows)


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("name", list(SHAPES))
def test_with_features_a_step_costs_the_language_part_alone(name: str) -> None:
    shape = SHAPES[name]
    language = 6 * NUM_TOKENS * LAYERS * shape.language
    given = {"image": BaseModelOutputWithPooling(pooler_output=shape.features())}
    with_features = flops(shape, {"mm_encoder_outputs": given})
    assert with_features == pytest.approx(language, rel=CLOSE)
    with_pixels = flops(shape, shape.pixels())
    assert with_pixels - with_features == pytest.approx(shape.tower, rel=0.01), "the tower is asked once, forward only"


def flops(shape: Shape, image: dict[str, Any]) -> int:
    """Of one row, forward and backward, as SFTTrainer does it with gradient checkpointing."""
    with META:
        model = shape.build()
    model.requires_grad_(False)
    adapted = attach(model, LoraSpec()).train()
    adapted.gradient_checkpointing_enable({"use_reentrant": False})
    adapted.enable_input_require_grads()
    ids = torch.empty(1, NUM_TOKENS, dtype=torch.long, device=META)
    where = {} if "Gemma" in type(model).__name__ else {"position_ids": torch.empty_like(ids).expand(3, 1, -1)}
    with FlopCounterMode(display=False) as counted:
        model.base_model(input_ids=ids, use_cache=False, **where, **image).last_hidden_state.sum().backward()
    return counted.get_total_flops()
