"""StudySpec: the whole content of a study file."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any

from pydantic import Field, model_validator

from hpsearch.spec.base import Spec
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import DataSpec
from hpsearch.spec.evaluation import EvaluationSpec
from hpsearch.spec.knobs import KNOBS, takes_whole_numbers
from hpsearch.spec.limits import SilenceSpec
from hpsearch.spec.metrics import METRICS, Metric, find_metric
from hpsearch.spec.model import HeadSpec, LoraSpec, ModelSpec
from hpsearch.spec.own_metrics import code_of, sha256_of
from hpsearch.spec.preference import PreferenceSpec
from hpsearch.spec.search import RangeSpec, SearchSpec
from hpsearch.spec.tasks import SECTIONS, TASKS, TaskFacts, TaskName
from hpsearch.spec.tracking import TrackerName
from hpsearch.spec.training import BudgetSpec, TrainingSpec

Values = dict[str, Any]
"""Dotted parameter name → value."""

MAY_CHANGE = (
    "description",
    "search.trials",
    "search.limits",
    "silence",
    "tracking",
    "final",
    "model.adapter",
    "model.adapter_revision",
    "data.source",
    "data.images",
    "data.feature_cache_gib",
    "evaluation.metrics_file",
)
"""Fields that may differ from the stored study, as they change no trial (checksums protect data, adapter and metrics
file).
"""
_TEXT = "evaluation.metrics_text"


class StudySpec(Spec):
    study: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Name of the study in the store.")
    ]
    description: str | None = Field(None, description="What the study is for; shown in the dashboard and the report.")
    task: TaskName = Field(
        description=f"What is learned. {'; '.join(f'{row.name}: {row.about}' for row in TASKS.values())}."
    )
    model: ModelSpec = Field(description="The base model that is fine-tuned.")
    data: DataSpec = Field(description="Where the rows come from, what their columns mean, and how they are split.")
    lora: LoraSpec = Field(LoraSpec(), description="The LoRA adapter that is trained.")
    head: HeadSpec = Field(HeadSpec(), description="The classifier on the model; tasks *-classify only.")
    curriculum: CurriculumSpec = Field(
        CurriculumSpec(), description="The order in which rows are learned; tasks *-curriculum only."
    )
    preference: PreferenceSpec = Field(
        PreferenceSpec(), description="The loss for preference tuning (DPO, KTO, ORPO …); tasks *-preference only."
    )
    training: TrainingSpec = Field(TrainingSpec(), description="Optimizer, batch and schedule.")
    objective: str | Annotated[list[str], Field(min_length=1)] = Field(
        "loss",
        description="What the search optimizes on the validation rows: loss, a metric, or a list of them; the first "
        "one of a list chooses the best trial.",
    )
    budget: BudgetSpec = Field(BudgetSpec(), description="Length and memory of a trial.")
    final: BudgetSpec = Field(BudgetSpec(epochs=3.0), description="Length and memory of the final run.")
    silence: SilenceSpec = Field(
        SilenceSpec(), description="How long a trainer may be silent before it counts as hung."
    )
    tracking: list[TrackerName] = Field(
        [],
        description="Trackers for trials and the final run, besides the dashboard: tensorboard, mlflow, "
        "wandb; may change at any time.",
    )
    evaluation: EvaluationSpec = Field(
        EvaluationSpec(), description="How the final model is evaluated on the test rows."
    )
    search: SearchSpec | None = Field(
        None,
        description="What to search, and how; absent in the file of a final run.",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_dropout(cls, given: Any) -> Any:
        """Where a task trains without dropout, a file that does not set it has none."""
        task = TASKS.get(str(given.get("task"))) if isinstance(given, dict) else None
        if task is None or task.has_dropout or not isinstance(lora := given.get("lora", {}), dict):
            return given
        return given | {"lora": {"dropout": 0.0} | lora}

    def with_values(self, values: Values) -> StudySpec:
        """The same study with these parameters set."""
        whole = self.model_dump()
        for knob, value in values.items():
            section, name = knob.split(".")
            whole[section][name] = value
        return StudySpec.model_validate(whole)

    @property
    def task_facts(self) -> TaskFacts:
        return TASKS[self.task]

    @property
    def objective_names(self) -> list[str]:
        return self.objective if isinstance(self.objective, list) else [self.objective]

    @property
    def objectives(self) -> list[Metric]:
        """The first one decides. Raises ValueError: rejected when a file is read."""
        return [self.metric(name) for name in self.objective_names]

    def metric(self, name: str) -> Metric:
        """Raises ValueError."""
        own = self.evaluation.own_metrics
        return own[name] if name in own else find_metric(name, own)

    def fitting_metrics(self) -> list[Metric]:
        """hpsearch's and the person's own metrics that fit the task."""
        every = [*METRICS.values(), *self.evaluation.own_metrics.values()]
        return [metric for metric in every if self.task_facts.fits(metric)]

    @property
    def foreign_sections(self) -> set[str]:
        """The sections that only other tasks have: here they hold their defaults, and mean nothing."""
        return {section for section in SECTIONS if not self.task_facts.has(section)}

    @property
    def knobs(self) -> list[str]:
        """The knobs of this study's task."""
        return [knob for knob in KNOBS if knob.partition(".")[0] not in self.foreign_sections]

    def value(self, knob: str) -> Any:
        section, name = knob.split(".")
        return getattr(getattr(self, section), name)

    def defaults(self) -> Values:
        """The searched parameters with the file's own values."""
        return {knob: self.value(knob) for knob in self.searched.space}

    @property
    def searched(self) -> SearchSpec:
        assert self.search is not None, "a study file without a search has no space"
        return self.search

    def bases(self) -> list[str]:
        """Every base model that a trial may use."""
        space = self.search.space if self.search else {}
        choices = space.get("model.base", [self.model.base])
        assert not isinstance(choices, RangeSpec)
        return [str(base) for base in dict.fromkeys([self.model.base, *map(str, choices)])]

    def grid_size(self) -> int | None:
        """The number of points of a grid over the space, computed without building it; None where a range has no
        step.
        """
        sizes = [_num_points(knob, parameter) for knob, parameter in self.searched.space.items()]
        counted = [size for size in sizes if size is not None]
        return prod(counted) if len(counted) == len(sizes) else None


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    joined: dict[str, Any] = {}
    for key, inner in value.items():
        joined |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return joined


def changes(was: StudySpec, now: StudySpec) -> dict[str, str]:
    """Dotted key → a line for a person, of each field that differs."""
    old, new = _fields(was), _fields(now)
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    titles = {_TEXT: "the text of evaluation.metrics_file"}
    return {key: f"  {titles.get(key, key)}: {old.get(key)} → {new.get(key)}" for key in keys}


def _fields(spec: StudySpec) -> dict[str, Any]:
    """Dotted key → value; for a metrics file the checksum of its code: comments don't count."""
    fields = flat(spec.model_dump())
    text = spec.evaluation.metrics_text
    return fields | {_TEXT: None if text is None else f"SHA-256 {sha256_of(code_of(text))[:12]}…"}


def _num_points(knob: str, parameter: RangeSpec | list[Any]) -> int | None:
    if not isinstance(parameter, RangeSpec):
        return len(parameter)
    step = parameter.step or (1 if knob in KNOBS and takes_whole_numbers(knob) and not parameter.log else None)
    return None if step is None else int((parameter.high - parameter.low) / step * (1 + 1e-12) + 1e-9) + 1
