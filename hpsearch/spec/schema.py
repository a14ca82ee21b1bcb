"""The study file as a JSON schema (draft 2020-12), from the same models that read it: for editors, which complete and
check with it.

It says all that a schema can say of `load_study`, and nothing more: each field, what searches it, which metrics a task
has. What depends on other fields or on the data, only loading tells. Two things that loading forgives are mistakes
here, so that nobody comes to rely on them: a number or a truth value in quotes.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from hpsearch.spec.knobs import KNOBS, takes_floats, takes_whole_numbers
from hpsearch.spec.metrics import LOSS, METRICS
from hpsearch.spec.search import RangeSpec
from hpsearch.spec.study import StudySpec
from hpsearch.spec.tasks import TASKS, TaskFacts

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_FILE = "hpsearch-study.schema.json"
"""Written beside study files that hpsearch makes, so that it moves with them to other machines and into a
repository.
"""


def schema_line(schema: str = SCHEMA_FILE) -> str:
    """The first line of a study file, which tells yaml-language-server the schema's path from the file's folder."""
    return f"# yaml-language-server: $schema={schema}"


def as_text(schema: Schema) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def study_schema() -> Schema:
    schema = plain(StudySpec.model_json_schema())
    space = schema["$defs"]["SearchSpec"]["properties"]["space"]
    space["properties"] = {knob: _searched(knob) for knob in KNOBS}
    space["additionalProperties"] = False
    schema["$defs"]["LogRange"] = _LOG_RANGE
    del schema["$defs"]["RangeSpec"]
    schema["allOf"] = _rules()
    about = "A study of hpsearch: what to fine-tune, on which rows, and what to search."
    return {"$schema": DIALECT, "title": "hpsearch study file", **schema, "description": about}


def plain(schema: Any) -> Any:
    """Removes what is useless for an editor: titles, empty defaults, defaults equal to their sections' own, and
    OpenAPI's discriminators.
    """
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    is_names = all(isinstance(value, dict) for value in schema.values())  # a mapping of properties or definitions
    if is_names:
        return {key: plain(value) for key, value in schema.items()}
    left_out = {"title", "discriminator"}
    if schema.get("default", ()) is None or isinstance(schema.get("default"), dict):
        left_out.add("default")
    cleaned = {key: plain(value) for key, value in schema.items() if key not in left_out}
    if "const" in (cleaned.get("properties", {}).get("name") or {}):
        cleaned["properties"]["name"].pop("type", None)
    return cleaned


_LOG_RANGE: Schema = {
    "if": {"properties": {"log": {"const": True}}, "required": ["log"]},
    "then": {"properties": {"low": {"exclusiveMinimum": 0}, "step": {"type": "null"}}},
}
"""A logarithmic range begins above 0 and has no step."""


def _searched(knob: str) -> Schema:
    """The schema of a field in `search.space`: choices, and a range if it is numeric."""
    field = KNOBS[knob]
    value = plain(TypeAdapter(field.rebuild_annotation()).json_schema())
    value.pop("description", None)
    choices = {"type": "array", "items": value, "minItems": 1}
    if not (takes_whole_numbers(knob) or takes_floats(knob)):
        return {"description": field.description, **choices}
    return {"description": field.description, "anyOf": [_range(value, is_whole=takes_whole_numbers(knob)), choices]}


def _range(value: Schema, *, is_whole: bool) -> Schema:
    range_ = plain(RangeSpec.model_json_schema())
    ends = next(arm for arm in value.get("anyOf", [value]) if arm["type"] in ("integer", "number"))
    for end in ("low", "high"):
        range_["properties"][end] |= ends
    if is_whole:
        range_["properties"]["step"]["anyOf"][0]["type"] = "integer"
    return {**range_, "allOf": [{"$ref": "#/$defs/LogRange"}]}


def _rules() -> list[Schema]:
    """A task's requirements on other sections: an image column, and metrics that fit it."""
    seeing = [task.name for task in TASKS.values() if task.has_images]
    columns = {"properties": {"columns": {"required": ["image"]}}, "required": ["columns"]}
    rules: list[Schema] = [{"if": _is_one_of(seeing), "then": {"properties": {"data": columns}}}]
    for fitting in dict.fromkeys(map(_fitting, TASKS.values())):
        tasks = [task.name for task in TASKS.values() if _fitting(task) == fitting]
        rules.append({"if": {"allOf": [_is_one_of(tasks), _NO_OWN_METRICS]}, "then": {"properties": _named(fitting)}})
    return rules


_HAS_OWN: Schema = {"anyOf": [{"required": ["metrics_file"]}, {"required": ["metrics_text"]}]}
_NO_OWN_METRICS: Schema = {"not": {"properties": {"evaluation": _HAS_OWN}, "required": ["evaluation"]}}
"""The person's own metrics may have any name."""


def _is_one_of(tasks: list[str]) -> Schema:
    return {"properties": {"task": {"enum": tasks}}, "required": ["task"]}


def _fitting(task: TaskFacts) -> tuple[str, ...]:
    return tuple(name for name, metric in METRICS.items() if task.fits(metric))


def _named(fitting: tuple[str, ...]) -> Schema:
    """The loss can't be named in an evaluation, which always has it, and a metric that needs another model is no
    objective.
    """
    objectives = {"enum": [name for name in fitting if not METRICS[name].needs_model]}
    evaluated = {"enum": [name for name in fitting if name != LOSS.name]}
    return {
        "objective": {"if": {"type": "array"}, "then": {"items": objectives}, "else": objectives},
        "evaluation": {"properties": {"metrics": {"items": evaluated}}},
    }
