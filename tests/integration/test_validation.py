"""Validation rows are encoded once, asked in batches with little padding, and in smaller ones where memory runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.folders import JobFolder
from hpsearch.jobs import EvaluationConfig, Variant
from hpsearch.spec.model import ModelSpec
from hpsearch.train import validation as validation_room
from hpsearch.train.bases import Base
from hpsearch.train.encoding import IGNORED, Encoded, Encoder
from hpsearch.train.evaluation import evaluate
from hpsearch.train.steps import MicroBatch
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.generation import Generation
from hpsearch.train.tasks.task import Answer, mean_loss
from hpsearch.train.validation import Validation
from hpsearch.trial import AnswersConfig
from tests.integration.conftest import ROWS
from tests.integration.inside import Answering, Inside

WORDS = [3, 9, 1, 7, 5, 2, 8, 4]
"""Of the rows' questions: no two have the same length, and neighbours are unlike."""


@pytest.fixture(scope="module")
def base(inside: Inside) -> Base:
    return inside.bases.get(TASKS["text-sft"], ModelSpec(base="tiny:qwen2"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = [
        Row(
            id=str(number),
            messages=[
                {"role": "user", "content": " ".join(["why?"] * words)},
                {"role": "assistant", "content": f"so {number}"},
            ],
            images=(),
            group=None,
            label=None,
            split=None,
        )
        for number, words in enumerate(WORDS)
    ]
    place = tmp_path_factory.mktemp("rows") / "rows"
    write_rows(written, place)
    return place


class Watched(Generation):
    """Notes what is encoded, and the lengths of the rows of each batch; runs out of memory above `most` rows."""

    most = 1000

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder, AnswersConfig(max_new_tokens=4), None)
        self.encoded: list[Any] = []
        self.batches: list[list[int]] = []

    def encode(self, row: Any) -> Encoded:
        self.encoded.append(row["id"])
        return super().encode(row)

    def losses(self, model: Any, rows: list[Encoded], dtype: torch.dtype) -> Any:
        self.batches.append([len(row) for row in rows])
        if len(rows) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().losses(model, rows, dtype)


def watched(base: Base, most: int = 1000) -> Watched:
    method = Watched(Encoder(base.fresh_processor(), ROWS, has_images=False))
    method.most = most
    return method


def validation_of(rows: Path, method: Generation, size: int, metrics: list[str]) -> Validation:
    return Validation(Dataset.load_from_disk(str(rows)), MicroBatch(size), method, torch.float32, metrics)


def test_rows_are_encoded_once_and_those_of_a_batch_are_of_like_length(base: Base, rows: Path) -> None:
    method, model = watched(base), base.fresh_model()
    validation = validation_of(rows, method, 3, [])
    first = validation.of(model)
    assert validation.of(model) == first, "bit for bit"
    assert sorted(method.encoded) == sorted(map(str, range(len(WORDS))))
    assert [len(batch) for batch in method.batches] == [3, 3, 2] * 2
    lengths = [length for batch in method.batches[:3] for length in batch]
    assert lengths == sorted(lengths, reverse=True)


class Knowing(Watched):
    """Says what each row teaches."""

    def answers(self, _: Any, rows: list[Encoded], *__: Any, **___: Any) -> list[Answer]:
        decode = self._encoder.tokenizer.decode
        return [Answer(decode(row.labels[row.labels != IGNORED], skip_special_tokens=True)) for row in rows]


def test_what_is_said_is_compared_with_its_own_row_s_reference(base: Base, rows: Path) -> None:
    method, model = Knowing(Encoder(base.fresh_processor(), ROWS, has_images=False)), base.fresh_model().eval()
    values = validation_of(rows, method, 3, ["exact_match"]).of(model)
    alone = [method.losses(model, [method.encode(row)], torch.float32)[0] for row in Dataset.load_from_disk(str(rows))]
    assert values == {"exact_match": 1.0, "loss": pytest.approx(mean_loss(alone), rel=1e-5)}


class Counting(Knowing):
    """Gives each row a number besides: its length."""

    def answers(self, _: Any, rows: list[Encoded], *__: Any, **___: Any) -> list[Answer]:
        return [Answer("", numbers={"length": float(len(row))}) for row in rows]


def test_numbers_that_no_text_tells_are_averaged_over_the_rows(base: Base, rows: Path) -> None:
    method, model = Counting(Encoder(base.fresh_processor(), ROWS, has_images=False)), base.fresh_model()
    values = validation_of(rows, method, 3, ["exact_match", "length"]).of(model)
    lengths = [len(method.encode(row)) for row in Dataset.load_from_disk(str(rows))]
    assert values is not None
    assert (values["exact_match"], values["length"]) == (0.0, sum(lengths) / len(lengths))


def test_no_more_rows_are_kept_than_there_is_room_for(base: Base, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, model = watched(base), base.fresh_model()
    room = 3.5 * (method.encode(Dataset.load_from_disk(str(rows))[1]).num_bytes + validation_room._ROW_BYTES)
    monkeypatch.setattr(validation_room, "KEPT_BYTES", room)
    method.encoded.clear()
    validation = validation_of(rows, method, 3, [])
    assert validation.of(model) == validation.of(model)
    assert len(method.encoded) == len(WORDS) + len(WORDS) - 3


def test_a_batch_that_does_not_fit_is_done_again_in_halves(base: Base, rows: Path) -> None:
    small, model = watched(base, most=2), base.fresh_model()
    validation = validation_of(rows, small, 8, [])
    values = validation.of(model)
    assert [len(batch) for batch in small.batches] == [8, 4, 2, 2, 2, 2]
    assert (validation.batch.size, validation.batch.halvings) == (2, [8, 4])
    assert values == validation_of(rows, watched(base), 2, []).of(model), "as if it had begun with them"
    validation.of(model)
    assert [len(batch) for batch in small.batches[6:]] == [2, 2, 2, 2], "it is not tried again"
    with pytest.raises(torch.OutOfMemoryError):
        validation_of(rows, watched(base, most=0), 8, []).of(model)


def test_an_evaluation_s_batch_too(
    rows: Path, inside: Inside, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[int] = []
    measure = Generation.measure

    def small(method: Generation, model: Any, part: list[Encoded], dtype: torch.dtype) -> Any:
        met.append(len(part))
        if len(part) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return measure(method, model, part, dtype)

    monkeypatch.setattr(Generation, "measure", small)
    job = EvaluationConfig(
        task="text-sft",
        model=base.spec,
        adapter=tmp_path,
        rows=ROWS,
        answers=AnswersConfig(max_new_tokens=2),
        variants=[Variant(model="base")],
        test_rows=rows,
        batch_size="auto",
        rules=2,
    )
    folder = JobFolder(tmp_path / "evaluation")
    folder.prepare(job)
    evaluate(job, folder, inside.bases, Answering())
    assert met == [8, 4, 2, 2, 2, 2]
    answered = folder.answers("base").read_text().splitlines()
    assert [f'"id":"{number}"' in line for number, line in enumerate(answered)] == [True] * len(WORDS)
