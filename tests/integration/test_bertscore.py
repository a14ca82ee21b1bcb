"""BERTScore with a model of random weights: its numbers mean nothing, but equal texts are equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bert_score import BERTScorer
from transformers import BertConfig, BertModel, BertTokenizerFast

from hpsearch.errors import FieldError
from hpsearch.jobs import AnsweredRow
from hpsearch.train.bertscore import add_bertscore

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "polyp", "cell", "is", "red", "no"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


def written(file: Path, pairs: list[tuple[str, str]]) -> Path:
    rows = [
        AnsweredRow(
            id=str(i), question="?", reference=reference, prediction=prediction, loss=None, num_tokens=0, is_cut=False
        )
        for i, (reference, prediction) in enumerate(pairs)
    ]
    file.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return file


def test_equal_texts_have_1_others_less_and_empty_ones_0(bert: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "tuned.jsonl", [("a red cell", "a red cell"), ("the polyp is red", "no"), ("no", "")])
    add_bertscore(file, str(bert))
    lines = file.read_text().splitlines()
    equal, other, empty = (AnsweredRow.model_validate_json(line).numbers["bertscore"] for line in lines)
    assert equal == pytest.approx(1.0, abs=1e-5)
    assert other < 0.999
    assert empty == 0.0


def test_a_model_that_is_not_there_is_reported(tmp_path: Path) -> None:
    file = written(tmp_path / "tuned.jsonl", [("a", "a")])
    with pytest.raises(FieldError, match="can't be loaded"):
        add_bertscore(file, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("text", "error"), [("a red cell", OverflowError), ("", AttributeError)], ids=["no length", "an empty text"]
)
def test_bert_score_still_needs_help_with_transformers_5(bert: Path, text: str, error: type[Exception]) -> None:
    """When this fails, `_limit_length` or `_has_words` is no longer needed."""
    scorer = BERTScorer(model_type=str(bert), num_layers=3)
    with pytest.raises(error):
        scorer.score([text], [text])
