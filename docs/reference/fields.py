"""Pages of the fields of study files and of launch.yaml, from their JSON schemas."""

from __future__ import annotations

import json
from typing import Any

from docs.reference.markdown import code, listed, page, prose, table
from hpsearch.launch.engines import ENGINES
from hpsearch.launch.schema import launch_schema
from hpsearch.spec.knobs import KNOBS, takes_floats, takes_whole_numbers
from hpsearch.spec.schema import plain, study_schema
from hpsearch.spec.search import RangeSpec, SearchSpec
from hpsearch.spec.study import StudySpec

Schema = dict[str, Any]
_BY_NAME = ("search.sampler", "search.pruner")
_ELSEWHERE = {
    "task": "[a task](tasks.md)",
    "objective": "[a metric](metrics.md) or a list of them",
    "evaluation.metrics": "list of [metrics](metrics.md)",
}


def study_file() -> str:
    schema = study_schema()
    definitions = schema["$defs"]
    top = "Every key of a study file. A key that isn't here is an error, reported with its line."
    return page(
        "The study file",
        f"{top} An [editor](../how-to/editor-and-shell.md) can show the same while you type.",
        _fields(schema, ""),
        *_sections(schema, "", definitions),
    )


def _sections(schema: Schema, path: str, definitions: Schema) -> list[str]:
    """Every section below, each with its fields, and those below it."""
    parts = []
    for name, field in schema["properties"].items():
        here = f"{path}.{name}" if path else name
        if here == "search.space":
            parts.append(_space(field))
        elif here in _BY_NAME:
            parts.append(_named(here, field, definitions))
        elif here != "final":  # described with `budget`
            for number, form in enumerate(_forms(field, definitions)):
                title = "## budget and final" if here == "budget" else f"## {here}"
                if number:
                    title = f"### {here} with {form['required'][0]}"
                parts += [_section(title, here, form), *_sections(form, here, definitions)]
    return parts


def _forms(field: Schema, definitions: Schema) -> list[Schema]:
    """The sections that a field may hold: none, one, or several forms of one."""
    arms = [field, *field.get("anyOf", []), *field.get("oneOf", []), field.get("items", {})]
    return [definitions[arm["$ref"].rpartition("/")[2]] for arm in arms if "$ref" in arm]


def _section(title: str, path: str, form: Schema) -> str:
    about = prose(form.get("description", ""))
    final = _final_differs() if path == "budget" else ""
    return "\n\n".join(part for part in [title, f"{about} {final}".strip(), _fields(form, path)] if part)


def _final_differs() -> str:
    budget, final = (StudySpec.model_fields[name].default.model_dump() for name in ("budget", "final"))
    differing = [f"{code(name)} is {code(f'{final[name]:g}')}" for name in budget if budget[name] != final[name]]
    return f"In {code('final')} the default of {', '.join(differing)}."


def _fields(form: Schema, path: str) -> str:
    required = form.get("required", [])
    rows = []
    for name, field in form["properties"].items():
        here = f"{path}.{name}" if path else name
        rows.append([code(name), _takes(field, here), _default(here, field, required), _about(field, here)])
    return table(["key", "takes", "default", "what it is"], rows)


def _described(field: Schema, path: str) -> str:
    """Raises LookupError with what to do where there is no description."""
    if not field.get("description"):
        raise LookupError(f"{path} has no description: a field has its own, a sampler or pruner its class's docstring")
    return str(field["description"])


def _about(field: Schema, path: str) -> str:
    about = prose(_described(field, path))
    return about.partition(". ")[0] + "." if about.startswith("What is learned") else about  # the tasks have a page


def _default(path: str, field: Schema, required: list[str]) -> str:
    name = path.rpartition(".")[2]
    if name in required:
        return "required"
    if path in _BY_NAME:
        return code(SearchSpec.model_fields[name].default.name)
    return code(_written(field["default"])) if "default" in field else ""


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).strip('"')


def _takes(field: Schema, path: str = "") -> str:
    """The values that the field takes, in words; an empty default shows that it may be null."""
    if path in _ELSEWHERE:
        return _ELSEWHERE[path]
    if "$ref" in field or "oneOf" in field or path in ("search.space", *_BY_NAME):
        return f"[section](#{'budget-and-final' if path in ('budget', 'final') else path.replace('.', '')})"
    if "anyOf" in field:
        arms = dict.fromkeys(_takes(arm, path) for arm in field["anyOf"] if arm.get("type") != "null")
        return " or ".join(_without_doubles(arms))
    if "enum" in field:
        return listed(field["enum"])
    if "const" in field:
        return code(field["const"])
    return _of_type(field, path)


def _without_doubles(arms: dict[str, None]) -> list[str]:
    return [arm for arm in arms if not (arm == "whole number" and "number" in arms)]


def _of_type(field: Schema, path: str) -> str:
    match field.get("type"):
        case "array" if "prefixItems" in field:
            return "[" + ", ".join(_takes(item) for item in field["prefixItems"]) + "]"
        case "array" if "$ref" in field["items"]:
            return f"list of [sections](#{path.replace('.', '')})"
        case "array":
            return f"list of {_takes(field['items'])}"
        case "object":
            return f"mapping of text to {_takes(field['additionalProperties'])}"
        case "integer":
            return "whole number" + _range(field)
        case "number":
            return "number" + _range(field)
        case "boolean":
            return "`true`, `false`"
    return "text"


def _range(field: Schema) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return "".join(f" {word} {field[bound]:g}" for bound, word in words.items() if bound in field)


def _space(field: Schema) -> str:
    rows = []
    for knob in KNOBS:
        choices = next(
            arm for arm in [field["properties"][knob], *field["properties"][knob].get("anyOf", [])] if "items" in arm
        )
        is_range = "yes, of whole numbers" if takes_whole_numbers(knob) else "yes" if takes_floats(knob) else "no"
        rows.append([code(knob), _takes(choices["items"]), is_range])
    return "\n\n".join(
        [
            "## search.space",
            "What is searched: the dotted name of a field, and below it a list of choices, or a range. The first trial "
            "has the values that the file gives these fields elsewhere, if they are in the space.",
            "```yaml\nsearch:\n  space:\n    training.learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"
            "    lora.r: [8, 16, 32]\n    lora.dropout: {low: 0.0, high: 0.1, step: 0.05}\n```",
            "A range has:",
            _fields(plain(RangeSpec.model_json_schema()), ""),
            "Fields that can be searched:",
            table(["field", "each choice", "range"], rows),
        ]
    )


def _named(path: str, field: Schema, definitions: Schema) -> str:
    """Samplers or pruners: each by its name, with its settings."""
    arms = next(arm for arm in field["anyOf"] if "oneOf" in arm)["oneOf"]
    forms = [definitions[arm["$ref"].rpartition("/")[2]]["properties"] for arm in arms]
    abouts = [_described(definitions[name], name) for name in (arm["$ref"].rpartition("/")[2] for arm in arms)]
    rows = [
        [listed(form["name"].get("enum", [form["name"].get("const")])), prose(about), _settings(form)]
        for form, about in zip(forms, abouts, strict=True)
    ]
    key, first = path.rpartition(".")[2], forms[0]["name"]["const"]
    setting = next(f"{name}: {_written(each['default'])}" for name, each in forms[0].items() if name != "name")
    example = f"As in `{key}: {first}`, or with settings `{key}: {{name: {first}, {setting}}}`."
    return "\n\n".join(
        [f"## {path}", f"{_about(field, path)} {example}", table(["name", "what it does", "settings"], rows)]
    )


def _settings(form: Schema) -> str:
    settings = [
        f"{code(name)} ({_takes(each)}, default {code(_written(each['default']))}): {_about(each, name)}"
        for name, each in form.items()
        if name != "name"
    ]
    return "<br>".join(settings) or "none"


def launch_file() -> str:
    rules = launch_schema()["additionalProperties"]
    parts = []
    for engine, rule in zip(ENGINES, rules["allOf"], strict=True):
        fields = {key: value for key, value in rule["then"]["properties"].items() if key not in ("on", "workers")}
        about = prose((ENGINES[engine].Options.__doc__ or "").strip())
        parts += [
            f"## {engine}",
            about,
            _fields({"properties": fields}, engine) if fields else "It has no options.",
        ]
    workers = rules["allOf"][0]["then"]["properties"]["workers"]
    every = {"on": rules["properties"]["on"], "workers": workers}
    return page(
        "launch.yaml",
        "Options of [`hpsearch launch`](commands.md#hpsearch-launch) by name, for `--profile NAME`. It is read from "
        "the working directory. Options on the command line override the file's.",
        "```yaml\nlab:\n  on: slurm\n  workers: 8\n  time: 4h\n  partition: gpu\n```",
        "## Every engine",
        _fields({"properties": every, "required": ["on"]}, ""),
        *parts,
    )
