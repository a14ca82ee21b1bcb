"""The other jobs of the training plane: looking at rows and bases, evaluating, trying out the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from hpsearch.spec.model import ModelSpec
from hpsearch.spec.study import Task
from hpsearch.trial import Record, RowsConfig, TrialConfig


class InspectionConfig(Record):
    """Looks at rows and a base model before a study starts: token counts, layers, examples."""

    job: Literal["inspect"] = "inspect"
    task: Task
    models: list[ModelSpec]
    rows: RowsConfig
    candidate_rows: Path
    num_examples: int = 0


class EvaluationConfig(Record):
    """Loss and exact match of a base model, and of the same base with an adapter, on the same rows."""

    job: Literal["evaluate"] = "evaluate"
    task: Task
    model: ModelSpec
    adapter: Path
    rows: RowsConfig
    test_rows: Path
    batch_size: int
    max_new_tokens: int


class DiagnosisConfig(Record):
    """Tries out what training needs on this machine."""

    job: Literal["diagnose"] = "diagnose"


class TokenPiece(Record):
    """Neighbouring tokens that are treated alike."""

    text: str
    num_tokens: int
    is_learned: bool
    is_image: bool


class Example(Record):
    """One row as the model will see it."""

    id: str
    image: str | None
    pieces: list[TokenPiece]


class InspectionResult(Record):
    num_tokens: list[int] = Field([], description="per candidate row, the largest over all bases")
    linear_layers: dict[str, list[str]] = Field({}, description="base → names that target_modules may hold")
    examples: list[Example] = Field([])
    mistake: tuple[str, str] | None = Field(None, description="(field, what is wrong with it)")


class ModelScore(Record):
    """`loss` in nats per learned token, `exact_match` a share from 0 to 1."""

    loss: float
    exact_match: float


class EvaluatedRow(Record):
    id: str
    question: str
    reference: str
    base_answer: str
    tuned_answer: str


class EvaluationResult(Record):
    base: ModelScore
    tuned: ModelScore
    rows: list[EvaluatedRow]


class Check(Record):
    """One thing that was tried: how it went, what was found, and what to do where it didn't go well."""

    name: str
    verdict: Literal["works", "limited", "fails"]
    found: str
    mend: str | None = None


class DiagnosisResult(Record):
    checks: list[Check]


class JobFailure(Record):
    """A job other than a training run failed."""

    failed: Literal[True] = True
    reason: str
    traceback: str


Job = Annotated[TrialConfig | InspectionConfig | EvaluationConfig | DiagnosisConfig, Field(discriminator="job")]
JOB: TypeAdapter[Job] = TypeAdapter(Job)
"""Reads the config of whatever job a folder holds."""
