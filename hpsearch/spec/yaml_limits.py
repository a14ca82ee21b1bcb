"""YAML within limits: bytes, depth, values and aliases are counted before anything is built from them.

Study files, other tools' files and `--set` are read here. A few hundred bytes can mean billions of values (aliases of
aliases), and ten thousand brackets crash PyYAML's composer. So the parser's events, which come one by one and need no
memory, are counted first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import Reader

from hpsearch.errors import InputError, cut
from hpsearch.spec.yaml_words import in_words

_MOST_BYTES = 256 * 1024
MOST_LEVELS = 32
_MOST_VALUES = 20_000
_MOST_ALIASES = 100
_LONGEST_NUMBER = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class NotYaml(InputError):
    """Why a text can't be read, and the line (from 1; None: no single line)."""

    def __init__(self, message: str, line: int | None) -> None:
        self.message = message
        self.line = line
        super().__init__(f"line {line}: {message}" if line else message)


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, in which every value that can't be constructed is a YAMLError.

    Its own raises any error of Python's functions: ValueError for the date 2024-13-45 and for a number with more digits
    than Python reads, KeyError for `!!bool maybe`, AttributeError for `!!timestamp now` (PyYAML 6.0.3, constructor.py,
    https://github.com/yaml/pyyaml/blob/6.0.3/lib/yaml/constructor.py).
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            problem = f"a number of {len(node.value)} characters; at most {_LONGEST_NUMBER} are read"
            raise ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            problem = f"{cut(repr(node.value))} is no {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from None


def read_text(path: Path) -> str:
    """Raises NotYaml where the file is too large or not UTF-8, and OSError."""
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise NotYaml(f"has more than {_MOST_BYTES // 1024} KiB; is it the right file?", None)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is no text in UTF-8: byte {error.start} is 0x{content[error.start]:02x}; save it as UTF-8"
        raise NotYaml(message, content[: error.start].count(b"\n") + 1) from None


def read_yaml(text: str, loader: type[Loader] = Loader) -> Any:
    """The value of the one document in `text`. Raises NotYaml."""
    return construct(compose(text, loader), loader)


def compose(text: str, loader: type[Loader] = Loader) -> yaml.Node | None:
    """The nodes of the one document in `text`, with their lines. Raises NotYaml."""
    if found := Reader.NON_PRINTABLE.search(text):
        message = f"holds the character {found.group()!r}, which YAML does not allow"
        raise NotYaml(message, text.count("\n", 0, found.start()) + 1)
    with _in_words(text.rstrip("\n").count("\n") + 1, text):
        _check_limits(text, loader)
        return yaml.compose(text, Loader=loader)


def construct(node: yaml.Node | None, loader: type[Loader] = Loader) -> Any:
    """The value of the nodes; merged sections (`<<`) become part of their nodes. Raises NotYaml."""
    if node is None:
        return None
    with _in_words(node.end_mark.line + 1):
        return loader("").construct_document(node)


@contextmanager
def _in_words(last_line: int, text: str = "") -> Iterator[None]:
    """libyaml reports what is missing at the end of a text on the line after it."""
    try:
        yield
    except yaml.YAMLError as error:
        words, line = in_words(error, text)
        raise NotYaml(words, min(line, last_line) if line else None) from None


@dataclass
class _Open:
    """A list or mapping that is not closed yet."""

    anchor: str | None
    values_before: int
    levels: int = 1


class _Count:
    """Counts values and levels of a text, with each alias counted in full."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchored: dict[str, tuple[int, int]] = {}
        self._values = 0
        self._aliases = 0

    def take(self, event: yaml.Event) -> None:
        """Raises NotYaml where a limit is passed."""
        match event:
            case yaml.AliasEvent(anchor=str(anchor)):
                self._aliases += 1
                if any(collection.anchor == anchor for collection in self._open):
                    _refuse(f"*{cut(anchor)} stands within what it names", event)
                self._add(*self._anchored.get(anchor, (1, 0)))  # the composer reports an unknown one
            case yaml.ScalarEvent(anchor=anchor):
                self._add(1, 0)
                self._remember(anchor, 1, 0)
            case yaml.CollectionStartEvent(anchor=anchor):
                self._open.append(_Open(anchor, self._values))
                self._add(1, 0)
            case yaml.CollectionEndEvent():
                ended = self._open.pop()
                self._remember(ended.anchor, self._values - ended.values_before, ended.levels)
                self._deepen(ended.levels)
        self._check(event)

    def _add(self, values: int, levels: int) -> None:
        self._values += values
        self._deepen(levels)

    def _deepen(self, levels: int) -> None:
        if self._open:
            self._open[-1].levels = max(self._open[-1].levels, levels + 1)

    def _remember(self, anchor: str | None, values: int, levels: int) -> None:
        if anchor is not None:
            self._anchored[anchor] = (values, levels)

    def _check(self, event: yaml.Event) -> None:
        if self._open and len(self._open) - 1 + self._open[-1].levels > MOST_LEVELS:
            _refuse(f"is nested more than {MOST_LEVELS} levels deep", event)
        if self._aliases > _MOST_ALIASES:
            _refuse(f"has more than {_MOST_ALIASES} aliases (*name)", event)
        if self._values > _MOST_VALUES:
            aliases = ", each alias (*name) counted as what it stands for" if self._aliases else ""
            _refuse(f"holds more than {_MOST_VALUES:,} values{aliases}", event)


def _check_limits(text: str, loader: type[Loader]) -> None:
    count = _Count()
    for event in yaml.parse(text, Loader=loader):
        count.take(event)


def _refuse(message: str, event: yaml.Event) -> NoReturn:
    raise NotYaml(message, event.start_mark.line + 1 if event.start_mark else None)
