"""One trial, as the two planes see it: its config, its result, its memory ledger.

Its folder is the whole contract with the training plane: `config.json` goes in, `result.json` comes out. The final
run, an evaluation and an inspection are folders of the same kind with another config (`jobs`, `folders`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    PlainSerializer,
    ValidationInfo,
)

from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import ImageSize
from hpsearch.spec.metrics import LOSS, Metric, NamedMetric
from hpsearch.spec.model import HeadSpec, LoraSpec, ModelSpec
from hpsearch.spec.preference import PreferenceSpec
from hpsearch.spec.rows import RowFormat
from hpsearch.spec.tasks import TaskName
from hpsearch.spec.tracking import TrackerName
from hpsearch.spec.training import BudgetSpec, TrainingSpec, in_rows_per_step

GIB = 2**30
MIB = 2**20
STARTING = "starting"
"""A worker's device until its trainer has named it."""
MOST_PER_DEVICE = 8
"""Workers that share a card."""


class Record(BaseModel):
    """Base class of facts that are exchanged between processes or stored: frozen, and the same for every reader."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


def _found(place: Path, info: ValidationInfo) -> Path:
    return place if info.context is None else Path(os.path.normpath(info.context / place))


def _told(place: Path, info: FieldSerializationInfo) -> str:
    return str(place) if info.context is None else os.path.relpath(place, info.context)


Place = Annotated[Path, AfterValidator(_found), PlainSerializer(_told, return_type=str)]
"""A path that is stored relative to the job's folder, so that storage can be mounted elsewhere.

The folder is pydantic's context; without one, the path is unchanged.
"""


class Outcome(StrEnum):
    """How a trial's run ended."""

    COMPLETE = "complete"
    """It used its whole budget."""
    PRUNED = "pruned"
    """The pruner stopped it: it was worse than other trials at the same report."""
    DIVERGED = "diverged"
    """Its loss became NaN or infinite. Stored as PRUNED in Optuna."""
    OUT_OF_MEMORY = "out of memory"
    """One row at a time needs more memory than the device has. Stored as PRUNED in Optuna, with a violated constraint,
    so that the sampler avoids such trials.
    """
    FAILED = "failed"
    """It ended with an error, which `hpsearch logs` shows. Stored as FAIL in Optuna; `hpsearch retry` runs it again."""
    STOPPED = "stopped"
    """Its worker was stopped by a person or a scheduler. It continues from its checkpoint, so no study shows it."""


class RowsConfig(Record):
    """How rows become tokens: everything a collator needs besides the model's own processor."""

    row_format: RowFormat
    image_size: ImageSize | None
    system_prompt: str | None
    max_tokens: int


class AnswersConfig(Record):
    """What a model answers with besides its loss: the classes of a classifier, generated text, or preferences."""

    head: HeadSpec = HeadSpec()
    classes: list[str] = Field([], description="every label that the study knows, sorted")
    max_new_tokens: int = 32
    preference: PreferenceSpec = PreferenceSpec()


class MetricsFile(Record):
    """A Python file with the person's own metrics, stored as text so that other machines don't need the file."""

    name: str
    text: str


class CacheConfig(Record):
    """A trainer's cache of the outputs of frozen vision towers, shared by all trials and workers."""

    folder: Place
    limit_bytes: int = Field(description="of all files together; 0 keeps none")


class Fit(Record):
    """How many rows of a `shape` (base, adapter, data, budget) one forward takes on a kind of device."""

    device: str
    shape: str
    rows: int
    gradient_checkpointing: bool
    predicted_bytes: int | None = Field(None, description="peak of such a forward and backward; none: not predicted")
    room_bytes: int | None = Field(None, description="the available memory")


class TrackingConfig(Record):
    """The trackers of a run, its id in them, and the name that groups runs."""

    trackers: list[TrackerName]
    id: str = Field(description="unique, and the same for all attempts")
    name: str
    group: str
    tensorboard: Place = Field(description="folder of the run's event files")


class TrialConfig(Record):
    """Fully resolved: the training plane needs no other source."""

    job: Literal["train"] = "train"
    name: str
    task: TaskName
    model: ModelSpec
    lora: LoraSpec
    training: Annotated[TrainingSpec, BeforeValidator(in_rows_per_step)]
    budget: BudgetSpec
    rows: RowsConfig
    train_rows: Place = Field(description="folder of prepared rows")
    validation_rows: Place
    answers: AnswersConfig = AnswersConfig()
    images: CacheConfig | None = Field(None, description="cache of image features and resized images; none: no cache")
    objectives: list[NamedMetric] = Field([LOSS], description="computed at each report; the first one decides")
    metrics_file: MetricsFile | None = Field(None, description="file of the person's own metrics among these")
    curriculum: CurriculumSpec = CurriculumSpec()
    fits: list[Fit] = Field([], description="what earlier trials found to fit, on any device")
    earlier: list[Place] = Field([], description="folders of this trial's earlier attempts, the latest first")
    is_final: bool = Field(False, description="the final run keeps its best adapter")
    tracking: TrackingConfig | None = None

    @property
    def process_key(self) -> str:
        """Runs with different keys can't share a process: accelerate fixes the mixed precision once per process."""
        return f"{self.model.dtype}/{self.model.quantization}/{self.model.attention}"

    @property
    def taints_process(self) -> bool:
        """Paged optimizers allocate managed memory that bitsandbytes never frees."""
        return self.training.optimizer.startswith("paged")


class MemorySnapshot(Record):
    """The memory of a trainer process at one moment."""

    host_rss_bytes: int
    host_own_bytes: int = Field(0, description="of these, all but pages of mapped files")
    device_allocated_bytes: int
    live_tensors: int
    threads: int
    file_descriptors: int
    base_fingerprint: str


class MemoryLedger(Record):
    """The memory that a trial used, and whether it was all freed."""

    before: MemorySnapshot
    after: MemorySnapshot
    peak_host_bytes: int
    peak_device_bytes: int = Field(
        description="the most that the process took of the card: torch's pool, fragments and all, and CUDA's context"
    )
    peak_allocated_bytes: int = Field(0, description="the most that tensors took of it")
    is_context_estimated: bool = Field(False, description="the trainer could not read its context's memory from NVML")
    not_given_back: list[str] = Field(description="empty when the ledger closes")
    witnessed_device_bytes: int | None = Field(None, description="after the trial, as NVML shows it to the worker")
    witnessed_peak_bytes: int | None = Field(None, description="the most that it showed while the trial ran")

    @property
    def closes(self) -> bool:
        return not self.not_given_back

    @property
    def used_device_bytes(self) -> int:
        """The memory that a card must have free for such a trial.

        torch's own peak excludes managed memory; the worker's samples, twice a second, miss short peaks.
        """
        return max(self.peak_device_bytes, self.witnessed_peak_bytes or 0)


class Report(Record):
    """A validation loss (nats per learned token) at one of the budget's evenly spaced reports, from 1."""

    step: int
    loss: float
    metrics: dict[str, float] = {}

    def value(self, objective: Metric) -> float:
        """NaN where it was not measured: a trial whose training loss became NaN has no validation at that point."""
        return self.loss if objective == LOSS else self.metrics.get(objective.name, math.nan)


def best_report(reports: Sequence[Report], objective: Metric) -> Report:
    """The first of the best by `objective`, the study's first one; there is at least one report.

    The only rule for the value of a complete run. The search gets this report's values, of every objective, and the
    final run keeps this report's adapter: a trial is chosen by what its final run would keep.
    """
    best = reports[0]
    for report in reports[1:]:
        best = report if objective.is_better(report.value(objective), best.value(objective)) else best
    return best


def report_steps(reports: Sequence[int], num_steps: int, last: int) -> dict[int, int]:
    """Report → optimizer step, evenly spaced; report `last` was made at the run's step `num_steps`."""
    return {report: math.ceil(num_steps * report / last) for report in reports}


class HistoryPoint(Record):
    """One optimizer step: the training loss of its batch (nats per token) and its learning rate."""

    step: int
    loss: float
    learning_rate: float


class Pace(Record):
    """Seconds of the parts of a run; a list holds the first ones, in order."""

    start_s: float = Field(0.0, description="from the start of its process until it took jobs")
    base_s: list[float] = Field([], description="until the base was there: loaded, or warm")
    fit_s: list[float] = Field([], description="finding out how many rows fit")
    step_s: list[float] = Field([], description="optimizer steps")
    save_s: list[float] = Field([], description="checkpoints")
    validation_s: list[float] = []
    whole_s: float = Field(0.0, description="all of the run, its ledger closed")
    tokens_per_row: float = Field(0.0, description="the mean over all rows of all steps")


class TrialResult(Record):
    outcome: Outcome
    reports: list[Report] = []
    train_seconds: float = 0.0
    num_steps: int = 0
    trainable_parameters: int = 0
    total_parameters: int = 0
    fit: Fit | None = Field(None, description="rows per forward at the end, and what they were chosen by")
    halvings: list[int] = Field([], description="rows per forward that did not fit, in the order they were tried")
    reason: str | None = Field(None, description="one line for a person")
    traceback: str | None = None
    bytes_needed: int | None = None
    ledger: MemoryLedger | None = None
    pace: Pace | None = None

    def report_that_counts(self, objective: Metric) -> Report | None:
        """For a complete run the best report; for one that ended early the last."""
        if not self.reports:
            return None
        return best_report(self.reports, objective) if self.outcome is Outcome.COMPLETE else self.reports[-1]

    @property
    def trainable_percent(self) -> float:
        return 100 * self.trainable_parameters / max(1, self.total_parameters)
