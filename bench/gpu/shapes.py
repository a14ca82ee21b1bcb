"""The shapes of three real models, with random weights: layers, widths and vocabulary are theirs, the tokenizer tiny.

| shape | language | vision | rows |
|---|---|---|---|
| google/gemma-3-4b-it | 34 layers, width 2560, 10240 within, 8 heads of 256 and 4 for keys, vocabulary 262,208 | 27 layers, width 1152, 4304 within, 16 heads, 14 px patches | 896 px, 256 tokens an image |
| Qwen/Qwen2.5-VL-7B-Instruct | 28 layers, width 3584, 18944 within, 28 heads and 4 for keys, vocabulary 152,064 | 32 layers, width 1280, 3420 within, 16 heads, 14 px patches | 448 px, 256 tokens an image |
| Qwen/Qwen2.5-0.5B | 24 layers, width 896, 4864 within, 14 heads and 2 for keys, vocabulary 151,936 | none | text |

Source: the `config.json` of each on the Hugging Face hub.
"""  # noqa: E501

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu.place import Place
from bench.shapes import half_a_billion
from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row

NUM_ROWS = 64
NUM_VALIDATION_ROWS = 8
Built = tuple[Any, Any, Any]
"""(model class, config, processor)"""


@dataclass(frozen=True)
class Shape:
    """`words` are in an answer; `tiny` is the base that is used in the rehearsal."""

    name: str
    task: str
    build: Callable[[], Built]
    tiny: str
    image_size: int | None
    words: int

    def size(self, place: Place) -> int | None:
        return 28 if place.rehearses and self.image_size else self.image_size

    def base(self, place: Place) -> Path:
        """The folder of its base, built by the first part that needs it."""
        folder = place.folder / "bases" / self.tiny.removeprefix("tiny:")
        if not (folder / "config.json").exists():
            place.say(f"building a base of {self.name}'s shape with random weights")
            _save(_tiny(self.tiny) if place.rehearses else self.build(), folder, "cpu" if place.rehearses else "cuda")
        return folder

    def rows(self, place: Place) -> tuple[Path, Path]:
        """(train, validation) rows, prepared."""
        folder = place.folder / "rows" / self.tiny.removeprefix("tiny:")
        if not folder.exists():
            (folder / "images").mkdir(parents=True)
            rows = [self._row(number, place, folder / "images") for number in range(NUM_ROWS + NUM_VALIDATION_ROWS)]
            write_rows(rows[:NUM_ROWS], folder / "train")
            write_rows(rows[NUM_ROWS:], folder / "validation")
        return folder / "train", folder / "validation"

    def _row(self, number: int, place: Place, images: Path) -> Row:
        draw = random.Random(number)
        size = self.size(place)
        image = images / f"{number}.png"
        if size:
            _noise(size, number, image)
        answer = " ".join(
            draw.choice(("benign", "malignant", "red", "white", "low", "high")) for _ in range(self.words)
        )
        said = [{"role": "user", "content": "What is seen here?"}, {"role": "assistant", "content": answer}]
        return Row(str(number), said, (CheckedImage(image, str(number)),) if size else (), None, None, None)

    def language_weights(self) -> int:
        """Of the decoder's linear layers: what a token is multiplied with. Embeddings and head are not among them."""
        import torch

        model_class, config, _ = self.build()
        with torch.device("meta"):
            decoder = model_class(config).get_decoder()
        return sum(module.weight.numel() for module in decoder.modules() if isinstance(module, torch.nn.Linear))


def _noise(size: int, seed: int, file: Path) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, compress_level=1)


def _save(built: Built, folder: Path, device: str) -> None:
    """Drawn on the card: a host takes minutes for billions of numbers."""
    import torch

    model_class, config, processor = built
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    del model
    gc.collect()
    torch.cuda.empty_cache()


def _tiny(name: str) -> Built:
    from hpsearch.train.tiny.architectures import ARCHITECTURES

    model, processor = ARCHITECTURES[name]()
    return type(model), model.config, processor


def _gemma3_4b() -> Built:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    from hpsearch.train.tiny.tokenizers import GEMMA_IMAGE_TOKENS, gemma_tokenizer

    tokenizer = gemma_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in GEMMA_IMAGE_TOKENS.items()}
    config = Gemma3Config(
        text_config={
            "vocab_size": 262_208,
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 1024,
            "max_position_embeddings": 131_072,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 896,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=256,
        image_token_index=ids["image_token"],
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 896, "width": 896}),
        tokenizer=tokenizer,
        image_seq_length=256,
        chat_template=tokenizer.chat_template,
    )
    return Gemma3ForConditionalGeneration, config, processor


def _qwen_2_5_vl_7b() -> Built:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    from hpsearch.train.tiny.tokenizers import qwen_tokenizer

    tokenizer = qwen_tokenizer()
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128_000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "out_hidden_size": 3584,
            "num_heads": 16,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
        tie_word_embeddings=False,
    )
    pixels = {"shortest_edge": 56**2, "longest_edge": 1280 * 28**2}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        chat_template=tokenizer.chat_template,
    )
    return Qwen2_5_VLForConditionalGeneration, config, processor


def _qwen_2_5_half_b() -> Built:
    from transformers import Qwen2ForCausalLM

    return Qwen2ForCausalLM, *half_a_billion()


GEMMA3_4B = Shape("Gemma-3-4B", "vlm-sft", _gemma3_4b, "tiny:gemma3", image_size=896, words=10)
QWEN_2_5_VL_7B = Shape("Qwen2.5-VL-7B", "vlm-sft", _qwen_2_5_vl_7b, "tiny:qwen2.5-vl", image_size=448, words=10)
QWEN_2_5_HALF_B = Shape("Qwen2.5-0.5B", "text-sft", _qwen_2_5_half_b, "tiny:qwen2", image_size=None, words=100)
SHAPES = (GEMMA3_4B, QWEN_2_5_HALF_B, QWEN_2_5_VL_7B)
"""The one that takes longest to build is the last: time may run out."""
