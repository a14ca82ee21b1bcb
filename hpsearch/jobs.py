"""The training plane's jobs besides training: inspecting rows and bases, evaluating, exporting, diagnosing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, TypeAdapter, model_validator

from hpsearch.spec.evaluation import PromptName, PromptsSpec
from hpsearch.spec.metrics import METRICS
from hpsearch.spec.model import ModelSpec
from hpsearch.spec.tasks import TaskName
from hpsearch.spec.training import Rows
from hpsearch.trial import AnswersConfig, CacheConfig, MetricsFile, Place, Record, RowsConfig, TrialConfig

_NEED_MODEL = [metric.name for metric in METRICS.values() if metric.needs_model]
Tell = Callable[[str, int, int], None]
"""Progress for a person: what is being done, how many are done, how many there are."""


class InspectionConfig(Record):
    """Looks at rows and a base model before a study starts: token counts, layers, examples."""

    job: Literal["inspect"] = "inspect"
    task: TaskName
    models: list[ModelSpec]
    rows: RowsConfig
    candidate_rows: Place
    num_examples: int = 0
    metrics_file: MetricsFile | None = Field(None, description="tried on a few of the rows")
    counts_shown: bool = Field(False, description="also what each row adds where it is shown before another one")
    counted: Place | None = Field(None, description="cache of token counts; none: no cache")


class Variant(Record):
    """One of the configurations that answer the same rows."""

    model: Literal["base", "tuned"]
    prompt: PromptName = "none"

    @property
    def name(self) -> str:
        return self.model if self.prompt == "none" else f"{self.model}-{self.prompt}"


class EvaluationConfig(Record):
    """Lets a base model, and the same base with an adapter, answer the same rows with each prompt.

    The answers go to one JSONL file per variant in the job's folder, batch by batch; an interrupted job continues where
    it stopped.
    """

    job: Literal["evaluate"] = "evaluate"
    task: TaskName
    model: ModelSpec
    adapter: Place = Field(description="folder of the adapter, and of the head where the task has one")
    rows: RowsConfig
    answers: AnswersConfig
    variants: list[Variant] = Field(validation_alias=AliasChoices("variants", "cells"))
    prompts: PromptsSpec = PromptsSpec()
    test_rows: Place
    batch_size: Rows
    rules: Literal[2, 3] = Field(
        description="how answers come about; 2: they end where they were taught to end; 3, of rows that may have "
        "images: these are seen as people see them. By other ones: generated again"
    )
    images: CacheConfig | None = Field(None, description="as in a training's config")
    has_references: bool = Field(True, description="false: the rows are questions only, there is no loss")
    bertscore_model: str | None = None
    metrics_file: MetricsFile | None = Field(None, description="file with metrics to compute for the answers")


class ExportConfig(Record):
    """Merges the adapter into the unquantized base, in 16 bit, and compares the result with base and adapter."""

    job: Literal["export"] = "export"
    task: TaskName
    model: ModelSpec
    adapter: Place
    rows: RowsConfig
    dtype: Literal["bfloat16", "float16"]
    check_rows: Place = Field(description="the few rows on which both are compared")
    output: Place = Field(description="folder of the merged model")


class DiagnosisConfig(Record):
    """Checks what training needs on this machine."""

    job: Literal["diagnose"] = "diagnose"


class TokenPiece(Record):
    """Neighbouring tokens with the same flags."""

    text: str
    num_tokens: int
    is_learned: bool
    is_image: bool


class Example(Record):
    """One row as the model will see it."""

    id: str
    images: list[str]
    pieces: list[TokenPiece]
    rejected: list[TokenPiece] = Field([], description="of the same row with its other answer")
    desirable: bool | None = Field(None, description="whether its one answer is, where that is said")


class InspectionResult(Record):
    num_tokens: list[int] = Field([], description="per candidate row, the largest over all bases")
    num_shown: list[int] = Field([], description="per candidate row, what it adds as an example; where asked for")
    linear_layers: dict[str, list[str]] = Field({}, description="base → names that target_modules may hold")
    examples: list[Example] = Field([])
    mistake: tuple[str, str] | None = Field(None, description="(field, what is wrong with it)")
    unreachable: str | None = Field(None, description="that the hub did not answer; no mistake of the file")


class AnsweredRow(Record):
    """One row with one variant. `loss` in nats per token of the reference, over `num_tokens` of them."""

    id: str
    question: str
    images: list[str] = Field([])
    reference: str | None
    rejected: str | None = Field(None, description="the other answer, of a pair of which the reference is the better")
    prediction: str
    loss: float | None
    num_tokens: int
    is_cut: bool = Field(description="the answer reached the generation limit before it ended")
    numbers: dict[str, float] = Field({}, description="metric → the row's number, where it is not computed from texts")
    group: int | None = Field(None, description="rows of one group are not independent; noted when they are scored")

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, row: Any) -> Any:
        """Earlier versions had at most one image per row, and a field for each metric computed by a model."""
        if not isinstance(row, dict):
            return row
        row = dict(row)
        image = row.pop("image", None)
        former = {name: row.pop(name) for name in _NEED_MODEL if name in row}
        numbers = {name: value for name, value in former.items() if value is not None} | row.pop("numbers", {})
        return row | ({"images": [image]} if image else {}) | {"numbers": numbers}


class EvaluationResult(Record):
    """The answers are in files beside it."""

    num_rows: int
    longer_than_limit: int = Field(0, description="references with more tokens than an answer may have")
    notes: list[str] = Field([], description="own metrics that could not be computed, and why")


class ChatFormat(Record):
    """The format of a conversation for the model, for tools without its Python code."""

    template: str = Field(description="a template of Ollama's, with .System, .Prompt and .Response")
    default_system: str | None = Field(None, description="the chat template's default system prompt")
    stop: list[str] = Field([], description="tokens that end an answer")


class ExportResult(Record):
    """How close the merged model is to base and adapter, in logits at the answers' tokens of a few rows."""

    num_positions: int
    largest_logit: float
    difference: float = Field(description="the largest between any two logits")
    tolerance: float
    share_lost: float = Field(description="of what the adapter changes in the logits: root mean square over rms")
    reads_alike: bool = Field(description="the saved processor makes the same inputs of the rows as the base's")
    quantized_agreement: float | None = Field(
        None, description="the share of positions where the 4-bit base with the adapter would say the same token"
    )
    chat: ChatFormat


class Check(Record):
    """The result of one check: its state, what was found, and what to do if it failed."""

    name: str
    verdict: Literal["works", "limited", "fails"]
    found: str
    fix: str | None = None


class DiagnosisResult(Record):
    checks: list[Check]


class JobFailure(Record):
    """A job other than a training run failed."""

    failed: Literal[True] = True
    reason: str
    traceback: str


Job = Annotated[
    TrialConfig | InspectionConfig | EvaluationConfig | ExportConfig | DiagnosisConfig, Field(discriminator="job")
]
JOB: TypeAdapter[Job] = TypeAdapter(Job)
"""Reads a folder's config, for any kind of job."""
