"""How long a study will take and what it will need, from what was measured of a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from hpsearch.data.rows import Row
from hpsearch.data.split import subset
from hpsearch.search.usage import seconds_for
from hpsearch.spec import StudySpec
from hpsearch.spec.search import RangeSpec
from hpsearch.spec.training import BATCH_SIZE, BudgetSpec
from hpsearch.study.measure import Measurement
from hpsearch.study.open import num_trials
from hpsearch.study.prepare import PreparedStudy

_MATTERS = (
    *("lora.r", "lora.target_modules", "lora.vision", "preference.loss", BATCH_SIZE, "training.optimizer"),
    *("training.micro_batch", "training.gradient_checkpointing"),
)
"""Besides the model's, the fields whose values make trials longer or larger."""
_DRAFTS = 3
"""Checkpoints of a run at a time: two are kept while the next one is written."""
_ADAPTERS = 2
"""Adapters of the final run at a time: the best one, and the next one while it is written. Smaller than a
checkpoint.
"""


@dataclass(frozen=True)
class Training:
    """One training: a trial, or the final one."""

    steps: int
    rows: int
    """With repetitions (epochs)."""
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """For a trial with the file's own values, the whole search, and the final training.

    `search_s` is an upper bound: no trial is stopped early, and each has the slowest batch size.
    """

    measured: Measurement
    trials: int
    devices: int
    trial: Training
    search_s: float
    final: Training
    disk_bytes: int
    matters: list[str]
    """Searched fields whose other values take more or less time or memory."""


def estimate(spec: StudySpec, prepared: PreparedStudy, measured: Measurement, devices: int) -> Estimate:
    trials = num_trials(spec)
    trial, final = (_training(spec, budget, prepared, measured) for budget in (spec.budget, spec.final))
    matters = [knob for knob in spec.searched.space if knob.startswith("model.") or knob in _MATTERS]
    sizes = [spec.with_values({BATCH_SIZE: size}) for size in _batch_sizes(spec)]
    longest_s = max(_training(each, spec.budget, prepared, measured).seconds for each in (spec, *sizes))
    each_s = longest_s + (measured.fit_s if matters else 0.0)
    rows = [*prepared.splits["train"], *prepared.splits["validation"]]
    restarts = 1 if _starts_anew(spec) is None else ceil(trials / devices / (_starts_anew(spec) or 1))
    starting_s = measured.start_s * restarts + measured.fit_s + measured.new_row_s * len(rows)
    once_s = measured.start_s + measured.fit_s
    runs = max(devices * (_DRAFTS + len(spec.curriculum.stages)), _DRAFTS + _ADAPTERS + len(spec.curriculum.stages))
    images = len({image.sha256 for row in rows for image in row.images})
    limit = int(spec.data.feature_cache_gib * 2**30)
    return Estimate(
        measured,
        trials,
        devices,
        trial,
        starting_s + seconds_for(trials, each_s, devices),
        Training(final.steps, final.rows, final.tokens, final.seconds + once_s),
        runs * measured.checkpoint_bytes + trials * measured.trial_bytes + min(limit, images * measured.image_bytes),
        matters,
    )


def _training(spec: StudySpec, budget: BudgetSpec, prepared: PreparedStudy, measured: Measurement) -> Training:
    rows = subset(prepared.splits["train"], budget.train_fraction)
    num_validated = len(subset(prepared.splits["validation"], budget.validation_fraction))
    steps, met = num_steps(spec, budget, rows)
    report_s = measured.save_s + measured.validation_row_s * num_validated
    seconds = (
        steps * measured.seconds_of_step(spec.training.batch_size)
        + min(budget.reports, steps) * report_s
        + measured.rest_s
    )
    return Training(steps, met, round(met * measured.tokens_per_row), seconds)


def num_steps(spec: StudySpec, budget: BudgetSpec, rows: Sequence[Row]) -> tuple[int, int]:
    """(optimizer steps, rows with repetitions) of one training on `rows`."""
    size = spec.training.batch_size
    if budget.max_steps is not None:
        return budget.max_steps, budget.max_steps * min(size, len(rows))
    parts = _parts(spec, rows)
    steps = sum(ceil(budget.epochs * epochs * ceil(count / size)) for epochs, count in parts)
    return steps, round(budget.epochs * sum(epochs * count for epochs, count in parts))


def _parts(spec: StudySpec, rows: Sequence[Row]) -> list[tuple[float, int]]:
    """(epochs, rows) of each stage of a curriculum; else of all rows."""
    stages = spec.curriculum.stages
    if not stages:
        return [(1.0, len(rows))]
    names = [spec.curriculum.stage_of(row.stage) for row in rows]
    return [(stage.epochs, names.count(stage.name)) for stage in stages]


def _batch_sizes(spec: StudySpec) -> list[int]:
    """The smallest and the largest searched batch size: over epochs the smallest makes the most steps, and with a fixed
    number of steps the largest takes longest.
    """
    searched = spec.searched.space.get(BATCH_SIZE, [])
    found = [searched.low, searched.high] if isinstance(searched, RangeSpec) else [int(str(each)) for each in searched]
    return [int(size) for size in ([min(found), max(found)] if found else [])]


def _starts_anew(spec: StudySpec) -> int | None:
    """After how many trials a worker starts a new trainer; None: it keeps its trainer."""
    return 1 if spec.training.optimizer.startswith("paged") else spec.searched.trials_per_process
