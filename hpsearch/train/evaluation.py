"""Evaluation and prediction: the base model and the tuned one answer the same rows, under each prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from hpsearch.data.prepared import images_of
from hpsearch.folders import JobFolder
from hpsearch.jobs import AnsweredRow, EvaluationConfig, EvaluationResult, Variant
from hpsearch.spec.evaluation import PromptsSpec
from hpsearch.spec.metrics import TEXT_LOSS
from hpsearch.spec.rows import FORMATS, PLACEHOLDER
from hpsearch.train.adapters import reopen
from hpsearch.train.bases import Bases, compute_dtype, load_processor
from hpsearch.train.channel import Channel
from hpsearch.train.encoding import Encoded, Row
from hpsearch.train.features import make_encoder
from hpsearch.train.own_metrics import add_own_metrics
from hpsearch.train.steps import ROWS_WITHOUT_GRADIENTS, MicroBatch, chosen, in_parts
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.task import Answer, Method, RowLoss
from hpsearch.train.validation import reference


def evaluate(config: EvaluationConfig, folder: JobFolder, bases: Bases, channel: Channel) -> EvaluationResult:
    """Writes each variant's answers to `folder`; existing answers are kept, and if all exist, no model is loaded."""
    task = TASKS[config.task]
    rows: list[Row] = list(Dataset.load_from_disk(str(config.test_rows)))
    unanswered = [variant for variant in config.variants if _whole_lines(folder.answers(variant.name)) < len(rows)]
    for kind in ("base", "tuned"):
        variants = [variant for variant in unanswered if variant.model == kind]
        if not variants:
            continue
        base = bases.get(task, config.model)
        channel.tell(f"preparing the {kind} model", 0, 0)
        fresh = base.fresh_model()
        # Without references nothing is compared with the model that training continued from, which may be missing.
        spec = config.model if config.has_references else config.model.without_adapter
        model = reopen(fresh, config.adapter, spec) if kind == "tuned" else fresh
        encoder = make_encoder(base, model, config.rows, config.images, has_images=task.has_images)
        method = task.method(encoder, config.answers, None)
        if kind == "tuned":
            method.extend(model)
            method.load(model, config.adapter)
        model.eval()
        for variant in variants:
            _write_answers(variant, model, method, rows, config, folder.answers(variant.name), channel)
        del model, fresh, encoder, method
        torch.cuda.empty_cache()
    if config.bertscore_model:
        from hpsearch.train.bertscore import add_bertscore

        for variant in config.variants:
            channel.tell(f"BERTScore of {variant.name}", 0, 0)
            add_bertscore(folder.answers(variant.name), config.bertscore_model)
    notes: list[str] = []
    if config.metrics_file and config.has_references:
        files = {variant.name: folder.answers(variant.name) for variant in config.variants}
        notes = add_own_metrics(files, config.metrics_file, channel)
    too_long = 0
    if config.has_references and FORMATS[config.rows.row_format].has_answers:
        channel.tell("measuring the references", 0, 0)
        too_long = _num_too_long(load_processor(task, config.model, channel.tell), rows, config)
    return EvaluationResult(num_rows=len(rows), longer_than_limit=too_long, notes=notes)


def _write_answers(
    variant: Variant,
    model: Any,
    method: Method,
    rows: list[Row],
    config: EvaluationConfig,
    file: Path,
    channel: Channel,
) -> None:
    done = _whole_lines(file)
    dtype = compute_dtype(config.model)
    batch = MicroBatch(chosen(config.batch_size, ROWS_WITHOUT_GRADIENTS))

    def answered(part: list[Row]) -> list[AnsweredRow]:
        asked = [method.encode(prompted(row, variant.prompt, config.prompts)) for row in part]
        return list(_answer_batch(variant, model, method, part, asked, config, dtype))

    channel.tell(f"answers: {variant.name}", done, len(rows))
    with file.open("a") as answers:
        for part, found in in_parts(rows[done:], batch, answered):
            answers.writelines(row.model_dump_json() + "\n" for row in found)
            answers.flush()
            done += len(part)
            channel.tell(f"answers: {variant.name}", done, len(rows))


def _answer_batch(
    variant: Variant,
    model: Any,
    method: Method,
    rows: list[Row],
    asked: list[Encoded],
    config: EvaluationConfig,
    dtype: torch.dtype,
) -> Iterator[AnsweredRow]:
    is_tuned = variant.model == "tuned"
    losses: Sequence[RowLoss | None] = [None] * len(rows)
    has_references = config.has_references
    # A method with its own loss can't compute it without what it trained.
    if has_references and not FORMATS[config.rows.row_format].has_answers:
        losses = method.losses(model, asked, dtype)
        said = [Answer("", numbers={TEXT_LOSS.name: loss.total / max(1, loss.num_tokens)}) for loss in losses]
    elif has_references and (is_tuned or not method.has_own_loss):
        losses, said = method.measure(model, asked, dtype)
    else:
        said = method.answers(model, asked, dtype, is_tuned=is_tuned)
    for row, answer, loss in zip(rows, said, losses, strict=True):
        yield AnsweredRow(
            id=row["id"],
            question=str(row["messages"][-2]["content"]),
            images=[str(image.path) for image in images_of(row)],
            reference=reference(row) if has_references else None,
            rejected=row.get("rejected") if has_references else None,
            prediction=answer.text,
            loss=loss.total / max(1, loss.num_tokens) if loss else None,
            num_tokens=loss.num_tokens if loss else 0,
            is_cut=answer.is_cut,
            numbers=answer.numbers,
        )


def _whole_lines(file: Path) -> int:
    """The number of rows answered before; removes an incomplete last line from a kill."""
    if not file.exists():
        return 0
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        file.write_bytes(whole)
    return whole.count(b"\n")


def prompted(row: Row, prompt: str, prompts: PromptsSpec) -> Row:
    """The row with a system prompt before its messages; keywords are searched in its last question."""
    words = prompts.static if prompt == "static" else None
    if prompt == "adaptive":
        question = str(row["messages"][-2]["content"]).replace(PLACEHOLDER, " ")
        found = [entry.prompt for entry in prompts.adaptive if _holds(question, entry.keywords)]
        words = "\n".join(dict.fromkeys(found))
    if not words:
        return row
    return {**row, "messages": [{"role": "system", "content": words}, *row["messages"]]}


def _holds(question: str, keywords: list[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", question, re.IGNORECASE) for word in keywords)


def _num_too_long(processor: Any, rows: list[Row], config: EvaluationConfig) -> int:
    tokenizer = getattr(processor, "tokenizer", processor)
    lengths = tokenizer([reference(row) for row in rows], add_special_tokens=False)["input_ids"]
    return sum(len(tokens) > config.answers.max_new_tokens for tokens in lengths)
