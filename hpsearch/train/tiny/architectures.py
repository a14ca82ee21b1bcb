"""Toy-sized models of the real architectures, with random weights, and their processors.

Every linear layer's dimensions are multiples of 64, bitsandbytes' block size: on a CPU it can quantize no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from hpsearch.train.tiny.tokenizers import (
    GEMMA_IMAGE_TOKENS,
    VOCABULARY_SIZE,
    gemma_tokenizer,
    qwen_tokenizer,
)

IMAGE_SIZE = 28
_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}

Built = tuple[PreTrainedModel, Any]


def gemma3() -> Built:
    tokenizer = gemma_tokenizer()
    ids: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(token) for name, token in GEMMA_IMAGE_TOKENS.items()}
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": 7,
    }
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = Gemma3Config(
        text_config=_TEXT | special | {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 512},
        vision_config=vision,
        mm_tokens_per_image=16,
        image_token_index=ids["image_token"],
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
    )
    model = Gemma3ForConditionalGeneration(config)
    end_of_turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end_of_turn]
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer=tokenizer,
        image_seq_length=16,
        chat_template=tokenizer.chat_template,
    )
    return model, processor


def qwen2() -> Built:
    tokenizer = qwen_tokenizer()
    model = Qwen2ForCausalLM(Qwen2Config(**_TEXT, **_qwen_special(tokenizer)))
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    return model, tokenizer


def qwen2_vl() -> Built:
    vision = {
        "depth": 2,
        "embed_dim": 64,
        "hidden_size": 128,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 7,
    }
    return _qwen_vl(Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor, vision)


def qwen2_5_vl() -> Built:
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "out_hidden_size": 128,
        "num_heads": 2,
        "patch_size": 7,
        "window_size": 28,
        "fullatt_block_indexes": [1],
    }
    return _qwen_vl(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, vision)


def _qwen_vl(config_class: Any, model_class: Any, processor_class: Any, vision: dict[str, Any]) -> Built:
    tokenizer = qwen_tokenizer()
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [8, 12, 12]}
    config = config_class(
        text_config=_TEXT | _qwen_special(tokenizer) | {"rope_parameters": rope},
        vision_config=vision,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
        tie_word_embeddings=True,
    )
    model = model_class(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    pixels = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": 16 * IMAGE_SIZE**2}
    processor = processor_class(
        image_processor=Qwen2VLImageProcessor(size=pixels, patch_size=7),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels, patch_size=7),
        chat_template=tokenizer.chat_template,
    )
    return model, processor


def _qwen_special(tokenizer: Any) -> dict[str, Any]:
    """Qwen's texts have no first token; without a None, the id of the large vocabulary stands there."""
    return {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}


ARCHITECTURES: dict[str, Callable[[], Built]] = {
    "tiny:qwen2": qwen2,
    "tiny:gemma3": gemma3,
    "tiny:qwen2-vl": qwen2_vl,
    "tiny:qwen2.5-vl": qwen2_5_vl,
}
