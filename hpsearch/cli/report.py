"""`hpsearch report`: a study's whole story in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import StoreOption, StudyArgument, find_study, open_store, storage_folder, telling

if TYPE_CHECKING:
    from hpsearch.watch.report import FinalRun


def report(
    study: StudyArgument,
    run: Annotated[
        Path | None, typer.Option(help="folder of its final run; default: storage/runs/STUDY", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", dir_okay=False, help="default: STUDY-report.html", show_default=False),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write one HTML report: data, search space, trials, final training, evaluation, right and wrong answers."""
    from hpsearch.files import write_output
    from hpsearch.opening.report import find_run_of, page_of
    from hpsearch.search.view import read_view
    from hpsearch.watch.console import open_console
    from hpsearch.watch.pictures import draw_study

    console = open_console()
    storage = storage_folder()
    file = output or Path(f"{study}-report.html")
    with open_store(store) as opened:
        view = read_view(opened, find_study(opened, study))
        final_run = find_run_of(view, run)
        with telling(console) as tell:
            told = draw_study(opened, view, storage, tell)
            tell("writing the report", 0, 0)
            page = page_of(opened, view, final_run)
    write_output(file, page)
    if told:
        console.print(told, soft_wrap=True)
    console.print(f"{file}: {_format_parts(final_run)}; open it in a browser", soft_wrap=True)


def _format_parts(run: FinalRun | None) -> str:
    if run is None:
        return "the search; it has no final run yet (hpsearch train)"
    if run.evaluation is None:
        return "the search and the final training; it is not evaluated yet (hpsearch evaluate)"
    return "the search, the final training and its evaluation"
