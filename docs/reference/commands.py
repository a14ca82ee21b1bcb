"""The page of every command with its arguments and options, from the command line itself."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.main import get_command

from docs.reference.markdown import code, listed, page, prose, table
from hpsearch.cli.app import app

_WORDS = {int: "a whole number", float: "a number", str: "text", Path: "a path", bool: ""}


def commands() -> str:
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    index = [[f"[`hpsearch {name}`](#hpsearch-{name})", prose(verb.help)] for name, verb in verbs.items()]
    return page(
        "Commands",
        "What `hpsearch VERB --help` shows of each. Their exit codes are on the page of "
        "[outcomes](outcomes.md#exit-codes).",
        table(["command", "what it does"], index),
        _table("option", [each for each in get_command(app).params if each.name != "help"]),
        *(part for name, verb in verbs.items() for part in _of(f"hpsearch {name}", verb)),
    )


def _of(name: str, verb: Any) -> list[str]:
    inner = getattr(verb, "commands", {})
    parts = [f"## {name}", prose(verb.help)]
    for sub, each in inner.items():
        parts += [part.replace("## ", "### ", 1) for part in _of(f"{name} {sub}", each)]
    if inner:
        return parts
    arguments = [each for each in verb.params if each.param_type_name == "argument"]
    options = [each for each in verb.params if each.param_type_name == "option"]
    usage = " ".join([name, *(_placed(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    return [*parts, f"```text\n{usage}\n```", _table("argument", arguments), _table("option", options)]


def _placed(argument: Any) -> str:
    shown = _name(argument) + ("…" if argument.nargs == -1 else "")
    return shown if argument.required else f"[{shown}]"


def _name(argument: Any) -> str:
    return re.sub(r"[\[\].]", "", argument.metavar or argument.name.upper())


def _table(kind: str, parameters: list[Any]) -> str:
    if not parameters:
        return ""
    rows = []
    for each in parameters:
        names = listed([*each.opts, *each.secondary_opts]) if kind == "option" else code(_name(each))
        rows.append([names, _takes(each), _default(each), prose(each.help or "") + _variable(each)])
    return table([kind, "takes", "default", "what it does"], rows)


def _takes(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    if parameter.multiple or parameter.nargs == -1:  # list[str]
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        words = listed(each.value for each in annotation)
    elif get_origin(annotation) is Literal:
        words = listed(get_args(annotation))
    elif parameter.metavar and parameter.param_type_name == "option":
        words = code(parameter.metavar)
    else:
        words = _WORDS[annotation]
    words += "".join(
        f" {word} {end:g}" for word, end in [("from", parameter.min), ("to", parameter.max)] if end is not None
    )
    return words + (", may be repeated" if parameter.multiple else "")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(value, enum.Enum):
        return code(value.value)
    return code(f"{value:g}" if isinstance(value, float) else value) if value and parameter.show_default else ""


def _variable(parameter: Any) -> str:
    return f" (`${parameter.envvar}`)" if parameter.envvar else ""
