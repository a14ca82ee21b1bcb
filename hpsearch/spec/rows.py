"""The table of row formats: by which columns each is recognized, and which it needs. `data/formats` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PLACEHOLDER = "<image>"
"""Marks the position of one of the row's images in a user's text, as in LLaVA and LLaMA-Factory."""
RowFormat = Literal[
    "question-answer",
    "question-label",
    "messages",
    "prompt-completion",
    "text",
    "preference",
    "raw-preference",
    "labelled",
    "raw-labelled",
]


@dataclass(frozen=True)
class FormatFacts:
    needs: tuple[str, ...]
    """Roles of columns, see `data.ColumnsSpec`."""
    may_have: tuple[str, ...] = ()
    is_raw: bool = False
    """Texts as they are, without chat template and turns."""
    asks: str | None = None
    """The role of the question's column; a template over columns may replace it."""
    answers: str | None = None
    """The role of the column whose values `data.answers` may rename."""
    has_answers: bool = True
    """Whether there is a question, and an answer to compare with."""

    @property
    def has_pairs(self) -> bool:
        """Whether rows have a chosen and a rejected answer."""
        return "rejected" in self.needs

    @property
    def is_judged(self) -> bool:
        """Whether its answers carry a preference."""
        return self.has_pairs or "desirable" in self.needs


FORMATS: dict[RowFormat, FormatFacts] = {
    "question-answer": FormatFacts(("question", "answer"), asks="question", answers="answer"),
    "question-label": FormatFacts(("label",), ("question",), asks="question"),
    "messages": FormatFacts(("messages",)),
    "prompt-completion": FormatFacts(("prompt", "completion"), is_raw=True, asks="prompt", answers="completion"),
    "text": FormatFacts(("text",), is_raw=True, has_answers=False),
    "preference": FormatFacts(("chosen", "rejected"), ("question",), asks="question"),
    "raw-preference": FormatFacts(("prompt", "chosen", "rejected"), is_raw=True, asks="prompt"),
    "labelled": FormatFacts(("answer", "desirable"), ("question",), asks="question"),
    "raw-labelled": FormatFacts(("prompt", "completion", "desirable"), is_raw=True, asks="prompt"),
}
ANYWHERE = frozenset({"image", "group", "label", "id", "stage"})
"""Roles that any format may have."""
