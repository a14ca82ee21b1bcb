"""Specs as the store keeps them: JSON with a version, brought up to date step by step, or refused in words.

    {"version": 2, "spec": {…}}

A change of `StudySpec` after which older texts no longer mean the same needs a new version and one more step here.
Version 0 is the bare spec, as it was kept before there were versions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from hpsearch.errors import InputError
from hpsearch.spec.study import StudySpec
from hpsearch.spec.training import BATCH_SIZE, FORMER_KNOB, in_rows_per_step

Step = Callable[[dict[str, Any]], dict[str, Any]]


def _from_0(spec: dict[str, Any]) -> dict[str, Any]:
    """Only the envelope is new."""
    return spec


def _from_1(spec: dict[str, Any]) -> dict[str, Any]:
    """`batch_size` was the rows per forward, and `gradient_accumulation_steps` forwards made an optimizer step.

    Parameters of old trials are converted when they are read (`search.former`).

    Raises:
        InputError: `batch_size` alone was searched, with several forwards per step: such trials can't be told from new
            ones.
    """
    training, search = spec.get("training", {}), spec.get("search") or {}
    space = dict(search.get("space", {}))
    rows, forwards = space.get(BATCH_SIZE, training.get("batch_size")), training.get("gradient_accumulation_steps")
    if FORMER_KNOB in space:
        space[BATCH_SIZE] = _times(rows, space.pop(FORMER_KNOB))
    elif BATCH_SIZE in space and forwards != 1:
        raise InputError(
            "was made by an older hpsearch and searches a batch_size of which several made an optimizer step; now it "
            "is the rows per optimizer step: start it again under another name (hpsearch dashboard and optuna trials "
            "still show its trials' results)"
        )
    search = {"search": search | {"space": space}} if search else {}
    return spec | {"training": in_rows_per_step(training)} | search


def _times(rows: Any, forwards: Any) -> Any:
    """The space of their product; either may be one number, a list of choices, or a range."""
    if isinstance(forwards, dict) or isinstance(rows, dict):
        low, high = (_end(rows, end) * _end(forwards, end) for end in ("low", "high"))
        return {"low": low, "high": high}
    choices = [[each] if isinstance(each, int) else each for each in (rows, forwards)]
    return sorted({one * other for one in choices[0] for other in choices[1]})


def _end(space: Any, end: str) -> Any:
    if isinstance(space, dict):
        return space[end]
    if isinstance(space, list):
        return min(space) if end == "low" else max(space)
    return space


STEPS: tuple[Step, ...] = (_from_0, _from_1)
"""The n-th converts a spec of version n to version n + 1."""
VERSION = len(STEPS)


def to_text(spec: StudySpec) -> str:
    return json.dumps({"version": VERSION, "spec": spec.model_dump(mode="json")})


def from_text(text: str) -> StudySpec:
    """Raises InputError with the reason: a clause that follows a study's name."""
    try:
        version, spec = _opened(json.loads(text))
    except ValueError:
        raise InputError("can't be read: its stored spec is not valid JSON") from None
    if version > VERSION:
        raise InputError(
            f"was made by a newer hpsearch: its spec has version {version}, this one reads up to {VERSION}; "
            "update hpsearch"
        )
    try:
        for step in STEPS[version:]:
            spec = step(spec)
        return StudySpec.model_validate(spec)
    except ValidationError as error:
        raise InputError(f"can't be read: {_first_mistake(error)}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"can't be read: its spec is incomplete ({type(error).__name__}: {error})") from None


def _opened(stored: Any) -> tuple[int, dict[str, Any]]:
    """The version and the bare spec. Raises ValueError when it is neither kind of text."""
    if not isinstance(stored, dict):
        raise ValueError
    if "version" not in stored:
        return 0, stored
    version, spec = stored["version"], stored.get("spec")
    if isinstance(version, int) and version > VERSION:
        return version, {}
    if not isinstance(version, int) or version < 1 or not isinstance(spec, dict):
        raise ValueError
    return version, spec


def _first_mistake(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(map(str, first["loc"]))
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"
