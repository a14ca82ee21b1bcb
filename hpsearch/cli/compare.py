"""`hpsearch compare`: final runs on the same held-out rows."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from hpsearch.cli.completion import run_names
from hpsearch.cli.options import telling
from hpsearch.opening.places import find_final_run


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_STUDY...",
            help="run folders, or names of studies",
            show_default=False,
            autocompletion=run_names,
        ),
    ],
    prompt: Annotated[
        Literal["none", "static", "adaptive"], typer.Option(help="system prompt for the comparison")
    ] = "none",
    common: Annotated[
        bool, typer.Option("--common", help="compare on the rows that all runs were evaluated on")
    ] = False,
) -> None:
    """Compare final runs on the same test rows: scores with intervals, and each run's difference to the first."""
    from hpsearch.results.compare import compare_runs
    from hpsearch.watch.comparison import comparison_table, comparison_words
    from hpsearch.watch.console import open_console, print_table

    console = open_console()
    with telling(console) as tell:
        comparison = compare_runs([find_final_run(run) for run in runs], prompt, tell, common=common)
    print_table(console, comparison_table(comparison))
    console.print(comparison_words(comparison), soft_wrap=True)
