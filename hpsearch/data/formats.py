"""The formats of rows: from a row's columns to its conversation, or to the reason why the row is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hpsearch.errors import cut
from hpsearch.spec.data import DataSpec
from hpsearch.spec.rows import FORMATS, PLACEHOLDER, RowFormat

Message = dict[str, str]
"""`role` and `content`: the text; in a user's text placeholders mark the images where their positions are given."""
Values = Mapping[str, Any]
"""A row of the data: column → value."""


_NO_MESSAGE = "a message without role and text content"


def conversation(values: Values, data: DataSpec, label: str | None) -> list[Message] | str:
    """The row's conversation, which ends with the assistant's answer (also raw prompts and completions), or what is
    wrong with the row.

    `label`: the row's label, as the study names it.
    """
    return _READERS[data.columns.row_format](values, data, label)


def question(values: Values, data: DataSpec) -> tuple[str, str | None]:
    """(the row's question, what is wrong with it or None): from the question column, or `data.prompt`.

    The only place where a question is made, for training, evaluation and prediction.
    """
    row_format = FORMATS[data.columns.row_format]
    role = str(row_format.asks)
    column = data.columns.named().get(role)
    if data.template.columns or column is None:
        text, wrong = data.template.fill(values)
        if wrong:
            return "", wrong
    else:
        text = as_text(values.get(column)) or ""
        if text.strip().lower() == "nan":
            return "", f'{role} is "nan"'
    if not text.strip():
        return "", f"empty {role}"
    return text if row_format.is_raw else text.strip(), None


def as_text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value)


def chat_messages(value: Any, *, has_images: bool) -> list[Message] | str:
    """A conversation that ends with the assistant, or what is wrong with it.

    The content of a turn is a text, or a list of parts: {type: text, text: …} and, in user turns where `has_images`,
    {type: image}.
    """
    if not isinstance(value, list) or not value:
        return "empty messages"
    messages = []
    for turn in value:
        message = _message(turn, has_images=has_images)
        if isinstance(message, str):
            return message
        messages.append(message)
    if messages[-1]["role"] != "assistant":
        return "last message is not the assistant's"
    return messages


def _message(turn: Any, *, has_images: bool) -> Message | str:
    if not isinstance(turn, dict) or "role" not in turn:
        return _NO_MESSAGE
    role, content = str(turn["role"]), turn.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    if any(map(_is_image, parts)) and not (has_images and role == "user"):
        return f"an image in a message from {role}"
    texts = [PLACEHOLDER if _is_image(part) else _text(part) for part in parts]
    if not texts or None in texts:
        return _NO_MESSAGE
    text = "".join(text for text in texts if text is not None)
    return _said(role, text) if text.strip() else f"empty message from {role}"


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image"


def _text(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    return text if isinstance(text, str) else None


def answer_name(value: Any) -> str | None:
    """The value of an answer column, as `data.answers` names it. A whole number is kept as one beside missing
    values.
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else as_text(value)


def _chat(values: Values, data: DataSpec, label: str | None) -> list[Message] | str:
    del label
    assert data.columns.messages is not None
    return chat_messages(values[data.columns.messages], has_images=data.columns.image is not None)


def _pair(values: Values, data: DataSpec, label: str | None) -> list[Message] | str:
    """The question, and the answer from its column."""
    del label
    asked, wrong = question(values, data)
    if wrong:
        return wrong
    row_format = FORMATS[data.columns.row_format]
    role = str(row_format.answers)
    answer, wrong = _answer(values[data.columns.named()[role]], data, role)
    if wrong:
        return wrong
    return [_said("user", asked), _said("assistant", answer if row_format.is_raw else answer.strip())]


def _answer(value: Any, data: DataSpec, role: str) -> tuple[str, str | None]:
    """(the answer as the study names it, what is wrong with it or None)."""
    text = as_text(value)
    if text is None or not text.strip():
        return "", f"empty {role}"
    if data.answers:
        name = str(answer_name(value))
        return (
            (data.answers[name], None)
            if name in data.answers
            else ("", f"{role} {cut(repr(name))} is not in data.answers")
        )
    return (text, f'{role} is "nan"') if text.strip().lower() == "nan" else (text, None)


def _labelled(values: Values, data: DataSpec, label: str | None) -> list[Message] | str:
    asked, wrong = question(values, data)
    if wrong:
        return wrong
    if label is None or not label.strip():
        return "empty label"
    return [_said("user", asked), _said("assistant", label)]


def _plain_text(values: Values, data: DataSpec, label: str | None) -> list[Message] | str:
    """The whole text is learned: an answer without a question."""
    del label
    text = as_text(values[data.columns.named()["text"]])
    if text is None or not text.strip():
        return "empty text"
    if text.strip().lower() == "nan":
        return 'text is "nan"'
    return [_said("user", ""), _said("assistant", text)]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _judged(values: Values, data: DataSpec, label: str | None) -> list[Message] | str:
    """The conversation with the chosen answer of a pair, or with an answer labelled as desirable or not."""
    del label
    row_format = FORMATS[data.columns.row_format]
    if not row_format.has_pairs:
        if is_desirable(values, data) is None:
            return "desirable is neither true nor false"
        return _ended(values, data, "completion" if row_format.is_raw else "answer")
    chosen, rejected = _ended(values, data, "chosen"), _ended(values, data, "rejected")
    if isinstance(chosen, str):
        return chosen
    if isinstance(rejected, str):
        return rejected
    if chosen[:-1] != rejected[:-1]:
        return "chosen and rejected differ before their last message"
    return "chosen equals rejected" if chosen == rejected else chosen


def _ended(values: Values, data: DataSpec, role: str) -> list[Message] | str:
    """The conversation that ends with this role's answer, or what is wrong with it.

    An answer may be a turn, or several. One that includes its question must repeat the text of the question's column.
    """
    answer = values[data.columns.named()[role]]
    answer = [answer] if isinstance(answer, dict) else answer
    asked: list[Any] | str = []
    if not (isinstance(answer, list) and any(isinstance(turn, dict) and turn.get("role") == "user" for turn in answer)):
        asked = turns_asked(values, data)
    if isinstance(asked, str):
        return asked
    if not isinstance(answer, list):
        text = as_text(answer) or ""
        if text.strip().lower() in ("", "nan"):
            return f'{role} is "nan"' if text.strip() else f"empty {role}"
        answer = [_said("assistant", text)]
    read = chat_messages([*asked, *answer], has_images=data.columns.image is not None)
    if isinstance(read, str) or FORMATS[data.columns.row_format].is_raw:
        return read
    return [_said(message["role"], message["content"].strip()) for message in read]


def turns_asked(values: Values, data: DataSpec) -> list[Any] | str:
    """The turns before an answer; a column of messages is used as it is."""
    row_format = FORMATS[data.columns.row_format]
    column = data.columns.named().get(str(row_format.asks))
    if column and row_format.is_judged and isinstance(values.get(column), list):
        turns: list[Any] = values[column]
        return turns or "empty question"
    if conversation_column(data) is not None:
        return "no question"
    text, wrong = question(values, data)
    return wrong or [_said("user", text)]


def conversation_column(data: DataSpec) -> str | None:
    """The column with the whole conversation; None where another column, or `data.prompt`, has the question."""
    columns = data.columns
    named = columns.named()
    row_format = FORMATS[columns.row_format]
    asks = row_format.asks in named or data.template.columns or columns.image
    if not row_format.is_judged or asks:
        return columns.messages
    return columns.chosen or columns.answer


def rejected_answer(values: Values, data: DataSpec) -> str | None:
    """For a row whose conversation was read; None where rows have no second answer."""
    found = _ended(values, data, "rejected") if data.columns.rejected else None
    return None if found is None or isinstance(found, str) else found[-1]["content"]


def is_desirable(values: Values, data: DataSpec) -> bool | None:
    """None where rows have no such label, or this one's is empty."""
    column = data.columns.desirable
    said = str(values[column]).strip().lower() if column else ""
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(said)


_READERS: dict[RowFormat, Callable[[Values, DataSpec, str | None], list[Message] | str]] = {
    "question-answer": _pair,
    "question-label": _labelled,
    "messages": _chat,
    "prompt-completion": _pair,
    "text": _plain_text,
    "preference": _judged,
    "raw-preference": _judged,
    "labelled": _judged,
    "raw-labelled": _judged,
}
