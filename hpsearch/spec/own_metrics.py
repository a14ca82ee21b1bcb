"""The user's own metrics: what a study's metrics file says about its functions, read without running it.

Only a trainer runs the file (`train.own_metrics`). Everything else reads a metric's name, direction and range from the
decorators in the syntax tree, where they are plain values. So a study can be opened on a machine that doesn't have
what the functions import.

    from hpsearch import metric

    @metric(direction="maximize", low=0, high=1)
    def same_number(reference: str, prediction: str) -> float: ...
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpsearch.errors import cut, did_you_mean
from hpsearch.spec.metrics import METRICS, Metric

MOST_BYTES = 64 * 1024
"""The text is stored with the study: it should hold functions, no data."""
_LONGEST_TITLE = 60
_FACTS = ["direction", "low", "high", "unit", "title"]
_PARAMETERS = ("reference", "prediction")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class OwnMetrics:
    """The valid metrics, and the file's mistakes: each as a clause that begins with its line."""

    metrics: dict[str, Metric]
    mistakes: list[str]


class _Wrong(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")


def read_metrics_file(file: Path) -> str:
    """The file's text. Raises ValueError with the reason, as a clause."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        if file.exists():
            raise ValueError(f"{file} can't be read: {error.strerror or error}") from None
        beside = sorted(other.name for other in file.parent.glob("*.py")) if file.parent.is_dir() else []
        near = f"; {did_you_mean(file.name, beside)}" if beside else ""
        raise ValueError(f"there is no file {file}{near}") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"{file} has more than {MOST_BYTES // 1024} KiB: it should hold functions, no data")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{file} line {line}: is no text in UTF-8; save it as UTF-8") from None


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=32)
def code_of(text: str) -> str:
    """The code without comments, blank lines and layout; the text itself where it is no valid Python."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.dump(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text


@lru_cache(maxsize=32)
def own_metrics(text: str) -> OwnMetrics:
    """The metrics in the text of a metrics file. The text is not executed."""
    try:
        with warnings.catch_warnings(action="ignore"):  # "\d" in a plain string, a warning for the person who runs it
            tree = ast.parse(text)
            compile(tree, "", "exec", dont_inherit=True)  # finds more: `return` outside of a function
    except SyntaxError as error:
        place = f"line {error.lineno}: " if error.lineno else ""
        return OwnMetrics({}, [f"{place}is no Python: {error.msg}"])
    except (ValueError, RecursionError, MemoryError) as error:
        return OwnMetrics({}, [f"is no Python: {cut(str(error))}"])
    names, found, mistakes = _Names(tree), {}, []
    for function, decorator in _decorated(tree, names):
        try:
            metric = _metric(function, decorator, text)
            if function not in tree.body:
                raise _Wrong(function.lineno, f"{metric.name} stands inside of something: move it to the left margin")
            if metric.name in found:
                raise _Wrong(function.lineno, f"there is a metric {metric.name} already")
            found[metric.name] = metric
        except _Wrong as wrong:
            mistakes.append(str(wrong))
    if not found and not mistakes:
        mistakes.append(
            "has no metric: `from hpsearch import metric`, and put @metric(direction=…) above a function "
            "(reference, prediction)"
        )
    return OwnMetrics(found, mistakes)


class _Names:
    """The file's names for hpsearch and for `hpsearch.metric`."""

    def __init__(self, tree: ast.Module) -> None:
        self._modules: set[str] = set()
        self._decorators: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._modules |= {alias.asname or alias.name for alias in node.names if alias.name == "hpsearch"}
            elif isinstance(node, ast.ImportFrom) and node.module == "hpsearch" and not node.level:
                self._decorators |= {alias.asname or alias.name for alias in node.names if alias.name == "metric"}

    def are_ours(self, decorator: ast.expr) -> bool:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(called, ast.Attribute):
            return isinstance(called.value, ast.Name) and called.value.id in self._modules and called.attr == "metric"
        return isinstance(called, ast.Name) and called.id in self._decorators


def _decorated(tree: ast.Module, names: _Names) -> Iterator[tuple[_Function, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            for decorator in node.decorator_list:
                if names.are_ours(decorator):
                    yield node, decorator


def _metric(function: _Function, decorator: ast.expr, text: str) -> Metric:
    name = function.name
    if name in METRICS:
        raise _Wrong(function.lineno, f"{name} is one of hpsearch's own metrics: call it something else")
    _check_parameters(function)
    facts = _facts(decorator)
    try:
        metric = Metric(
            name=name,
            title=facts.pop("title", None) or name.replace("_", " "),
            over="texts",
            sha256=sha256_of(text),
            **facts,
        )
    except ValidationError as error:
        first = error.errors()[0]
        message = (
            f"{first['loc'][0]}: {first['msg'].removeprefix('Input should be ')}, found {cut(repr(first['input']))}"
        )
        raise _Wrong(decorator.lineno, f"@metric of {name}: {message}") from None
    if len(metric.title) > _LONGEST_TITLE or not metric.title.isprintable():
        raise _Wrong(decorator.lineno, f"@metric of {name}: title: at most {_LONGEST_TITLE} letters in one line")
    if metric.low is not None and metric.high is not None and metric.low >= metric.high:
        raise _Wrong(decorator.lineno, f"@metric of {name}: low={metric.low:g} is not below high={metric.high:g}")
    return metric


def _facts(decorator: ast.expr) -> dict[str, Any]:
    line, missing = decorator.lineno, "@metric needs a direction: @metric(direction='maximize') or 'minimize'"
    if not isinstance(decorator, ast.Call):
        raise _Wrong(line, missing)
    if decorator.args:
        raise _Wrong(decorator.args[0].lineno, "@metric takes each value by its name: @metric(direction='maximize')")
    facts: dict[str, Any] = {}
    for keyword in decorator.keywords:
        if keyword.arg not in _FACTS:
            near = did_you_mean(keyword.arg, _FACTS) if keyword.arg else f"known: {', '.join(_FACTS)}"
            raise _Wrong(keyword.lineno, f"@metric takes no {cut(ast.unparse(keyword))}; {near}")
        try:
            facts[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            written = cut(ast.unparse(keyword))
            message = f"{written}: write the plain value; it is read without running the file"
            raise _Wrong(keyword.lineno, message) from None
    if "direction" not in facts:
        raise _Wrong(line, missing)
    return facts


def _check_parameters(function: _Function) -> None:
    """Both are passed by name, so their order doesn't matter."""
    if isinstance(function, ast.AsyncFunctionDef):
        raise _Wrong(function.lineno, f"{function.name} is async: a metric is a plain function")
    given = function.args
    plain, only_named = [a.arg for a in given.args], [a.arg for a in given.kwonlyargs]
    needed = plain[: len(plain) - len(given.defaults)] if not given.posonlyargs else []
    needed += [name for name, default in zip(only_named, given.kw_defaults, strict=True) if default is None]
    has_both = all(name in (*plain, *only_named) for name in _PARAMETERS)
    if given.posonlyargs or not has_both or set(needed) - set(_PARAMETERS):
        parameters = cut(ast.unparse(given))
        raise _Wrong(function.lineno, f"{function.name}({parameters}): a metric takes (reference, prediction)")
