"""Rows of prompt and completion have the tokens that stock SFTTrainer gives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from transformers import LlamaTokenizer
from trl import SFTConfig, SFTTrainer

from hpsearch.train.encoding import IGNORED, Encoder
from hpsearch.train.tiny.tokenizers import gemma_tokenizer, qwen_tokenizer
from tests.integration.conftest import ROWS

RAW = ROWS.model_copy(update={"row_format": "prompt-completion"})
ROWS_OF_TEXT = [("Q: why?\nA:", " because"), ("Say it:\n", "data"), ("The number", " of data<|im_end|>"), ("1 +", "")]


def llama_tokenizer() -> LlamaTokenizer:
    """Begins each text with `<bos>` and a space, on Gemma's vocabulary."""
    learned = json.loads(gemma_tokenizer()._tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return LlamaTokenizer(vocab=learned["vocab"], merges=merges, add_bos_token=True, **names)


TOKENIZERS: dict[str, tuple[Callable[[], Any], bool]] = {
    "gemma": (gemma_tokenizer, True),
    "llama": (llama_tokenizer, True),
    "qwen": (qwen_tokenizer, False),
}


def row(prompt: str, completion: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]}


def of_stock_trl(tokenizer: Any, rows: list[dict[str, str]] | None = None) -> list[tuple[list[int], list[int]]]:
    """(tokens, labels) as `SFTTrainer` prepares the rows for itself."""
    pairs = [{"prompt": prompt, "completion": completion} for prompt, completion in ROWS_OF_TEXT]
    table = Dataset.from_list(rows or pairs)
    trainer: Any = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=True)
    arguments = SFTConfig(output_dir="unused", max_length=None, use_cpu=True, bf16=False)
    found = SFTTrainer._prepare_dataset(trainer, table, tokenizer, arguments, False, None, "train")
    return [(row["input_ids"], row.get("labels", row["input_ids"])) for row in found]


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_tokens_and_labels_are_those_of_stock_trl(name: str) -> None:
    build, has_beginning = TOKENIZERS[name]
    tokenizer = build()
    encoder = Encoder(tokenizer, RAW, has_images=False)
    for (prompt, completion), (ids, labels) in zip(ROWS_OF_TEXT, of_stock_trl(tokenizer), strict=True):
        encoded = encoder.encode(row(prompt, completion))
        assert encoded.tokens["input_ids"].tolist() == ids
        assert encoded.labels.tolist() == labels
        assert (ids[0] == tokenizer.bos_token_id) == has_beginning
        assert encoded.labels[0] == IGNORED
        assert encoder.num_tokens(row(prompt, completion)) == len(ids)
        asked = encoder.encode(row(prompt, completion)).prompt().tokens["input_ids"].tolist()
        assert asked == ids[: len(asked)], "generation is given what was trained on"


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_all_of_a_plain_text_is_learned_as_by_stock_trl(name: str) -> None:
    """Except the label of the very first token, which nothing can predict: a loss never uses it."""
    tokenizer = TOKENIZERS[name][0]()
    encoder = Encoder(tokenizer, RAW.model_copy(update={"row_format": "text"}), has_images=False)
    texts = ["The number of data", "Two lines\nof it<|im_end|>", " a"]
    for text, (ids, labels) in zip(texts, of_stock_trl(tokenizer, [{"text": text} for text in texts]), strict=True):
        encoded = encoder.encode(row("", text))
        assert encoded.tokens["input_ids"].tolist() == ids
        assert encoded.labels.tolist()[1:] == labels[1:]
        assert encoder.num_tokens(row("", text)) == len(ids)


def test_a_token_across_the_border_does_not_change_the_prompt() -> None:
    """Stock trl warns, and trains on another prompt than generation is given."""
    encoder = Encoder(qwen_tokenizer(), RAW, has_images=False)
    asked = encoder.encode(row("The dat", "")).prompt().tokens["input_ids"].tolist()
    encoded = encoder.encode(row("The dat", "a"))
    assert encoded.tokens["input_ids"].tolist() != encoder.tokenizer("The data<|im_end|>")["input_ids"]
    assert encoded.tokens["input_ids"].tolist()[: len(asked)] == asked
    assert encoder.tokenizer.decode(encoded.labels[len(asked) :]) == "a<|im_end|>"


def test_a_chat_template_that_writes_bos_gets_no_second_one() -> None:
    encoder = Encoder(gemma_tokenizer(), ROWS, has_images=False)
    ids = encoder.encode(row("Why?", "Because")).tokens["input_ids"].tolist()
    assert ids.count(encoder.tokenizer.bos_token_id) == 1
