"""`launch.yaml` as a JSON schema (draft 2020-12), from the engines' own options: for editors."""

from __future__ import annotations

from hpsearch.launch.engines import ENGINES
from hpsearch.launch.launcher import Launcher
from hpsearch.spec.schema import DIALECT, Schema, plain


def launch_schema() -> Schema:
    known = {"on", "workers"}.union(*(launcher.Options.model_fields for launcher in ENGINES.values()))
    engine = {"enum": [*ENGINES], "description": "The engine: what starts the workers."}
    site = {"type": "object", "properties": {"on": engine}, "propertyNames": {"enum": sorted(known)}}
    return {
        "$schema": DIALECT,
        "title": "hpsearch launch.yaml",
        "description": "Sites for `hpsearch launch --profile NAME`: the name of each, and its options below it.",
        "type": "object",
        "additionalProperties": {**site, "allOf": [_of_engine(*each) for each in ENGINES.items()]},
    }


def _of_engine(name: str, launcher: type[Launcher]) -> Schema:
    options = plain(launcher.Options.model_json_schema())
    properties = {"on": True, "workers": {"type": "integer", "minimum": 1, "description": _workers()}}
    is_engine = {"properties": {"on": {"const": name}}, "required": ["on"]}
    return {
        "if": is_engine,
        "then": {"properties": properties | options.get("properties", {}), "additionalProperties": False},
    }


def _workers() -> str:
    here = [name for name, launcher in ENGINES.items() if not launcher.reaches_other_machines]
    return f"Number of workers; by default 1, and with {' or '.join(here)} one per free GPU."
