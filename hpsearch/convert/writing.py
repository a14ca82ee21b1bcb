"""The study file as text: what was not kept at its top, and a reason beside each range."""

from __future__ import annotations

import textwrap

from hpsearch.convert.draft import SECTIONS, Draft
from hpsearch.convert.space import propose
from hpsearch.spec.base import Spec
from hpsearch.spec.schema import schema_line
from hpsearch.spec.study import StudySpec
from hpsearch.spec.yaml_text import scalar

_ABOUT = {
    "budget": "what one trial may spend: a guess, as the file knows no trials",
    "final": "what the final run may spend",
}
_WIDTH = 110


def study_text(draft: Draft, study: str) -> str:
    """A study file; the caller checks that it loads."""
    file = draft.file.path.name
    lines = [schema_line(), f"# Made by `hpsearch new` from {file}, a file of {draft.tool}."]
    lines += _section("TO DO BEFORE THIS RUNS", draft.to_do)
    lines += _section(f"Not kept from {file}", list(map(str, draft.not_kept)))
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
    """The position of `key` in its section, as in the spec."""
    spec = StudySpec.model_fields[section].annotation
    assert isinstance(spec, type)
    assert issubclass(spec, Spec)
    return list(spec.model_fields).index(key)


def _section(title: str, points: list[str]) -> list[str]:
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
