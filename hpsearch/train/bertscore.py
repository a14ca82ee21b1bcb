"""BERTScore (Zhang et al. 2020, https://arxiv.org/abs/1904.09675), with the model that the study names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpsearch.errors import FieldError
from hpsearch.files import write_text
from hpsearch.jobs import AnsweredRow


def add_bertscore(file: Path, model: str) -> None:
    """Adds its F1 to every answered row of a variant.

    Raises:
        FieldError: bert-score is not installed, or has no such model.
    """
    try:
        from bert_score import BERTScorer
    except ImportError:
        raise FieldError(
            "evaluation.bertscore_model", "BERTScore is an extra: pip install 'hpsearch[bertscore]'"
        ) from None
    rows = [AnsweredRow.model_validate_json(line) for line in file.read_text().split("\n") if line]
    try:
        scorer = BERTScorer(model_type=model, num_layers=_num_layers(model), rescale_with_baseline=False)
    except (OSError, ValueError) as error:
        raise FieldError("evaluation.bertscore_model", f"{model!r} can't be loaded: {error}") from error
    _limit_length(scorer)
    asked = [row for row in rows if _has_words(row)]
    found: dict[str, float] = {}
    if asked:
        _, _, f1 = scorer.score([row.prediction for row in asked], [row.reference for row in asked])
        found = {row.id: float(value) for row, value in zip(asked, f1, strict=True)}
    scored = [row.model_copy(update={"numbers": row.numbers | {"bertscore": found.get(row.id, 0.0)}}) for row in rows]
    write_text(file, "".join(row.model_dump_json() + "\n" for row in scored))


def _has_words(row: AnsweredRow) -> bool:
    """An empty text scores 0, as in bert-score; but with transformers 5 bert-score crashes on it (0.3.13, utils.py,
    `sent_encode` calls `build_inputs_with_special_tokens`).
    """
    return bool(row.prediction.strip() and (row.reference or "").strip())


def _limit_length(scorer: Any) -> None:
    """Truncates texts at the model's number of positions.

    bert-score truncates at the tokenizer's `model_max_length`, which is 10^30 for a tokenizer without a limit, and the
    Rust tokenizers accept no such number (bert-score 0.3.13, utils.py, `sent_encode`;
    https://github.com/Tiiiger/bert_score/issues/205).
    """
    tokenizer, config = scorer._tokenizer, scorer._model.config
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.max_position_embeddings)


def _num_layers(model: str) -> int:
    """The layer that bert-score selected for a known model, else the one at three quarters of the depth."""
    from bert_score.utils import model2layers
    from transformers import AutoConfig

    known: dict[str, int] = model2layers
    return known.get(model) or max(1, round(0.75 * AutoConfig.from_pretrained(model).num_hidden_layers))
