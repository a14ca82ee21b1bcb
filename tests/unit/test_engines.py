"""Engines: each has what a launcher needs, and its options on the command line; no other code names one."""

from __future__ import annotations

import re

from typer.main import get_command

from hpsearch.cli.app import app
from hpsearch.cli.launch import ENGINE_PANEL
from hpsearch.launch.engines import ENGINES
from hpsearch.launch.launcher import Launcher
from hpsearch.launch.schema import launch_schema
from tests.conftest import REPOSITORY


def test_every_engine_has_what_a_launcher_needs() -> None:
    needed = [name for name in {**Launcher.__annotations__, **vars(Launcher)} if not name.startswith("_")]
    assert {"Options", "stop"} <= set(needed)
    lacking = {engine: [name for name in needed if is_lacking(launcher, name)] for engine, launcher in ENGINES.items()}
    told = [f"{ENGINES[engine].__name__} has no {', '.join(names)}" for engine, names in lacking.items() if names]
    assert told == [], "what each must do is in hpsearch/launch/launcher.py"


def is_lacking(launcher: type[Launcher], name: str) -> bool:
    """A method that is inherited from Launcher does nothing."""
    return not hasattr(launcher, name) or getattr(launcher, name) is getattr(Launcher, name, None)


def test_nobody_else_names_an_engine() -> None:
    """Only the table, the options, an example and each engine's own files do. `local` is too common a word."""
    names = "|".join(engine for engine in ENGINES if engine != "local")
    rooms = re.compile(rf"cli/launch\.py|launch/(engines|sites|({names})\w*)\.py")
    package = REPOSITORY / "hpsearch"
    told = [
        f"{file.relative_to(package)}: {line.strip()}"
        for file in package.rglob("*.py")
        if not rooms.fullmatch(str(file.relative_to(package)))
        for line in file.read_text().splitlines()
        if re.search(rf"\b({names})\b", line)
    ]
    assert told == []


def test_the_schema_tells_which_engines_count_the_gpus_of_this_machine() -> None:
    rules = launch_schema()["additionalProperties"]["allOf"]
    (told,) = {rule["then"]["properties"]["workers"]["description"] for rule in rules}
    told = told.partition("with ")[2].partition(" one per")[0]
    assert told.split(" or ") == [name for name, launcher in ENGINES.items() if not launcher.reaches_other_machines]


def test_the_command_line_names_the_engines_that_take_an_option() -> None:
    """--on names every engine; an option that only some have begins its help with their names and a colon."""
    options = {option.name: option for option in get_command(app).commands["launch"].params}  # type: ignore[attr-defined]
    assert set(re.split(", | or ", options["on"].help)) == set(ENGINES), "cli/launch.py, help of --on"
    named = [engine for engine in ENGINES if engine in options["workers"].help]
    assert named == [], "cli/launch.py: --workers is about every engine of this machine, and names none"
    for name, option in options.items():
        if getattr(option, "rich_help_panel", None) == ENGINE_PANEL:
            takers = {engine for engine, launcher in ENGINES.items() if name in launcher.Options.model_fields}
            assert set(option.help.partition(":")[0].split(", ")) == takers, f"cli/launch.py, help of --{name}"
