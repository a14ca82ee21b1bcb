"""pydantic's errors in plain words, for a person who wrote YAML."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from hpsearch.errors import cut, did_you_mean

_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_KINDS = (
    ("int_", "a whole number"),
    ("float_", "a number"),
    ("finite_number", "a finite number"),
    ("string_type", "text"),
    ("bool_", "true or false"),
    ("date", "a date and a time, as 2026-12-24 08:00"),
    ("dict_type", "a mapping of keys"),
    ("model_", "a mapping of keys"),
)
"""How the name of an error begins → what was expected (https://docs.pydantic.dev/latest/errors/validation_errors)."""


def explain(*errors: Any) -> str:
    """What is wrong with one value. A field that takes several kinds of values, such as auto or a number, has an error
    for each.
    """
    if any(error["type"] == "too_short" for error in errors):
        return "must not be empty"
    if len(errors) > 1:
        expected = dict.fromkeys(words for error in errors if (words := _expected(error)))
        return f"expected {' or '.join(expected)}, found {_found(errors[0])}" + "".join(map(_near, errors))
    (error,) = errors
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return _message(error)
    if kind in _BOUNDS:
        return f"must be {_expected(error)}, not {_found(error)}"
    if kind == "union_tag_not_found":
        return f"its {str(context['discriminator']).strip(chr(39))} is missing"
    if kind == "union_tag_invalid":
        known = [name.strip("'") for name in str(context["expected_tags"]).split(", ")]
        return f"there is no {cut(repr(context['tag']))}; {did_you_mean(str(context['tag']), known)}"
    if kind == "string_pattern_mismatch":
        return f"may hold letters, digits, dots, dashes and underscores only, found {_found(error)}"
    if kind == "invalid_key":
        return f"a key must be text, found {_found(error)}: put it in quotes"
    is_unquoted = kind == "string_type" and isinstance(error.get("input"), bool | int | float | dict)
    hint = ": put it in quotes" if is_unquoted else _near(error)
    return f"expected {_expected(error)}, found {_found(error)}{hint}"


def _expected(error: Any) -> str:
    kind, value = error["type"], error.get("input")
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{words} {error['ctx'][bound]:g}"
    if kind == "list_type":
        return f"a list, such as [{value if isinstance(value, str | int | float) else 'a, b'}]"
    message = _message(error)
    plain = next((words for start, words in _KINDS if kind.startswith(start)), None)
    return plain or f"{message[0].lower()}{message[1:]}"


def _message(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")


def _found(error: Any) -> str:
    value = error.get("input")
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else cut(repr(value))


def _near(error: Any) -> str:
    """A clause with the nearest of the names that may stand there."""
    if error["type"] != "literal_error":
        return ""
    known = re.findall(r"'([^']*)'", _message(error))
    near = get_close_matches(cut(str(error.get("input"))), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
