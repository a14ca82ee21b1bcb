"""The formats of rows, as facts: which columns tell each, and which it needs. How one is read is in `data/formats`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RowFormat = Literal["question-answer", "question-label", "messages", "prompt-completion"]


@dataclass(frozen=True)
class FormatFacts:
    needs: tuple[str, ...]
    """Roles of columns, see `data.ColumnsSpec`."""
    may_have: tuple[str, ...] = ()
    is_raw: bool = False
    """Texts as they are: no chat template, no turns."""


FORMATS: dict[RowFormat, FormatFacts] = {
    "question-answer": FormatFacts(("question", "answer")),
    "question-label": FormatFacts(("label",), ("question",)),
    "messages": FormatFacts(("messages",)),
    "prompt-completion": FormatFacts(("prompt", "completion"), is_raw=True),
}
ANYWHERE = frozenset({"image", "group", "label", "id", "stage"})
"""Roles that say something of a row, whatever its format."""
