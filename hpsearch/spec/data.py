"""Where the rows come from, what their columns mean, and how they are split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from hpsearch.errors import cut
from hpsearch.spec import template
from hpsearch.spec.base import Fraction, Spec
from hpsearch.spec.rows import FORMATS, RowFormat


class ColumnsSpec(Spec):
    """The data's column names, by role."""

    image: str | None = Field(
        None,
        description="Column with an image, or a list of images, as paths or stored in the data; a row without one is "
        "text only. <image> in the question, or an image part of a message, says where each stands; by default they "
        "stand before the text.",
    )
    question: str | None = Field(None, description="Column with the question.")
    answer: str | None = Field(None, description="Column with the answer to learn.")
    messages: str | None = Field(None, description="Column with chat messages: a list of role and content.")
    prompt: str | None = Field(
        None, description="Column with the raw text before the completion, without a chat template."
    )
    completion: str | None = Field(None, description="Column with the raw text to learn, without a chat template.")
    text: str | None = Field(
        None, description="Column with plain text, all of which is learned: continued pretraining."
    )
    chosen: str | None = Field(None, description="Column with the better answer, or a conversation that ends with it.")
    rejected: str | None = Field(None, description="Column with the worse answer, or a conversation that ends with it.")
    desirable: str | None = Field(
        None, description="Column that says whether the row's one answer is desirable: true or false, 1 or 0."
    )
    group: str | None = Field(
        None, description="Column whose equal values keep rows in one split, such as a photograph or a document."
    )
    label: str | None = Field(None, description="Column to stratify the splits by; the class of classification tasks.")
    stage: str | None = Field(None, description="Column that says which stage of the curriculum a row belongs to.")
    id: str | None = Field(
        None, description="Column with the row's id, for messages and manifests; by default its position."
    )

    @property
    def row_format(self) -> RowFormat:
        """The label is the answer where there is no other answer column."""
        if self.text:
            return "text"
        if self.chosen or self.rejected:
            return "raw-preference" if self.prompt else "preference"
        if self.desirable:
            return "raw-labelled" if self.prompt or self.completion else "labelled"
        if self.messages:
            return "messages"
        if self.prompt or self.completion:
            return "prompt-completion"
        return "question-label" if self.label and not self.answer else "question-answer"

    def named(self) -> dict[str, str]:
        """Role → column name, for the given roles."""
        return {role: name for role, name in self.model_dump().items() if name is not None}


class SplitByFraction(Spec):
    """Splits drawn once by hpsearch: groups are kept whole, and labels are stratified."""

    train: Fraction = Field(0.8, description="Share of the rows to train on; the three shares add up to 1.")
    validation: Fraction = Field(0.1, description="Share of the rows that trials are compared on.")
    test: Fraction = Field(0.1, description="Share of the rows for the final evaluation only.")
    seed: int = Field(0, description="Seed of the draw.")

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitByFraction:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        return self


class SplitByColumn(Spec):
    """Splits given by a column of the data; a missing one is drawn from the training rows."""

    column: str = Field(description="Column that says which split a row belongs to.")
    train: str = Field("train", description="Its value for training rows.")
    validation: str | Fraction = Field(
        "validation", description="Its value for validation rows, or the share of the training rows to take for them."
    )
    test: str | Fraction = Field(
        "test", description="Its value for test rows, or the share of the training rows to take for them."
    )
    seed: int = Field(0, description="Seed of the draw, where a share is drawn.")


def _split_kind(value: Any) -> str:
    by_column = isinstance(value, SplitByColumn) or (isinstance(value, dict) and "column" in value)
    return "by-column" if by_column else "by-fraction"


SplitSpec = Annotated[
    Annotated[SplitByFraction, Tag("by-fraction")] | Annotated[SplitByColumn, Tag("by-column")],
    Discriminator(_split_kind),
]
_Side = Annotated[int, Field(ge=8)]


def _in_pixels(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        found = cut(repr(list(value) if isinstance(value, tuple) else value))
        raise ValueError(
            "expected the most pixels of a side, such as 448, or width and height, such as [448, 448], each at least "
            f"8; found {found}"
        ) from None


ImageSize = Annotated[_Side | tuple[_Side, _Side], WrapValidator(_in_pixels)]


def _as_template(text: str) -> str:
    template.parse(text)
    return text


def _no_template(known: dict[str, Any]) -> str | None:
    """The default question column, if there is no template."""
    return None if "prompt" in known and template.parse(known["prompt"]).columns else "question"


_NotBlank = Annotated[str, Field(pattern=r"\S")]


def _answer_names(value: Any) -> Any:
    """As the row's value is written: YAML reads 0 as a number and yes as a boolean."""
    if not isinstance(value, dict):
        return value
    for found, answer in value.items():
        if isinstance(answer, str) and not answer.strip():
            raise ValueError(f"{found} becomes an empty answer, which no model can learn; leave its line out")
        if isinstance(answer, bool):
            raise ValueError('YAML reads yes, no, true and false as truth values: put the answer in quotes, as in "no"')
    texts = {found: str(answer) if isinstance(answer, int | float) else answer for found, answer in value.items()}
    return {str(int(f) if isinstance(f, float) and f.is_integer() else f): text for f, text in texts.items()}


class DataSpec(Spec):
    source: str = Field(
        description="A JSON, JSONL, CSV or Parquet file, a folder saved by `datasets`, a hub data set, or sklearn:NAME."
    )
    config: str | None = Field(None, description="Configuration (subset) of a hub data set.")
    prompt: Annotated[str, AfterValidator(_as_template)] = Field(
        "What is in this image?",
        description="Question of all rows, or a template with columns in braces; used without a question column.",
    )
    columns: ColumnsSpec = Field(
        default_factory=lambda known: ColumnsSpec(question=_no_template(known), answer="answer"),
        description="Names of the data's columns, by their role; by default question and answer.",
    )
    images: str | None = Field(
        None, description="Folder that relative image paths start from; by default that of the source."
    )
    group_duplicates: bool = Field(
        False, description="Keep copies of one picture in one split, also if saved again or resized."
    )
    image_size: ImageSize | None = Field(
        None, description="Pixels: 448 shrinks images to at most 448 a side; [896, 896] resizes to width and height."
    )
    feature_cache_gib: Annotated[float, Field(ge=0)] = Field(
        20.0,
        description="Disk space in GiB for cached features of vision towers, for all studies; 0 caches nothing.",
    )
    system_prompt: str | None = Field(None, description="System prompt before every conversation.")
    max_tokens: Annotated[
        int, Field(ge=8, description="Largest number of tokens of a row; longer rows are left out and counted.")
    ] = 1024
    answers: Annotated[
        dict[str, str], BeforeValidator(_answer_names, json_schema_input_type=dict[str, _NotBlank | int | float])
    ] = Field({}, description="Value of the answer column → the answer to learn; rows with other values are left out.")
    examples: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Number of training rows shown with their answers before each question (few-shot)."
    )
    labels: dict[str, str | None] = Field({}, description="Label → another name for it; null leaves its rows out.")
    balance: Annotated[int, Field(ge=1)] | Literal["smallest"] | None = Field(
        None, description="Largest number of training rows per label; smallest: as many as the rarest label has."
    )
    split: SplitSpec = Field(SplitByFraction(), description="How rows are divided into train, validation and test.")
    held_out: str | None = Field(
        None,
        description="File with the ids of the test rows: the first study that names it writes it, others share it.",
    )
    manifest: str | None = Field(None, description="SHA-256 that the split must have; `hpsearch best` writes it.")

    @property
    def template(self) -> template.Template:
        return template.parse(self.prompt)

    @property
    def has_questions(self) -> bool:
        """Whether the rows themselves ask: `prompt` is not used."""
        asks = FORMATS[self.columns.row_format].asks
        return asks is None or asks in self.columns.named()
