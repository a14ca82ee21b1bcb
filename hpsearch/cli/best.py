"""`hpsearch best`: the best parameters of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hpsearch.cli.options import StoreOption, StudyArgument
from hpsearch.opening.places import find_study, look_at_store


def best(
    study: StudyArgument,
    format_: Annotated[
        Literal["table", "yaml", "json", "sh"] | None,
        typer.Option("--format", help="output format; default: by the ending of -o"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", dir_okay=False, help="write to this file", show_default=False)
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="this trial instead of the best", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite a file with other content")] = False,
    store: StoreOption = None,
) -> None:
    """Print the best parameters: a table, a study file for the final training, or its shell command."""
    from hpsearch.files import write_output
    from hpsearch.results.best import as_command, as_json, as_yaml, choose
    from hpsearch.search.view import read_view
    from hpsearch.watch.closing import open_words, tie_words
    from hpsearch.watch.console import open_console

    kind = format_ or _kind_of(output)
    with look_at_store(store) as opened:
        view = read_view(opened, find_study(opened, study))
    chosen = choose(view, trial)
    for words in (open_words(view), tie_words(view)) if trial is None else ():
        if words:
            open_console(stderr=True).print(words, soft_wrap=True)
    if kind == "table":
        from hpsearch.watch.tables import best_table, front_table

        console = open_console()
        if len(view.study.spec.objectives) > 1 and trial is None:
            console.print(front_table(view))
            console.print("Choose one with --trial; without it, the best by the first objective:\n")
        console.print(best_table(view, chosen.trial, chosen.values, chosen.study.defaults()))
        return
    text = {"yaml": as_yaml, "json": as_json, "sh": as_command}[kind](chosen)
    if output is None:
        print(text)
        return
    write_output(output, text if text.endswith("\n") else text + "\n", unless_changed=None if force else "--force")
    follow = {"yaml": f"; next: hpsearch train {output}", "sh": f"; next: sh {output}"}.get(kind, "")
    open_console().print(f"{output}: trial {chosen.trial.number} of {study}{follow}", soft_wrap=True)


def _kind_of(output: Path | None) -> str:
    if output is None:
        return "table"
    return {".json": "json", ".sh": "sh"}.get(output.suffix, "yaml")
