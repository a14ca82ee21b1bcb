"""Inspection: checking a study's rows and base models, and counting tokens, before any trial is started."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import init_empty_weights
from datasets import Dataset

from hpsearch.data.prepared import images_of
from hpsearch.errors import FieldError
from hpsearch.jobs import Example, InspectionConfig, InspectionResult, TokenPiece
from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.train.adapters import attach, linear_names
from hpsearch.train.bases import HubUnreachable, load_config, load_processor
from hpsearch.train.channel import Channel
from hpsearch.train.counting import Count, CountRow, count_rows, kept_counts
from hpsearch.train.encoding import IGNORED, Encoder, Row, with_rejected
from hpsearch.train.own_metrics import loaded
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.task import Method
from hpsearch.train.validation import reference
from hpsearch.trial import AnswersConfig, MetricsFile

_ROWS_TO_TRY = 20


def inspect(config: InspectionConfig, channel: Channel) -> InspectionResult:
    """Token counts for every base, the layers that adapters may target, and a few examples."""
    rows = Dataset.load_from_disk(str(config.candidate_rows))
    tokens, shown = [0] * len(rows), [0] * len(rows)
    linear: dict[str, list[str]] = {}
    examples: list[Example] = []
    try:
        for model in config.models:
            task = TASKS[config.task]
            channel.tell(f"loading the processor of {model.base}", 0, 0)
            base_config = load_config(model, channel.tell)
            processor = load_processor(task, model, channel.tell)
            linear[model.base] = _linear_layers(task.model_class, model, base_config)
            encoder = Encoder(processor, config.rows, has_images=task.has_images)
            method = task.method(encoder, AnswersConfig(), None)
            count = _counting(method, encoder, counts_shown=config.counts_shown)
            kept = kept_counts(config, processor)
            for position, (alone, added) in enumerate(count_rows(rows, count, kept, channel.tell)):
                tokens[position] = max(tokens[position], alone)
                shown[position] = max(shown[position], added)
            examples = examples or [_example(encoder, rows[i]) for i in range(config.num_examples)]
        _try_metrics(rows, config.metrics_file, channel)
    except HubUnreachable as error:
        return InspectionResult(unreachable=error.message)
    except FieldError as error:
        return InspectionResult(mistake=(error.key, error.message))
    return InspectionResult(num_tokens=tokens, num_shown=shown, linear_layers=linear, examples=examples)


def _counting(method: Method, encoder: Encoder, *, counts_shown: bool) -> CountRow:
    def count(row: Row) -> Count:
        alone = method.num_tokens(row)
        return alone, encoder.num_tokens(_before_itself(row)) - alone if counts_shown else 0

    return count


def _before_itself(row: Row) -> Row:
    return row | {"examples": [turn for turn in row["messages"] if turn["role"] != "system"]}


def _try_metrics(rows: Dataset, file: MetricsFile | None, channel: Channel) -> None:
    """On a few rows, with the correct answer and with an empty one.

    Raises:
        MetricFailed: with the row.
    """
    with loaded(file) as metrics:
        for name, metric in metrics.items():
            channel.tell(f"trying {name}", 0, 0)
            for row in rows.select(range(min(_ROWS_TO_TRY, len(rows)))):
                for prediction in (reference(row), ""):
                    metric.of(row["id"], reference(row), prediction)


def _linear_layers(model_class: Any, spec: ModelSpec, config: Any) -> list[str]:
    """Names of the linear layers, from the base's configuration only: no weights are loaded.

    Raises:
        FieldError: the base is of another kind, or the adapter that the study continues from does not fit it.
    """
    try:
        with init_empty_weights():
            model = model_class.from_config(config, trust_remote_code=spec.trust_remote_code)
    except ValueError:
        kind = "takes images" if "Image" in model_class.__name__ else "is a language model"
        message = f"{spec.base!r} is a {config.model_type} model, none that {kind}: choose another base or task"
        raise FieldError("model.base", message) from None
    names = linear_names(model, vision=True)
    if spec.adapter is not None:
        attach(model, LoraSpec(), spec)
    return names


def _example(encoder: Encoder, row: Row) -> Example:
    other = with_rejected(row)
    return Example(
        id=row["id"],
        images=[str(image.path) for image in images_of(row)] if encoder.has_images else [],
        pieces=_pieces(encoder, row),
        rejected=_pieces(encoder, other) if other else [],
        desirable=row.get("desirable"),
    )


def _pieces(encoder: Encoder, row: Row) -> list[TokenPiece]:
    encoded = encoder.encode(row)
    ids = encoded.tokens["input_ids"]
    pieces: list[TokenPiece] = []
    for start, end in _runs(encoded.labels != IGNORED, torch.isin(ids, torch.tensor(sorted(encoder.image_token_ids)))):
        pieces.append(
            TokenPiece(
                text=encoder.tokenizer.decode(ids[start:end]),
                num_tokens=end - start,
                is_learned=bool(encoded.labels[start] != IGNORED),
                is_image=int(ids[start]) in encoder.image_token_ids,
            )
        )
    return pieces


def _runs(learned: torch.Tensor, image: torch.Tensor) -> list[tuple[int, int]]:
    """Spans of tokens with the same values of both flags."""
    kinds = (2 * learned + image).tolist()
    starts = [i for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    return list(zip(starts, [*starts[1:], len(kinds)], strict=True))
