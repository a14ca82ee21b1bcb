"""What PyYAML objects to in a text, in words that say what to write instead."""

from __future__ import annotations

import yaml

from hpsearch.errors import cut

_NOT_CLOSED = "is not closed, or something between its items is missing or too much: a comma, a quote"
_ESCAPE = "a \\ in double quotes begins an escape such as \\n: write single quotes instead, or \\\\"
_WORDS = {
    "mapping values are not allowed": "a key may not begin here: it is indented too far, or the line above lacks "
    "its ': '; text with ': ' in it needs quotes",
    "did not find expected key": "is indented differently from the lines above, or a quote, [ or { above is not closed",
    "did not find expected '-' indicator": "expected '- ', as before the other items of this list",
    "block sequence entries are not allowed": "an item of a list ('- ') may not begin here: give it a line of its own",
    "could not find expected ':'": "expected a key, a colon and a space, as in  epochs: 1",
    "did not find expected ',' or ']'": f"the list that begins here with [ {_NOT_CLOSED}",
    "did not find expected ',' or '}'": f"the section that begins here with {{ {_NOT_CLOSED}",
    "found unexpected end of stream": "the quote that begins here is not closed",
    "found unknown escape character": _ESCAPE,
    "did not find expected hexdecimal number": _ESCAPE,
    "found character that cannot start any token": "no text begins with @, ` or %: put it in quotes",
    "did not find expected node content": "expected a value; if it is text, put it in quotes",
    "did not find expected alphabetic or numeric character": "text that begins with * or & needs quotes",
    "found undefined alias": "no anchor above has the name of this alias; text that begins with * needs quotes",
    "found undefined tag handle": "text that begins with ! needs quotes",
    "could not determine a constructor for the tag": "hpsearch knows no such tag; text that begins with ! needs quotes",
    "found unhashable key": "a key must be text: put it in quotes",
    "did not find expected <document start>": "stands after the end of the first value: a file is one mapping of keys",
    "but found another document": "holds a second document after '---': a file is one document",
}
"""How a problem of libyaml (0.2.5, src/scanner.c, src/parser.c) or PyYAML (6.0.3, constructor.py) begins → in words."""
_BEGUN = ("could not find expected ':'", "did not find expected ',' or", "found unexpected end of stream")
"""Found where the text ends that was begun too early: the line where it begins is told."""


def in_words(error: yaml.YAMLError, text: str) -> tuple[str, int | None]:
    """(what is wrong, its line from 1 or None)."""
    problem = str(getattr(error, "problem", None) or getattr(error, "context", None) or "is not YAML")
    mark = getattr(error, "problem_mark", None)
    if problem.startswith(_BEGUN):
        mark = getattr(error, "context_mark", None) or mark
    line = mark.line + 1 if mark else None
    lines = text.split("\n")
    found = lines[line - 1] if line and line <= len(lines) else ""
    if "\t" in found[: len(found) - len(found.lstrip())]:
        return "is indented with a tab: write spaces", line
    words = next((words for start, words in _WORDS.items() if problem.startswith(start)), None)
    return words or cut(problem, 200), line
