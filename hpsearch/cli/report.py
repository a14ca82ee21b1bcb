"""`hpsearch report`: a study's whole story in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import StoreOption, StudyArgument, telling
from hpsearch.opening.places import change_store, find_study, storage_folder

if TYPE_CHECKING:
    from hpsearch.watch.report import FinalRun


def report(
    study: StudyArgument,
    run: Annotated[
        Path | None, typer.Option(help="folder of its final run; default: storage/runs/STUDY", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="PATH", help="file or folder/; default: STUDY-report.html", show_default=False
        ),
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
    with change_store(store) as opened:
        view = read_view(opened, find_study(opened, study))
        final_run = find_run_of(view, run)
        with telling(console) as tell:
            summary = draw_study(opened, view, storage, tell)
            tell("writing the report", 0, 0)
            page = page_of(opened, view, final_run)
    file = write_output(_page_file(output, study), page)
    if summary:
        console.print(summary, soft_wrap=True)
    console.print(f"{file}: {_format_parts(final_run)}; open it in a browser", soft_wrap=True)


def _page_file(output: str | None, study: str) -> Path:
    """A browser shows a page only by its ending. The name of a folder may end in a slash."""
    name = f"{study}-report.html"
    if output is None or output.endswith("/") or Path(output).is_dir():
        return Path(output or "", name)
    return Path(output) if Path(output).suffix else Path(f"{output}.html")


def _format_parts(run: FinalRun | None) -> str:
    if run is None:
        return "the search; it has no final run yet (hpsearch train)"
    if run.evaluation is None:
        return "the search and the final training; it is not evaluated yet (hpsearch evaluate)"
    return "the search, the final training and its evaluation"
