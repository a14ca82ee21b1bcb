"""Evaluation: the base model and the tuned one on the same held-out rows."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel

from hpsearch.jobs import EvaluatedRow, EvaluationConfig, EvaluationResult, ModelScore
from hpsearch.train.bases import Base, Bases, compute_dtype
from hpsearch.train.channel import Channel
from hpsearch.train.encoding import Encoder, Row
from hpsearch.train.generate import answers
from hpsearch.train.loss import mean_token_loss
from hpsearch.train.tasks import TASKS


def evaluate(config: EvaluationConfig, bases: Bases, channel: Channel) -> EvaluationResult:
    task = TASKS[config.task]
    base = bases.get(task, config.model)
    encoder = Encoder(base.fresh_processor(), config.rows, has_images=task.has_images)
    rows: list[Row] = list(Dataset.load_from_disk(str(config.test_rows)))
    untuned = _score("base", base.fresh_model(), base, encoder, rows, config, channel)
    tuned_model = PeftModel.from_pretrained(base.fresh_model(), str(config.adapter))
    tuned = _score("tuned", tuned_model, base, encoder, rows, config, channel)
    return EvaluationResult(
        base=untuned[0],
        tuned=tuned[0],
        rows=[
            EvaluatedRow(
                id=row["id"],
                question=_question(row),
                reference=_reference(row),
                base_answer=base_answer,
                tuned_answer=tuned_answer,
            )
            for row, base_answer, tuned_answer in zip(rows, untuned[1], tuned[1], strict=True)
        ],
    )


def _score(
    name: str,
    model: Any,
    base: Base,
    encoder: Encoder,
    rows: list[Row],
    config: EvaluationConfig,
    channel: Channel,
) -> tuple[ModelScore, list[str]]:
    model.eval()
    dtype = compute_dtype(base.spec)
    size = config.batch_size

    def batches() -> Any:
        for start in range(0, len(rows), size):
            channel.tell(f"loss of the {name} model", start, len(rows))
            yield encoder.collate(rows[start : start + size])

    loss = mean_token_loss(model, batches(), dtype)
    said = []
    for answer in answers(model, encoder, rows, size, config.max_new_tokens, dtype):
        said.append(answer)
        if len(said) % size == 0:
            channel.tell(f"answers of the {name} model", len(said), len(rows))
    matches = sum(answer == _reference(row) for answer, row in zip(said, rows, strict=True))
    del model
    torch.cuda.empty_cache()
    return ModelScore(loss=loss, exact_match=matches / len(rows)), said


def _question(row: Row) -> str:
    return str(row["messages"][-2]["content"])


def _reference(row: Row) -> str:
    return str(row["messages"][-1]["content"]).strip()
