"""The knobs: every field that can be searched or set by hand, by its dotted name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from hpsearch.errors import did_you_mean
from hpsearch.spec.base import Spec
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.explain import explain
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
            objections.append(explain(*error.errors()))
    return objections


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
