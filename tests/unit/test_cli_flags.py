"""The command line's verbs and flags: which there are, and that each is explained."""

from __future__ import annotations

import pytest
import typer.main

from hpsearch.cli import app as app_module

SURFACE: dict[str, set[str]] = {
    "doctor": {"--store"},
    "new": {
        "--from",
        "--example",
        "--data",
        "--task",
        "--base",
        "--memory-gib",
        "--columns",
        "--hours",
        "-o",
        "--output",
        "--force",
    },
    "schema": {"KIND", "-o", "--output"},
    "show": {"STUDY_FILE", "--examples", "--set", "--measure"},
    "run": {
        "STUDY_FILE",
        "--workers",
        "--workers-per-device",
        "--trials",
        "--store",
        "--set",
        "--wait-for-store",
        "--notify",
        "--yes",
    },
    "launch": {
        *("STUDY_FILE", "--on", "--workers", "--profile", "--dry-run", "--time", "--partition", "--account", "--qos"),
        *("--constraint", "--gres", "--gpus", "--cpus", "--memory", "--setup", "--address"),
        *("--workers-per-device", "--store", "--set", "--wait-for-store", "--notify"),
    },
    "worker": {"STUDY_FILE", "--keep", "--workers-per-device", "--store", "--set", "--wait-for-store", "--notify"},
    "status": {"STUDY", "FOLDER", "--watch", "--json", "--plots", "--store"},
    "logs": {"STUDY", "TRIAL", "--follow", "-f", "--store"},
    "stop": {"STUDY", "--now", "--store"},
    "pause": {"STUDY", "--store"},
    "resume": {"STUDY", "--store"},
    "retry": {"STUDY", "TRIALS", "--store"},
    "delete": {"STUDY", "--yes", "--store"},
    "dashboard": {"--port", "--host", "--allow-host", "--token", "--allow-changes", "--store"},
    "best": {"STUDY", "--format", "-o", "--output", "--trial", "--force", "--store"},
    "train": {"WHAT", "--trial", "--no-search", "--resume", "--restart", "--out", "--store", "--set"},
    "evaluate": {"RUN_FOLDER", "--prompts", "--metrics", "--max-new-tokens", "--limit", "--without-base"},
    "predict": {
        "RUN_FOLDER",
        "--image",
        "--question",
        "--input",
        "--output",
        "--base",
        "--prompt",
        "--max-new-tokens",
        "--batch-size",
        "--force",
    },
    "compare": {"RUNS", "--prompt", "--common"},
    "export": {
        "RUN_FOLDER",
        "--to",
        "-o",
        "--output",
        "--dtype",
        "--llama-cpp",
        "--python",
        "--repo",
        "--private",
        "--merged",
        "--force",
        "--store",
    },
    "store": set(),
    "report": {"STUDY", "--run", "-o", "--output", "--store"},
}
"""Every verb with its arguments and flags. A change here is a change for everyone who has a script."""


def test_the_verbs_and_their_flags_are_these() -> None:
    verbs = typer.main.get_command(app_module.app).commands  # type: ignore[attr-defined]
    surface = {
        verb: {
            name if parameter.param_type_name == "option" else name.upper()
            for parameter in command.params
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        for verb, command in verbs.items()
    }
    assert surface == SURFACE


def test_every_flag_of_every_verb_is_explained() -> None:
    verbs = typer.main.get_command(app_module.app).commands  # type: ignore[attr-defined]
    explained = {
        f"{verb} {parameter.name}": getattr(parameter, "help", None)
        for verb, command in verbs.items()
        for parameter in command.params
    }
    short = {"-o", "-f", "-y"}
    assert len(explained) == sum(len(names - short) for names in SURFACE.values())
    assert [flag for flag, words in explained.items() if not words] == []


def test_a_flag_takes_no_value_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train --help", "store backup --help"):
        with pytest.raises(SystemExit):
            app_module.app(command.split())
        shown = capsys.readouterr().out
        assert "--help" in shown
        assert "bool" not in shown
