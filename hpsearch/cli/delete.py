"""`hpsearch delete`: a study out of the store, with its trials' folders."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.options import StoreOption, StudyArgument, change_store, find_study, storage_folder


def delete(
    study: StudyArgument,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    store: StoreOption = None,
) -> None:
    """Delete a study with all of its trials and their folders. Final runs stay."""
    import shutil

    import optuna

    from hpsearch.errors import InputError
    from hpsearch.search.view import read_view
    from hpsearch.watch.console import open_console

    console, storage = open_console(), storage_folder()
    with change_store(store) as opened:
        found = find_study(opened, study)
        view = read_view(opened, found)
        if view.live_workers:
            workers = "1 worker" if len(view.live_workers) == 1 else f"{len(view.live_workers)} workers"
            raise InputError(f"{study} has {workers} now: hpsearch stop {study} ends them")
        folder = storage.path / "trials" / found.uid
        if not yes:
            typer.confirm(f"delete {study} with its {len(view.trials)} trials and {folder}?", abort=True)
        with opened.reaching():
            optuna.delete_study(study_name=study, storage=opened.optuna)
            opened.studies.forget_deleted()
    for path in (folder, storage.plots(study)):
        shutil.rmtree(path, ignore_errors=True)
    console.print(f"{study} is deleted; final runs stay in {storage.runs}", soft_wrap=True)
    if storage.features.exists():
        console.print(f"what studies share stays too: {storage.features} may be deleted at any time", soft_wrap=True)
