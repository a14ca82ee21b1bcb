"""`hpsearch report`: a study's whole story in one HTML file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import StoreOption, find_study, open_mirror, open_store, storage_folder, storage_url, telling

if TYPE_CHECKING:
    from hpsearch.folders import StorageFolder
    from hpsearch.search.view import StudyView
    from hpsearch.watch.report import FinalRun


def report(
    study: Annotated[str, typer.Argument(help="name of a study", show_default=False)],
    run: Annotated[
        Path | None, typer.Option(help="folder of its final run; default: storage/runs/STUDY", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", dir_okay=False, help="default: STUDY-report.html", show_default=False),
    ] = None,
    store: StoreOption = None,
) -> None:
    """The whole story in one HTML file: data, space, trials, final training, evaluation, answers right and wrong."""
    from hpsearch.errors import InputError
    from hpsearch.files import write_text
    from hpsearch.results.best import as_yaml, choose
    from hpsearch.search.importance import importances
    from hpsearch.search.view import read_view
    from hpsearch.watch.console import open_console
    from hpsearch.watch.pictures import draw_study
    from hpsearch.watch.report import Asked, report_page

    console = open_console()
    storage = storage_folder()
    file = output or Path(f"{study}-report.html")
    with open_store(store) as opened:
        view = read_view(opened, find_study(opened, study))
        final_run = _final_run(view, run, storage)
        with telling(console) as tell:
            told = draw_study(opened, view, storage, tell)
            tell("writing the report", 0, 0)
            best_yaml = as_yaml(choose(view, None)) if view.best else None
            page = report_page(Asked(view, importances(opened, view.study), final_run, best_yaml, time.time()))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, page)
    except OSError as error:
        raise InputError(f"{file}: can't be written: {error.strerror}") from None
    if told:
        console.print(told, soft_wrap=True)
    console.print(f"{file}: {_format_parts(final_run)}; open it in a browser", soft_wrap=True)


def _final_run(view: StudyView, wanted: Path | None, storage: StorageFolder) -> FinalRun | None:
    """What is known of the final run; None where nobody named one and the usual folder holds none that is complete.

    Raises:
        InputError: the folder is no complete run, or another study's.
    """
    from hpsearch.errors import InputError
    from hpsearch.evaluation import Evaluation
    from hpsearch.results.final import RunFolder
    from hpsearch.trial import TrialResult
    from hpsearch.watch.report import FinalRun

    if wanted is None and storage_url():
        with open_mirror() as mirror:
            mirror.fetch_runs(view.study.name)
    folder = RunFolder((wanted or _usual_run(view, storage)).resolve())
    if wanted is None and not folder.is_trained():
        return None
    run_file, _, config = folder.load()
    if run_file.spec.study != view.study.name:
        raise InputError(f"{folder.path} is a run of study {run_file.spec.study!r}, not of {view.study.name!r}")
    scores = folder.scores / "scores.json"
    return FinalRun(
        path=folder.path,
        config=config,
        result=folder.read(TrialResult),
        history=folder.read_history(),
        evaluation=folder.read(Evaluation, scores) if scores.exists() else None,
        scores=folder.scores,
    )


def _usual_run(view: StudyView, storage: StorageFolder) -> Path:
    """`hpsearch train best.yaml` makes a run of the study's name, `hpsearch train STUDY` one of the trial's."""
    named = storage.runs / view.study.name
    if view.best is None or named.exists():
        return named
    return storage.runs / f"{view.study.name}-trial-{view.best.number}"


def _format_parts(run: FinalRun | None) -> str:
    if run is None:
        return "the search; it has no final run yet (hpsearch train)"
    if run.evaluation is None:
        return "the search and the final training; it is not evaluated yet (hpsearch evaluate)"
    return "the search, the final training and its evaluation"
