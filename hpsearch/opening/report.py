"""A study's report with all that belongs to it: the search, its best parameters, its final run and the evaluation."""

from __future__ import annotations

import time
from pathlib import Path

from hpsearch.errors import InputError
from hpsearch.evaluation import Evaluation
from hpsearch.folders import StorageFolder
from hpsearch.opening.places import open_mirror, storage_folder, storage_url
from hpsearch.results.best import as_yaml, choose
from hpsearch.results.final import RunFolder, runs_of, several_runs
from hpsearch.search.importance import importances
from hpsearch.search.timeline import read_timeline
from hpsearch.search.view import StudyView
from hpsearch.store import Store
from hpsearch.trial import TrialResult
from hpsearch.watch.report import Asked, FinalRun, report_page


def page_of(store: Store, view: StudyView, run: FinalRun | None) -> str:
    """One HTML document that needs no other file; the store is only read."""
    best_yaml = as_yaml(choose(view, None)) if view.best else None
    importance, timeline = importances(store, view.study), read_timeline(store, view)
    return report_page(Asked(view, importance, timeline, run, best_yaml, time.time()))


def find_run_of(view: StudyView, wanted: Path | None, storage: str | None = None) -> FinalRun | None:
    """The data of the final run; None where no folder was given and the usual one has no complete run.

    Raises:
        InputError: the folder is no complete run, or another study's; or the study has several runs.
    """
    if wanted is None and storage_url(storage):
        with open_mirror(storage) as mirror:
            mirror.fetch_runs(view.study.name)
    folder = RunFolder(wanted.resolve()) if wanted else _usual_run(view, storage_folder(storage))
    if folder is None or (wanted is None and not folder.is_trained()):
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


def _usual_run(view: StudyView, storage: StorageFolder) -> RunFolder | None:
    """Of several runs of single trials that of the best one. Raises InputError where it is not among them."""
    name, found = view.study.name, runs_of(view.study.name, storage)
    if len(found) < 2:
        return found[0] if found else None
    best = [run for run in found if view.best and run.path.name == f"{name}-trial-{view.best.number}"]
    if not best:
        raise InputError(f"{several_runs(name, found)}; --run names one")
    return best[0]
