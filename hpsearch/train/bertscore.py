"""BERTScore (Zhang et al. 2020, https://arxiv.org/abs/1904.09675), with the model that the study names."""

from __future__ import annotations

from pathlib import Path

from hpsearch.errors import FieldError
from hpsearch.folders import write_text
from hpsearch.jobs import AnsweredRow


def add_bertscore(file: Path, model: str) -> None:
    """Adds its F1 to every answered row of a cell.

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
    _, _, f1 = scorer.score([row.prediction for row in rows], [row.reference or "" for row in rows])
    scored = [row.model_copy(update={"bertscore": float(value)}) for row, value in zip(rows, f1, strict=True)]
    write_text(file, "".join(row.model_dump_json() + "\n" for row in scored))


def _num_layers(model: str) -> int:
    """The layer that bert-score tuned for a model that it knows, else three quarters of the way up."""
    from bert_score.utils import model2layers
    from transformers import AutoConfig

    known: dict[str, int] = model2layers
    return known.get(model) or max(1, round(0.75 * AutoConfig.from_pretrained(model).num_hidden_layers))
