"""What a task says: what a model learns to do with a row, how that is measured, and in which stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from hpsearch.spec.tasks import TASKS, TaskFacts
from hpsearch.train.encoding import Batch, Encoded, Encoder, Row
from hpsearch.trial import AnswersConfig, TrialConfig


@dataclass(frozen=True)
class RowLoss:
    """Nats, summed over the `num_tokens` learned tokens of one row."""

    total: float
    num_tokens: int


def mean_loss(losses: list[RowLoss]) -> float:
    """Nats per learned token over all rows together, so that it does not depend on the batch size."""
    return sum(loss.total for loss in losses) / max(1, sum(loss.num_tokens for loss in losses))


@dataclass(frozen=True)
class Answer:
    """A model's answer to a row: a text, or the name of a class."""

    text: str
    is_cut: bool = False
    """It reached the generation limit before it ended."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Metric → the row's number, for metrics that are not computed from texts."""


class Method(Protocol):
    """What a model learns from a row, and how that is measured. One for each run."""

    has_own_loss: bool
    """False: it is trained with the model's own next-token loss. True: with `training_loss`. An evaluation then has
    no loss of the untuned base: it may need what was trained.
    """

    def extend(self, model: Any) -> None:
        """Adds to `model` what is trained besides the adapter."""

    def encode(self, row: Row) -> Encoded:
        """A row as a training example."""

    def num_tokens(self, row: Row) -> int:
        """The length of a row in tokens, without reading its image."""

    def batch(self, rows: list[Encoded]) -> Batch:
        """Rows as one input of the model, with labels."""

    def num_items(self, rows: list[Encoded]) -> int:
        """What the loss of an optimizer step's rows is divided by: learned tokens for the model's own loss, and for
        `training_loss` what that means a mean over, such as rows.
        """

    def shared(self, model: Any, rows: list[Encoded], size: int) -> Batch:
        """What each micro-batch needs besides its rows: what its loss depends on over the whole optimizer step. `size`:
        rows per forward.
        """

    def training_loss(self, model: Any, batch: Batch, num_items: int) -> torch.Tensor:
        """A batch's part of the mean loss over the `num_items` of its optimizer step, where `has_own_loss`."""

    def losses(self, model: Any, rows: list[Encoded], dtype: torch.dtype) -> list[RowLoss]:
        """The loss of each encoded row; `model` is in evaluation mode."""

    def answers(self, model: Any, rows: list[Encoded], dtype: torch.dtype, *, is_tuned: bool) -> list[Answer]:
        """The model's answer to each row."""

    def measure(
        self, model: Any, rows: list[Encoded], dtype: torch.dtype, *, with_texts: bool = True
    ) -> tuple[list[RowLoss], list[Answer]]:
        """`losses` and `answers` of a model with what `extend` adds, in one forward where that gives both.
        `with_texts`: False where only the answers' numbers are needed, not their texts.
        """

    def save(self, model: Any, folder: Path) -> None:
        """Writes what `extend` added."""

    def load(self, model: Any, folder: Path) -> None:
        """Reads what `save` wrote."""


class MethodClass(Protocol):
    """A class of methods: it tells whether they have a loss of their own, and makes one for a run."""

    has_own_loss: bool

    def __call__(self, encoder: Encoder, answers: AnswersConfig, train_rows: Dataset | None) -> Method:
        """`train_rows`: None where nothing is trained."""


@dataclass(frozen=True)
class Stage:
    """A part of a training run: its rows, how often, the learning rate, and whether they are shuffled."""

    name: str
    rows: Dataset
    epochs: float
    learning_rate: float
    is_shuffled: bool = True


def one_stage(config: TrialConfig, rows: Dataset) -> list[Stage]:
    return [Stage("", rows, config.budget.epochs, config.training.learning_rate)]


@dataclass(frozen=True)
class Task:
    """The training plane's part of a task in `spec.tasks`: how it is trained."""

    name: str
    method: MethodClass
    stages: Callable[[TrialConfig, Dataset], list[Stage]] = one_stage

    @property
    def facts(self) -> TaskFacts:
        return TASKS[self.name]

    @property
    def has_images(self) -> bool:
        return self.facts.has_images

    @property
    def model_class(self) -> Any:
        """The transformers auto class whose `from_pretrained` loads the model."""
        return AutoModelForImageTextToText if self.has_images else AutoModelForCausalLM

    @property
    def processor_class(self) -> Any:
        """The auto class for its tokenizer or processor."""
        return AutoProcessor if self.has_images else AutoTokenizer
