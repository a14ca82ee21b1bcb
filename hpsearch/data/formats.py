"""The formats of rows: from a row's columns to its conversation, or to the reason for which it is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hpsearch.spec.data import ColumnsSpec
from hpsearch.spec.rows import FORMATS, RowFormat

Message = dict[str, str]
Values = Mapping[str, Any]
"""A row as the data has it: column → value."""


def conversation(values: Values, columns: ColumnsSpec, prompt: str, label: str | None) -> list[Message] | str:
    """Ends with the assistant's answer; raw prompts and completions use the same form.

    `prompt` is asked where there is no question column; `label`: the row's, by the name that the study gives it.
    """
    return _READERS[columns.row_format](values, columns, prompt, label)


def as_text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value)


def chat_messages(value: Any) -> list[Message] | str:
    """A conversation that the assistant ends, or what is wrong with it."""
    if not isinstance(value, list) or not value:
        return "empty messages"
    messages = []
    for turn in value:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str) or "role" not in turn:
            return "a message without role and text content"
        if not turn["content"].strip():
            return f"empty message from {turn['role']}"
        messages.append({"role": str(turn["role"]), "content": turn["content"]})
    if messages[-1]["role"] != "assistant":
        return "last message is not the assistant's"
    return messages


def _chat(values: Values, columns: ColumnsSpec, prompt: str, label: str | None) -> list[Message] | str:
    del prompt, label
    assert columns.messages is not None
    return chat_messages(values[columns.messages])


def _pair(values: Values, columns: ColumnsSpec, prompt: str, label: str | None) -> list[Message] | str:
    """Two columns of text: what is asked, and what shall be said."""
    del prompt, label
    row_format = FORMATS[columns.row_format]
    texts = []
    for role in row_format.needs:
        text = as_text(values[getattr(columns, role)])
        if text is None or not text.strip():
            return f"empty {role}"
        if text.strip().lower() == "nan":
            return f'{role} is "nan"'
        texts.append(text if row_format.is_raw else text.strip())
    return [{"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[1]}]


def _labelled(values: Values, columns: ColumnsSpec, prompt: str, label: str | None) -> list[Message] | str:
    question = as_text(values[columns.question]) if columns.question else prompt
    if question is None or not question.strip():
        return "empty question"
    if label is None or not label.strip():
        return "empty label"
    return [{"role": "user", "content": question.strip()}, {"role": "assistant", "content": label}]


_READERS: dict[RowFormat, Callable[[Values, ColumnsSpec, str, str | None], list[Message] | str]] = {
    "question-answer": _pair,
    "question-label": _labelled,
    "messages": _chat,
    "prompt-completion": _pair,
}
