"""The table of tasks: for each its inputs, what it learns, and which parts of a study file apply to it. One row each.

No other code names a task: it uses the row. The code that trains a task is the file of the same name in `train/tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hpsearch.errors import cut, did_you_mean
from hpsearch.spec.metrics import Metric, Over
from hpsearch.spec.rows import RowFormat

Learns = Literal["text", "class", "preference"]
"""What a model learns: to generate the answer, to predict the class, or to prefer one of two answers."""
Images = Literal["none", "one", "several"]
"""Images per row; several: any number, including none."""
Section = Literal["head", "curriculum", "preference"]
"""Sections of a study file that only some tasks have."""
SECTIONS: dict[Section, str] = {
    "head": "classification head",
    "curriculum": "curriculum",
    "preference": "preferences to learn",
}
"""Section → what it is called in messages."""

_TEXT: tuple[RowFormat, ...] = ("question-answer", "messages", "prompt-completion", "text")
_SEEN: tuple[RowFormat, ...] = ("question-answer", "messages")
_TEXTS: tuple[Over, ...] = ("texts", "classes")
_HAVE_TEXT: frozenset[Over] = frozenset(_TEXTS)


@dataclass(frozen=True)
class TaskFacts:
    name: str
    about: str
    """For people: input → output."""
    learns: Learns
    images: Images
    row_formats: tuple[RowFormat, ...]
    """The row formats that a study may use; the first one is the default."""
    judged_over: tuple[Over, ...]
    """The metrics that fit it: those over the first are the default."""
    pipeline: str
    """The hub's name for such models: https://huggingface.co/tasks."""
    sections: frozenset[Section] = frozenset()
    has_prompts: bool = True
    """Whether system prompts can be tried with it."""
    has_dropout: bool = True
    """Whether it is trained with `lora.dropout`."""
    loss_unit: str = "nats per token"
    """The unit of a mean loss. Some preference losses are not in nats: hinge, IPO and KTO."""

    @property
    def has_images(self) -> bool:
        """Whether rows may have images: its models have a vision tower, and its studies an image column."""
        return self.images != "none"

    @property
    def speaks(self) -> bool:
        """Whether the trained model generates text."""
        return self.learns != "class"

    def has(self, section: Section) -> bool:
        return section in self.sections

    def fits(self, metric: Metric) -> bool:
        """A person's own metric is over the texts of answers; a class has a text too."""
        if metric.is_own:
            return not _HAVE_TEXT.isdisjoint(self.judged_over)
        return metric.over in ("losses", *self.judged_over)


_ROWS = [
    TaskFacts("text-sft", "a question → an answer", "text", "none", _TEXT, _TEXTS, "text-generation"),
    TaskFacts(
        "vlm-sft",
        "images and a question → an answer",
        "text",
        "several",
        _SEEN,
        _TEXTS,
        "image-text-to-text",
    ),
    TaskFacts(
        "vlm-classify",
        "an image → its class",
        "class",
        "one",
        ("question-label",),
        ("classes",),
        "image-classification",
        frozenset({"head"}),
        has_prompts=False,
        loss_unit="nats per row",
    ),
    TaskFacts(
        "text-classify",
        "a text → its class",
        "class",
        "none",
        ("question-label",),
        ("classes",),
        "text-classification",
        frozenset({"head"}),
        has_prompts=False,
        loss_unit="nats per row",
    ),
    TaskFacts(
        "text-curriculum",
        "as text-sft, rows learned in stages",
        "text",
        "none",
        _TEXT,
        _TEXTS,
        "text-generation",
        frozenset({"curriculum"}),
    ),
    TaskFacts(
        "vlm-curriculum",
        "as vlm-sft, rows learned in stages",
        "text",
        "several",
        _SEEN,
        _TEXTS,
        "image-text-to-text",
        frozenset({"curriculum"}),
    ),
    TaskFacts(
        "text-preference",
        "a question and two answers, or one that is desirable or not → the better answer",
        "preference",
        "none",
        ("preference", "raw-preference", "labelled", "raw-labelled"),
        ("preferences", "texts"),
        "text-generation",
        frozenset({"preference"}),
        has_dropout=False,
        loss_unit="per row",
    ),
    TaskFacts(
        "vlm-preference",
        "as text-preference, about images",
        "preference",
        "several",
        ("preference", "labelled"),
        ("preferences", "texts"),
        "image-text-to-text",
        frozenset({"preference"}),
        has_dropout=False,
        loss_unit="per row",
    ),
]
TASKS: dict[str, TaskFacts] = {row.name: row for row in _ROWS}


def _known(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"there is no task {cut(repr(name))}; {did_you_mean(name, list(TASKS))}")
    return name


TaskName = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(TASKS)})]


def find_task(learns: Learns, *, has_images: bool, sections: frozenset[Section] = frozenset()) -> str | None:
    """The name of the first task with these properties: what is proposed to who named none. None: there is none."""
    wanted = (learns, has_images, sections)
    return next((row.name for row in TASKS.values() if (row.learns, row.has_images, row.sections) == wanted), None)
