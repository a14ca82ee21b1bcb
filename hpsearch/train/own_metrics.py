"""The user's own metrics: the one place where the code of a metrics file runs.

    with loaded(config.metrics_file) as metrics:
        metrics["same_number"].of(row_id, reference, prediction)

Every error in that code is reported with the line of the file and the row.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import torch

from hpsearch.errors import FieldError, cut
from hpsearch.files import write_text
from hpsearch.jobs import AnsweredRow
from hpsearch.spec.metrics import Metric
from hpsearch.spec.own_metrics import own_metrics
from hpsearch.train.channel import Channel
from hpsearch.train.failure import is_out_of_memory
from hpsearch.trial import MetricsFile

_MODULE = "the_studys_own_metrics"
_SECONDS_BETWEEN_TELLING = 0.3
_ROUNDING = 1e-9
"""How far a number may be outside of its range, as a share of 1: a cosine of 1.0000000000000002 counts as 1."""


class MetricFailed(FieldError):
    """A person's own metric returned no valid number for a row."""

    def __init__(self, message: str) -> None:
        super().__init__("evaluation.metrics_file", message)


@dataclass(frozen=True)
class OwnMetric:
    fact: Metric
    file: str
    function: Any
    """The function of this name in the executed file."""

    def of(self, row_id: str, reference: str, prediction: str) -> float:
        """Raises MetricFailed where there is no number within the metric's range."""
        try:
            given = self.function(reference=reference, prediction=prediction)
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            raise MetricFailed(self._told(row_id, f"raised {_raised(error, self.file)}")) from None
        number = _number(given)
        if number is None:
            raise MetricFailed(self._told(row_id, f"gave no number but {cut(repr(given))}"))
        if not math.isfinite(number):
            raise MetricFailed(self._told(row_id, f"gave {number}"))
        low, high = self.fact.low, self.fact.high
        if low is not None and number < low:
            if number < low - _ROUNDING * max(1.0, abs(low)):
                raise MetricFailed(self._told(row_id, f"gave {number:g}, and its range begins at low={low:g}"))
            return low
        if high is not None and number > high:
            if number > high + _ROUNDING * max(1.0, abs(high)):
                raise MetricFailed(self._told(row_id, f"gave {number:g}, and its range ends at high={high:g}"))
            return high
        return number

    def _told(self, row_id: str, what: str) -> str:
        return f"{self.file}: {self.fact.name} {what}, for row {row_id!r}"


@contextmanager
def loaded(file: MetricsFile | None) -> Iterator[dict[str, OwnMetric]]:
    """Its metrics by name; everything of the file is removed from the process afterwards.

    The module is in `sys.modules` meanwhile: a dataclass in it looks itself up there (Python 3.11, dataclasses.py,
    `_is_type`).

    Raises:
        MetricFailed: the file can't be executed.
    """
    if file is None:
        yield {}
        return
    module = ModuleType(_MODULE)
    module.__file__ = file.name
    sys.modules[_MODULE] = module
    try:
        with untouched_randomness():
            _run(file, module)
        facts = own_metrics(file.text).metrics
        yield {name: OwnMetric(fact, file.name, vars(module).get(name)) for name, fact in facts.items()}
    finally:
        sys.modules.pop(_MODULE, None)
        vars(module).clear()  # functions refer to their module's names, and these to the functions


def add_own_metrics(answers: dict[str, Path], file: MetricsFile, channel: Channel) -> list[str]:
    """Adds the metrics to every answered row of each variant, replacing those of an earlier file.

    `answers`: variant → file. Returns which metric a variant lacks, and why.
    """
    names, notes = list(own_metrics(file.text).metrics), []
    try:
        with loaded(file) as metrics, untouched_randomness():
            for variant, answered in answers.items():
                notes += _add(answered, names, metrics, variant, channel)
    except MetricFailed as failed:
        notes = [failed.message]
        for variant, answered in answers.items():
            _add(answered, names, {}, variant, channel)
    for note in notes:
        print(note, flush=True)
    return notes


def _add(file: Path, names: list[str], metrics: dict[str, OwnMetric], variant: str, channel: Channel) -> list[str]:
    rows = [AnsweredRow.model_validate_json(line) for line in file.read_text().split("\n") if line]
    found: list[dict[str, float]] = [{k: v for k, v in row.numbers.items() if k not in names} for row in rows]
    notes = []
    for name, metric in metrics.items():
        try:
            numbers = _numbers(metric, rows, f"{name} of {variant}", channel)
        except MetricFailed as failed:
            notes.append(f"{variant} goes without {name}: {failed.message}")
            continue
        for of_row, number in zip(found, numbers, strict=True):
            of_row[name] = number
    counted = [row.model_copy(update={"numbers": numbers}) for row, numbers in zip(rows, found, strict=True)]
    write_text(file, "".join(row.model_dump_json() + "\n" for row in counted))
    return notes


def _numbers(metric: OwnMetric, rows: list[AnsweredRow], doing: str, channel: Channel) -> list[float]:
    numbers: list[float] = []
    last_s = -math.inf
    for row in rows:
        if time.monotonic() - last_s >= _SECONDS_BETWEEN_TELLING:
            channel.tell(doing, len(numbers), len(rows))
            last_s = time.monotonic()
        numbers.append(metric.of(row.id, row.reference or "", row.prediction))
    return numbers


def _run(file: MetricsFile, module: ModuleType) -> None:
    try:
        exec(compile(file.text, file.name, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise MetricFailed(f"{file.name} can't be run: {_raised(error, file.name)}") from None


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restores the random states afterwards: a training's losses must not depend on its metrics."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _number(given: Any) -> float | None:
    if given is None or isinstance(given, str | bytes | bytearray):
        return None
    try:
        return float(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _raised(error: BaseException, file: str) -> str:
    """The error with the last line of the file in its traceback."""
    line, at = None, error.__traceback__
    while isinstance(at, TracebackType):
        line = at.tb_lineno if at.tb_frame.f_code.co_filename == file else line
        at = at.tb_next
    words = cut(" ".join(str(error).split()), 200)
    message = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return f"{message} (line {line})" if line else message
