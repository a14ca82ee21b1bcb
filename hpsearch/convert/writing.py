"""The study file as text: what was not kept at its top, and a reason beside each range."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

import yaml

from hpsearch.convert.draft import SECTIONS, Draft
from hpsearch.convert.space import propose
from hpsearch.spec.base import Spec
from hpsearch.spec.schema import schema_line
from hpsearch.spec.study import StudySpec

_ABOUT = {
    "budget": "what one trial may spend: a guess, as the file knows no trials",
    "final": "what the final run may spend",
}
_WIDTH = 110


def study_text(draft: Draft, study: str) -> str:
    """A study file; the caller checks that it loads."""
    file = draft.file.path.name
    lines = [schema_line(), f"# Made by `hpsearch new` from {file}, a file of {draft.tool}."]
    lines += _told("TO DO BEFORE THIS RUNS", draft.to_do)
    lines += _told(f"Not kept from {file}", list(map(str, draft.not_kept)))
    base = draft.get("model.base")
    lines += [f"study: {scalar(study)}", f"description: {scalar(f'{base}, from {file}')}", f"task: {draft.task}"]
    for name in SECTIONS:
        if not draft.values[name]:
            continue
        about = f"  # {_ABOUT[name]}" if name in _ABOUT else ""
        lines += ["", f"{name}:{about}"]
        for key, value in sorted(draft.values[name].items(), key=lambda item: _place(name, item[0])):
            comment = draft.comments.get(f"{name}.{key}")
            lines.append(f"  {key}: {scalar(value)}" + (f"  # {comment}" if comment else ""))
    lines += ["", "search:", "  trials: 40", "  sampler: tpe", "  pruner: median", "  space:"]
    for knob, parameter, why in propose(draft):
        lines += [f"    # {why}", f"    {knob}: {scalar(parameter)}"]
    return "\n".join(lines) + "\n"


def _place(section: str, key: str) -> int:
    """Where `key` stands in its section: as in the spec."""
    spec = StudySpec.model_fields[section].annotation
    assert isinstance(spec, type)
    assert issubclass(spec, Spec)
    return list(spec.model_fields).index(key)


def _told(title: str, points: list[str]) -> list[str]:
    if not points:
        return []
    lines = ["#", f"# {title}:"]
    for point in points:
        plain = " ".join(point.split())  # a line break in a value must not end the comment
        lines += textwrap.wrap(
            plain,
            _WIDTH,
            initial_indent="#   - ",
            subsequent_indent="#     ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def scalar(value: Any) -> str:
    """`value` on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str):
        is_plain = re.fullmatch(r"[A-Za-z][\w./@+-]*(:[\w./-]+)*", value, re.ASCII) and yaml.safe_load(value) == value
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def number(value: float) -> str:
    """2e-5, not 2e-05 or 0.00002."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return repr(value)
    mantissa, exponent = f"{value:.10g}".split("e") if "e" in f"{value:.10g}" else f"{value:.9e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"
