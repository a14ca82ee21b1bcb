"""Other tools' prompts as `data.prompt`: one template for rows with an input and rows without."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher

from hpsearch.spec.template import parse

_TOKEN = re.compile(r"\{\w+\}|\w+|\s|[^\w\s]")
Places = Mapping[str, str]
"""Field of a foreign prompt (instruction, input, system) → column."""


def joined(columns: tuple[str, ...], between: str) -> str | None:
    """The first column, and the others where they are not empty; None where no template can name them."""
    first, *rest = columns
    text = _column(first) + "".join(f"[{_doubled(between)}{_column(name)}]" for name in rest)
    said = {name: name for name in columns}
    return _checked(text, [(said, between.join(columns)), ({first: first}, first)])


def merged(with_input: str, without_input: str, places: Places) -> str | None:
    """One template that is equivalent to the texts with and without an input; a field without a column is empty.

    None where there is no such template.
    """
    given, missing = _tokens(with_input, places), _tokens(without_input, places)
    both: list[str] = []
    text = ""
    for kind, first, end, start, stop in SequenceMatcher(None, given, missing, autojunk=False).get_opcodes():
        some, none = given[first:end], missing[start:stop]
        if kind == "equal":
            both += some
            continue
        if "{system}" in (*some, *none):
            return None  # it may be empty too, which would need nested brackets
        if some and not none:
            both, some, after = _from_its_beginning(both, some)
        else:
            after = []
        text += _outside(both, places) + _bracketed(some, none, places)
        both = after
    return _checked(text + _outside(both, places), _samples(with_input, without_input, places))


def _samples(with_input: str, without_input: str, places: Places) -> list[tuple[Places, str]]:
    """Sample rows, and the texts expected for them."""
    found: list[tuple[Places, str]] = []
    for empty in ((), ("input",), ("system",), ("input", "system")):
        said = {place: "" if place in empty or not column else place for place, column in places.items()}
        wording = with_input if said["input"] else without_input
        for place, word in said.items():
            wording = wording.replace(f"{{{place}}}", word)
        found.append(({column: said[place] for place, column in places.items() if column}, wording))
    return found


def _tokens(text: str, places: Places) -> list[str]:
    return [token for token in _TOKEN.findall(text) if places.get(token[1:-1], token) or token[0] != "{"]


def _from_its_beginning(before: list[str], part: list[str]) -> tuple[list[str], list[str], list[str]]:
    """(the text before, the part, the text after): moves a common text so that a heading is whole within the part."""
    behind: list[str] = []
    while before and before[-1] == part[-1] and part[-1][0] != "{":
        behind.insert(0, part[-1])
        before, part = before[:-1], [before[-1], *part[:-1]]
    return before, part, behind


def _bracketed(some: list[str], none: list[str], places: Places) -> str:
    text = ""
    if some:
        condition = "" if "{input}" in some else f"if {places['input']}:"
        text += f"[{condition}{''.join(_inside(token, places) for token in some)}]"
    if none:
        text += f"[if not {places['input']}:{''.join(_inside(token, places) for token in none)}]"
    return text


def _outside(tokens: list[str], places: Places) -> str:
    """Only the instruction is required."""
    text = ""
    for token in tokens:
        shown = _inside(token, places)
        is_optional = token in ("{input}", "{system}") and token[1:-1] in places
        text += f"[{shown}]" if is_optional else shown
    return text


def _inside(token: str, places: Places) -> str:
    place = token[1:-1]
    return _column(places[place]) if token[0] == "{" and place in places else _doubled(token)


def _column(name: str) -> str:
    return f"{{{name}}}"


def _doubled(text: str) -> str:
    return re.sub(r"([{}\[\]])", r"\1\1", text)


def _checked(text: str, samples: list[tuple[Places, str]]) -> str | None:
    """The template if it gives the expected texts: brackets next to brackets, as in `[[[INST]]`, may be parsed
    differently.
    """
    try:
        found = parse(text)
    except ValueError:
        return None
    says_so = all(found.fill(values) == (expected, None) for values, expected in samples)
    return text if found.columns and says_so else None
