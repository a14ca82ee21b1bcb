"""A prompt over several columns: `data.prompt` as a template.

`{column}` is replaced by the row's value, `{column.part}` by a part of a structured column. Text in brackets is left
out if a column in it is empty; `[if column:…]` and `[if not column:…]` depend on another column. Brackets without a
column stay as they are, as in `[INST]`; doubled braces and brackets always stand for single ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase
from typing import Any

LETTERS = "letters"
_TOKEN = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{[^{}]*\}|[\[\]{}]|[^\[\]{}]+")
_CONDITION = re.compile(r"if (not )?([^:\[\]{}]+):")


@dataclass(frozen=True)
class Column:
    """A column, or with a dot a part of one. `has_letters`: a list of choices, each with its letter."""

    name: str
    has_letters: bool = False


@dataclass(frozen=True)
class Bracketed:
    """A part in brackets."""

    pieces: tuple[str | Column, ...]
    condition: str | None = None
    is_negated: bool = False

    @property
    def columns(self) -> list[str]:
        named = [piece.name for piece in self.pieces if isinstance(piece, Column)]
        return [self.condition, *named] if self.condition else named


@dataclass(frozen=True)
class Template:
    parts: tuple[str | Column | Bracketed, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column, once. Empty: the text is the same for every row."""
        found: list[str] = []
        for part in self.parts:
            found += part.columns if isinstance(part, Bracketed) else [part.name] if isinstance(part, Column) else []
        return tuple(dict.fromkeys(found))

    @property
    def required(self) -> tuple[str, ...]:
        """The columns outside of brackets: a row without one of them is unusable."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Column)))

    def fill(self, values: Mapping[str, Any]) -> tuple[str, str | None]:
        """(the text, what is wrong with the row or None): a column outside of brackets is empty, or is no text."""
        text = ""
        for part in self.parts:
            if isinstance(part, Bracketed):
                text += _optional(part, values)
            elif isinstance(part, Column):
                said = _said(part, values)
                if not said:
                    return "", f"empty {part.name}"
                if said.strip().lower() == "nan":
                    return "", f'{part.name} is "nan"'
                text += said
            else:
                text += part
        return text, None


@lru_cache
def parse(text: str) -> Template:
    """A text without braces is the same question for every row, whatever else it contains.

    Raises:
        ValueError: with what to write instead.
    """
    if "{" not in text and "}" not in text:
        return Template((text,))
    tokens = _TOKEN.findall(text)
    parts: list[str | Column | Bracketed] = []
    place = 0
    while place < len(tokens):
        if tokens[place] == "[":
            end = next((i for i in range(place + 1, len(tokens)) if tokens[i] in "[]"), None)
            if end is None or tokens[end] == "[":
                raise ValueError("a [ without its ], or brackets in brackets; write [[ and ]] for brackets themselves")
            parts += _bracketed(tokens[place + 1 : end])
            place = end
        elif tokens[place] == "]":
            raise ValueError("a ] without its [; write ]] for a bracket itself")
        else:
            parts.append(_piece(tokens[place]))
        place += 1
    return Template(tuple(parts))


def _bracketed(tokens: list[str]) -> list[str | Column | Bracketed]:
    found = _CONDITION.match(tokens[0]) if tokens else None
    if found:
        rest = tokens[0][found.end() :]
        pieces = tuple(_piece(token) for token in [rest, *tokens[1:]] if token)
        return [Bracketed(pieces, found[2].strip(), is_negated=bool(found[1]))]
    pieces = tuple(map(_piece, tokens))
    if not any(isinstance(piece, Column) for piece in pieces):
        return ["[", *pieces, "]"]
    return [Bracketed(pieces)]


def _piece(token: str) -> str | Column:
    if token in ("{{", "}}", "[[", "]]"):
        return token[0]
    if token in ("{", "}"):
        raise ValueError(f"a {token} without its partner; write {token}{token} for a brace itself")
    if not token.startswith("{"):
        return token
    name, colon, form = token[1:-1].partition(":")
    if not name.strip() or (colon and form != LETTERS) or re.search(r'["!\[\]\n]', name):
        raise ValueError(
            f"{token}: in braces stands the name of a column, as in {{question}}, or {{choices:letters}} for a list of "
            "choices behind A., B. …; write {{ and }} for braces themselves"
        )
    return Column(name.strip(), has_letters=bool(colon))


def _optional(part: Bracketed, values: Mapping[str, Any]) -> str:
    if part.condition and bool(_text(Column(part.condition), values)) is part.is_negated:
        return ""
    said = [_text(piece, values) if isinstance(piece, Column) else piece for piece in part.pieces]
    return "".join(said) if all(said) else ""


def _text(column: Column, values: Mapping[str, Any]) -> str:
    """Empty where the value is missing, which pandas writes as nan."""
    said = _said(column, values)
    return "" if said.strip().lower() == "nan" else said


def _said(column: Column, values: Mapping[str, Any]) -> str:
    value = find(column.name, values)
    if isinstance(value, list | tuple):
        texts = [_as_text(item) for item in value]
        if column.has_letters:
            return "\n".join(f"{_letter(number)}. {text}" for number, text in enumerate(texts))
        value = "\n\n".join(text for text in texts if text)
    elif isinstance(value, Mapping):
        named = {key: _as_text(item) for key, item in value.items()}
        value = "\n".join(f"{key}. {text}" for key, text in named.items() if text)
    return _as_text(value)


def _letter(number: int) -> str:
    return ascii_uppercase[number] if number < len(ascii_uppercase) else str(number + 1)


def find(name: str, values: Mapping[str, Any]) -> Any:
    """The value of a column or of a part of it; None where there is none."""
    if name in values:
        return values[name]
    first, _, rest = name.partition(".")
    inner = values.get(first)
    return find(rest, inner) if rest and isinstance(inner, Mapping) else None


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value)
    return text if text.strip() else ""
