"""Small vocabularies in the real tokenizer classes, with the real special tokens and turn formats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GemmaTokenizer, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

VOCABULARY_SIZE = 1024

GEMMA_IMAGE_TOKENS = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
_GEMMA_SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
_QWEN_SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

_CONTENT = """\
{%- macro content(message) -%}
{%- if message.content is string -%}{{ message.content | trim }}
{%- else -%}{%- for part in message.content -%}
{%- if part.type == 'image' -%}IMAGE{%- elif part.type == 'text' -%}{{ part.text | trim }}{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- endmacro -%}
"""

GEMMA_TEMPLATE = (
    _CONTENT.replace("IMAGE", "<start_of_image>")
    + """\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set ns.system = content(message) + '\\n\\n' -%}
{%- else -%}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' -}}
{%- if message.role == 'user' -%}{{- ns.system -}}{%- set ns.system = '' -%}{%- endif -%}
{{- content(message) + '<end_of_turn>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""
)

QWEN_TEMPLATE = (
    _CONTENT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    + """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + content(message) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""
)


def prose() -> Iterable[str]:
    """English text that is on every machine: scikit-learn's descriptions of its data sets."""
    for load in (load_breast_cancer, load_digits, load_wine, load_iris, load_diabetes):
        yield " ".join(line.strip() for line in load().DESCR.splitlines() if not set(line) <= set("=- :"))


def _learn_vocabulary(tokenizer: Tokenizer, special: list[str], alphabet: list[str]) -> dict[str, Any]:
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - 16,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(prose(), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    return {"vocab": learned["vocab"], "merges": [tuple(merge) for merge in learned["merges"]]}


def gemma_tokenizer() -> GemmaTokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Digits(individual_digits=True)]
    )
    special = [*_GEMMA_SPECIAL, *GEMMA_IMAGE_TOKENS.values(), *(f"<0x{byte:02X}>" for byte in range(256))]
    learned = _learn_vocabulary(tokenizer, special, [])
    gemma = GemmaTokenizer(**learned, extra_special_tokens=GEMMA_IMAGE_TOKENS, chat_template=GEMMA_TEMPLATE)
    gemma.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    assert gemma._tokenizer is not None
    gemma._tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", gemma.bos_token_id)]
    )
    return gemma


def qwen_tokenizer() -> Qwen2Tokenizer:
    from tokenizers import Regex

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learned = _learn_vocabulary(tokenizer, _QWEN_SPECIAL, pre_tokenizers.ByteLevel.alphabet())
    return Qwen2Tokenizer(
        **learned,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=_QWEN_SPECIAL,
        chat_template=QWEN_TEMPLATE,
    )
