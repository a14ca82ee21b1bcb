"""Where the rows come from, what their columns mean, and how they are split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from hpsearch.spec import template
from hpsearch.spec.base import Fraction, Spec
from hpsearch.spec.rows import RowFormat


class ColumnsSpec(Spec):
    """The data's own column names, by what they are to us; which ones go together is in `rows.FORMATS`."""

    image: str | None = Field(
        None,
        description="a path, an image stored in the data, or a list of them; where it holds nothing the row is text. "
        "<image> in a user's words, or a part of a message, says where each stands; else they stand before the words",
    )
    question: str | None = Field(None, description="what the person asks")
    answer: str | None = Field(None, description="what the model shall answer")
    messages: str | None = Field(None, description="chat messages: a list of role and content")
    prompt: str | None = Field(None, description="raw text before the completion, no chat template")
    completion: str | None = Field(None, description="raw text to learn, no chat template")
    text: str | None = Field(None, description="plain text, all of it learned: continued pretraining")
    chosen: str | None = Field(None, description="the better answer, or a whole conversation that it ends")
    rejected: str | None = Field(None, description="the worse answer, or a whole conversation that it ends")
    desirable: str | None = Field(None, description="whether the row's one answer is: true or false, 1 or 0")
    group: str | None = Field(None, description="rows of one group stay in one split (photograph, document)")
    label: str | None = Field(None, description="splits and subsets keep the shares of these values")
    stage: str | None = Field(None, description="which stage of the curriculum a row belongs to")
    id: str | None = Field(None, description="names a row in messages and manifests; default: its position")

    @property
    def row_format(self) -> RowFormat:
        """The label is what the model shall tell where no other column is."""
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
        """Role → column name, for the roles that were given."""
        return {role: name for role, name in self.model_dump().items() if name is not None}


class SplitByFraction(Spec):
    """hpsearch draws the splits; groups stay whole, labels keep their shares."""

    train: Fraction = 0.8
    validation: Fraction = 0.1
    test: Fraction = 0.1
    seed: int = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitByFraction:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        return self


class SplitByColumn(Spec):
    """The data says which split a row belongs to; a missing split is carved out of train by its share."""

    column: str
    train: str = "train"
    validation: str | Fraction = "validation"
    test: str | Fraction = "test"
    seed: int = 0


def _split_kind(value: Any) -> str:
    by_column = isinstance(value, SplitByColumn) or (isinstance(value, dict) and "column" in value)
    return "column" if by_column else "fraction"


SplitSpec = Annotated[
    Annotated[SplitByFraction, Tag("fraction")] | Annotated[SplitByColumn, Tag("column")],
    Discriminator(_split_kind),
]
ImageSize = Annotated[int, Field(ge=8)] | tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]]


def _as_template(text: str) -> str:
    template.parse(text)
    return text


def _no_template(known: dict[str, Any]) -> str | None:
    """The usual question column, where no template asks."""
    return None if "prompt" in known and template.parse(known["prompt"]).columns else "question"


def _answer_names(value: Any) -> Any:
    """As a row's value is written: YAML reads 0 as a number and yes as a truth value."""
    if not isinstance(value, dict):
        return value
    for found, answer in value.items():
        if isinstance(answer, str) and not answer.strip():
            raise ValueError(f"{found} becomes nothing, which no model can learn to answer; leave its line out")
        if isinstance(answer, bool):
            raise ValueError('YAML reads yes, no, true and false as truth values: put the answer in quotes, as in "no"')
    texts = {found: str(answer) if isinstance(answer, int | float) else answer for found, answer in value.items()}
    return {str(int(f) if isinstance(f, float) and f.is_integer() else f): text for f, text in texts.items()}


class DataSpec(Spec):
    source: str = Field(
        description="a JSON, JSONL, CSV or Parquet file, a saved `datasets` folder, a hub data set, or sklearn:NAME"
    )
    config: str | None = Field(None, description="configuration of a hub data set")
    prompt: Annotated[str, AfterValidator(_as_template)] = Field(
        "What is in this image?",
        description="asked of rows without a question column; or a template over columns, which takes its place",
    )
    columns: ColumnsSpec = Field(
        default_factory=lambda known: ColumnsSpec(question=_no_template(known), answer="answer"),
        description="default: question and answer",
    )
    images: str | None = Field(None, description="folder of relative image paths; default: the file's own")
    group_duplicates: bool = Field(
        False, description="the same picture in other files, stored anew or in another size, stays in one split"
    )
    image_size: ImageSize | None = Field(
        None, description="448: shrink to at most 448 pixels a side; [896, 896]: resize to width and height"
    )
    feature_cache_gib: Annotated[float, Field(ge=0)] = Field(
        20.0, description="disk for what a frozen vision tower made of images, for all studies; 0 keeps nothing"
    )
    system_prompt: str | None = Field(None, description="put before every conversation")
    max_tokens: Annotated[int, Field(ge=8, description="longer rows are left out, counted and named")] = 1024
    answers: Annotated[dict[str, str], BeforeValidator(_answer_names)] = Field(
        {}, description="the data's word for an answer → ours; rows with any other one are left out"
    )
    examples: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="so many training rows are shown before each question, answers and all (few-shot)"
    )
    labels: dict[str, str | None] = Field({}, description="other names for labels; none leaves their rows out")
    balance: Annotated[int, Field(ge=1)] | Literal["smallest"] | None = Field(
        None, description="at most so many training rows per label; smallest: as many as the rarest one has"
    )
    split: SplitSpec = SplitByFraction()
    held_out: str | None = Field(
        None, description="file of the test rows: written by the first study that names it, shared by the others"
    )
    manifest: str | None = Field(None, description="SHA-256 that the split must have; `hpsearch best` writes it")

    @property
    def template(self) -> template.Template:
        return template.parse(self.prompt)
