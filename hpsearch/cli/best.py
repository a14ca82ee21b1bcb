"""`hpsearch best`: the best parameters of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hpsearch.cli.options import StoreOption, find_study, open_store


def best(
    study: Annotated[str, typer.Argument(help="name of a study", show_default=False)],
    format_: Annotated[
        Literal["table", "yaml", "json", "sh"] | None,
        typer.Option("--format", help="how to print them; -o's ending decides otherwise"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write a file instead", show_default=False)
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="this trial instead of the best", show_default=False)] = None,
    store: StoreOption = None,
) -> None:
    """The best parameters: a table, a complete file for the final training, or its shell command."""
    from rich.console import Console

    from hpsearch.folders import write_text
    from hpsearch.results.best import as_command, as_json, as_yaml, choose
    from hpsearch.search.view import read_view

    kind = format_ or _kind_of(output)
    with open_store(store) as opened:
        chosen = choose(read_view(opened, find_study(opened, study)), trial)
    if kind == "table":
        from hpsearch.watch.tables import best_table

        Console().print(best_table(chosen.trial, chosen.values, chosen.study.defaults()))
        return
    text = {"yaml": as_yaml, "json": as_json, "sh": as_command}[kind](chosen)
    if output is None:
        print(text)
        return
    write_text(output, text if text.endswith("\n") else text + "\n")
    Console().print(f"{output}: trial {chosen.trial.number} of {study}; next: hpsearch train {output}", highlight=False)


def _kind_of(output: Path | None) -> str:
    if output is None:
        return "table"
    return {".json": "json", ".sh": "sh"}.get(output.suffix, "yaml")
