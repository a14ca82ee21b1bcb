"""hpsearch commands in other tools' files, parsed as `hpsearch` would parse them; none is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from typer.main import get_command

from hpsearch.cli.app import app

_COMMAND = re.compile(r"(?:(?<![\w/.:-])hpsearch|run --rm workers) +(?=[a-z-])((?:[^\n#|&;>'\"`]|'[^']*'|\"[^\"]*\")+)")


def parse(arguments: Sequence[str]) -> str:
    """The verb. Raises click's UsageError for an option that it doesn't have, or an argument too many or missing."""
    command = get_command(app)
    name, rest = "hpsearch", list(arguments)
    while hasattr(command, "commands"):
        name, *rest = rest
        assert name in command.commands, f"hpsearch {name}"
        command = command.commands[name]
    command.make_context(name, rest)
    return name


def commands_in(text: str) -> list[list[str]]:
    """The arguments of every `hpsearch …`, by itself or in compose's workers, in a script or the lines of a page."""
    return [shlex.split(found) for found in _COMMAND.findall(text.replace("\\\n", " "))]
