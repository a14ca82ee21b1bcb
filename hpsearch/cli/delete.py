"""`hpsearch delete`: a study out of the store, with its trials' folders and its logs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hpsearch.cli.options import StoreOption, StudyArgument
from hpsearch.opening.places import change_store, find_study, open_mirror, storage_folder


def delete(
    study: StudyArgument,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
    store: StoreOption = None,
) -> None:
    """Delete a study with all of its trials and their folders, even if it can't be read. Final runs are kept."""
    import shutil

    import optuna

    from hpsearch.errors import InputError
    from hpsearch.launch.roll import call_roll
    from hpsearch.search.view import live
    from hpsearch.watch.console import open_console

    console, storage = open_console(), storage_folder()
    with open_mirror() as mirror, change_store(store) as opened:
        with opened.reaching():
            unreadable = {each.name: each for each in opened.studies.unreadable()}
        found = unreadable.get(study) or find_study(opened, study)
        with opened.reaching():
            trials = opened.optuna.get_all_trials(found.study_id, deepcopy=False)
            there = live(opened.workers.of(found.study_id))
        if there:
            workers = "1 worker" if len(there) == 1 else f"{len(there)} workers"
            raise InputError(f"{study} has {workers} now: hpsearch stop {study} ends them")
        if jobs := [job for called in call_roll(opened, found.study_id) for job in called.there]:
            raise InputError(f"{study} has jobs that wait or run ({jobs[0].job_id}): hpsearch stop {study} ends them")
        folder = storage.path / "trials" / found.uid
        if not yes and not _agrees(f"delete {study} with its {len(trials)} trials and {folder}?"):
            console.print(f"{study} is kept", soft_wrap=True)
            return
        mirror.delete(folder)  # first: if it fails, the same command continues from there
        with opened.reaching():
            optuna.delete_study(study_name=study, storage=opened.optuna)
            opened.studies.forget_deleted()
    for path in (folder, storage.tensorboard(found.uid), storage.plots(study), storage.logs(study)):
        shutil.rmtree(path, ignore_errors=True)
    console.print(f"{study} is deleted; final runs stay in {storage.runs}", soft_wrap=True)
    if storage.features.exists():
        console.print(f"what studies share stays too: {storage.features} may be deleted at any time", soft_wrap=True)


def _agrees(question: str) -> bool:
    """Raises Interrupted on Ctrl-C, and InputError where nobody can be asked."""
    from hpsearch.errors import InputError, Interrupted

    try:
        return typer.confirm(question)
    except typer.Abort:  # Ctrl-C, or the end of the input
        print()
        if sys.stdin.isatty():
            raise Interrupted("nothing was deleted") from None
        raise InputError("there is no terminal to ask on: --yes deletes without a question") from None
