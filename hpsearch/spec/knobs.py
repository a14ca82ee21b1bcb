"""The knobs: every field that can be searched or set by hand, by its dotted name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from hpsearch.errors import cut, did_you_mean
from hpsearch.spec.base import Spec
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.model import HeadSpec, LoraSpec, ModelSpec
from hpsearch.spec.preference import PreferenceSpec
from hpsearch.spec.search import ParameterSpec, RangeSpec
from hpsearch.spec.training import FORMER, TrainingSpec

_SECTIONS: dict[str, type[Spec]] = {
    "training": TrainingSpec,
    "lora": LoraSpec,
    "model": ModelSpec,
    "head": HeadSpec,
    "curriculum": CurriculumSpec,
    "preference": PreferenceSpec,
}

_FIXED = ("curriculum.stages", "model.adapter", "model.adapter_revision", "model.adapter_sha256")
"""Fields that can't be searched: a study has one curriculum, and continues from one adapter."""

KNOBS: dict[str, FieldInfo] = {
    f"{section}.{name}": field
    for section, spec in _SECTIONS.items()
    for name, field in spec.model_fields.items()
    if f"{section}.{name}" not in _FIXED
}


def takes_whole_numbers(knob: str) -> bool:
    """Whether the knob's field holds an int, so that a range over it is one of whole numbers."""
    return KNOBS[knob].annotation is int


def takes_floats(knob: str) -> bool:
    """Also where it may be empty."""
    annotation = KNOBS[knob].annotation
    return float in [getattr(arm, "__origin__", arm) for arm in (annotation, *get_args(annotation))]


def _objections(knob: str, values: Sequence[object]) -> list[str]:
    """For each value that the parameter's field can't hold, the reason."""
    adapter: TypeAdapter[Any] = TypeAdapter(KNOBS[knob].rebuild_annotation(), config=Spec.model_config)
    objections = []
    for value in values:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            objections.append(explain(error.errors()[0]))
    return objections


_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def explain(error: Any) -> str:
    """pydantic's message in plain words."""
    kind, context = error["type"], error.get("ctx", {})
    found = cut(repr(error.get("input")))
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return message
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"must be {words} {context[bound]:g}, not {found}"
    if kind == "too_short":
        return "must not be empty"
    if kind == "literal_error":
        near = get_close_matches(cut(str(error.get("input"))), re.findall(r"'([^']*)'", message), n=1)
        return f"expected {message}, found {found}" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind == "union_tag_invalid":
        known = [name.strip("'") for name in str(context["expected_tags"]).split(", ")]
        return f"there is no {cut(repr(context['tag']))}; {did_you_mean(str(context['tag']), known)}"
    if kind == "string_pattern_mismatch":
        return f"may hold letters, digits, dots, dashes and underscores only, found {found}"
    if kind == "invalid_key":
        return f"a key must be text, found {found}: put it in quotes"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"expected a mapping of keys, found {found}"
    return f"expected {message[0].lower()}{message[1:]}, found {found}"


def space_mistakes(knob: str, parameter: ParameterSpec) -> list[str]:
    """What is wrong with searching `knob` over `parameter`."""
    if knob not in KNOBS:
        return [f"there is no such field to search; {FORMER.get(knob) or did_you_mean(knob, list(KNOBS))}"]
    if not isinstance(parameter, RangeSpec):
        return _objections(knob, parameter)
    if not (takes_whole_numbers(knob) or takes_floats(knob)):
        return ["this field takes no numbers: give a list of choices"]
    ends = [parameter.low, parameter.high]
    if takes_whole_numbers(knob):
        fractional = [number for number in (*ends, parameter.step or 1) if number != int(number)]
        if fractional:
            return [f"this field takes whole numbers, found {fractional[0]:g}"]
        ends = [int(number) for number in ends]
    return _objections(knob, ends)
