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
"""What a model is taught: to say the answer, to tell the class, or to say the better one of two answers."""
Images = Literal["none", "one", "several"]
"""How many a row has; several: any number of them, and none as well."""
Section = Literal["head", "curriculum", "preference"]
"""Of a study file, those that not every task has."""
SECTIONS: dict[Section, str] = {
    "head": "classification head",
    "curriculum": "curriculum",
    "preference": "preferences to learn",
}
"""Each with what a task without it doesn't have."""

_TEXT: tuple[RowFormat, ...] = ("question-answer", "messages", "prompt-completion", "text")
_SEEN: tuple[RowFormat, ...] = ("question-answer", "messages")
_TEXTS: tuple[Over, ...] = ("texts", "classes")
_HAVE_TEXT: frozenset[Over] = frozenset(_TEXTS)


@dataclass(frozen=True)
class TaskFacts:
    name: str
    about: str
    """For people: what goes in → what comes out."""
    learns: Learns
    images: Images
    row_formats: tuple[RowFormat, ...]
    """That a study may give; the first one is what is expected of a study that gives none of them."""
    judged_over: tuple[Over, ...]
    """Which metrics fit it; those over the first are taken where nobody names any."""
    pipeline: str
    """The hub's word for such models: https://huggingface.co/tasks."""
    sections: frozenset[Section] = frozenset()
    has_prompts: bool = True
    """Whether system prompts can be tried with it."""
    has_dropout: bool = True
    """Whether it is trained with `lora.dropout`."""
    loss_unit: str = "nats per token"
    """Of a mean loss. Not all losses of preferences are in nats: hinge, IPO and KTO are not."""

    @property
    def has_images(self) -> bool:
        """Whether there may be any: its models have a vision tower, and its studies an image column."""
        return self.images != "none"

    @property
    def speaks(self) -> bool:
        """Whether what it trains answers in words of its own."""
        return self.learns != "class"

    def has(self, section: Section) -> bool:
        return section in self.sections

    def fits(self, metric: Metric) -> bool:
        """A metric of the person's own is over the texts of answers, and a class has a text too."""
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
    """The name of the task of these facts."""
    wanted = (learns, has_images, sections)
    return next((row.name for row in TASKS.values() if (row.learns, row.has_images, row.sections) == wanted), None)
