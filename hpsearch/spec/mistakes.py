"""A study file with wrong fields: what is wrong with each, and what does not go together in the rest."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from hpsearch.errors import Mistake, did_you_mean
from hpsearch.spec.base import Spec
from hpsearch.spec.cross import cross_mistakes
from hpsearch.spec.explain import explain
from hpsearch.spec.study import StudySpec
from hpsearch.spec.tasks import TASKS
from hpsearch.spec.training import FORMER

Path_ = tuple[str | int, ...]
_STAND_INS: dict[str, Any] = {
    "study": "unknown",
    "task": next(iter(TASKS)),
    "model": {"base": "unknown"},
    "data": {"source": "unknown"},
}
"""Values for required fields that are wrong or missing. No check reads them."""


def field_mistakes(error: ValidationError, raw: dict[str, Any]) -> list[Mistake]:
    """One mistake for each wrong field."""
    found: dict[Path_, list[Any]] = {}
    for each in error.errors():
        path = _real_path(each["loc"], raw, missing=each["type"] == "missing")
        found.setdefault(path, []).append(each)
    # A value for a union of kinds has errors at several depths: the deepest is about the likeliest kind.
    outer = {path[:depth] for path in found for depth in range(len(path))}
    return [
        Mistake(".".join(map(str, path)), _words(path, errors)) for path, errors in found.items() if path not in outer
    ]


def mistakes_beside(raw: dict[str, Any], wrong: list[Mistake]) -> list[Mistake]:
    """Mistakes between the fields that are valid, of a file in which others are `wrong`.

    Empty where it is unknown which section a wrong key stands for.
    """
    names = {_field_name(mistake.key) for mistake in wrong}
    if any(name.partition(".")[0] not in StudySpec.model_fields for name in names):
        return []
    try:
        spec = StudySpec.model_validate(_without(raw, names))
    except ValidationError:
        return []
    return cross_mistakes(spec, names)


def _field_name(key: str) -> str:
    """The field of the study, or of one of its sections, that the mistake makes unknown: for a mistyped section, the
    one of the nearest name.
    """
    section, _, rest = key.partition(".")
    if section not in StudySpec.model_fields:
        return next(iter(get_close_matches(section, StudySpec.model_fields, n=1)), section)
    name = rest.partition(".")[0]
    return f"{section}.{name}" if name in _known_keys((section,)) else section


def _without(raw: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    kept = {
        section: {key: inner for key, inner in value.items() if f"{section}.{key}" not in names}
        if isinstance(value, dict)
        else value
        for section, value in raw.items()
        if section in StudySpec.model_fields and section not in names
    }
    stand_ins = _STAND_INS | ({"search": {"space": {"lora.r": [1]}}} if "search" in kept else {})
    return kept | {
        name: {**value, **kept.get(name, {})} if isinstance(value, dict) else kept.get(name, value)
        for name, value in stand_ins.items()
    }


def _words(path: Path_, errors: list[Any]) -> str:
    if errors[0]["type"] != "extra_forbidden":
        return explain(*errors)
    known = FORMER.get(".".join(map(str, path)))
    return f"unknown key; {known or did_you_mean(str(path[-1]), _known_keys(path[:-1]))}"


def _real_path(location: Path_, raw: Any, *, missing: bool) -> Path_:
    """pydantic's location without the names of union members, which no file contains."""
    path: list[str | int] = []
    place = raw
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(place, dict) and (part in place or (last and missing)):
            path.append(part)
            place = place.get(part)
        elif isinstance(place, list) and isinstance(part, int):
            path.append(part)
            place = place[part] if part < len(place) else None
    return tuple(path)


def _known_keys(path: Path_) -> list[str]:
    """The keys that the section at `path` may have."""
    spec: Any = StudySpec
    for part in path:
        if isinstance(part, int):  # an item of a list has the keys of the list's kind
            continue
        field = spec.model_fields.get(str(part)) if hasattr(spec, "model_fields") else None
        if field is None:
            return []
        members = [field.annotation, *getattr(field.annotation, "__args__", ())]
        members += [inner for member in members for inner in getattr(member, "__args__", ())]
        members = [getattr(member, "__origin__", member) for member in members]
        spec = next((m for m in members if isinstance(m, type) and issubclass(m, Spec)), None)
    return list(spec.model_fields) if spec is not None else []
