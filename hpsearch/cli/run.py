"""`hpsearch run`: create or resume a study, with workers on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import (
    SetOption,
    StoreOption,
    StudyFileArgument,
    find_study,
    open_store,
    storage_folder,
    telling,
    trainer_starter,
)

if TYPE_CHECKING:
    from rich.console import Console

    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.launch.local import WorkerJob
    from hpsearch.search.view import StudyView
    from hpsearch.store import Store, StoredStudy

_LOOK_EVERY_S = 0.5
_MAX_RESTARTS = 3


def run(
    study_file: StudyFileArgument,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="workers on this machine; default: one per GPU", show_default=False),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="trials in all, instead of the file's", show_default=False)
    ] = None,
    store: StoreOption = None,
    set_: SetOption = None,
) -> None:
    """Search: create the study or resume it, and work until all of its trials are done."""
    from hpsearch.spec import load_study

    overrides = [*(set_ or []), *([f"search.trials={trials}"] if trials else [])]
    file = load_study(study_file, overrides)  # a mistake in it is told before the libraries are loaded

    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.launch.local import default_num_workers
    from hpsearch.study.open import open_study
    from hpsearch.watch.console import open_console

    console = open_console()
    storage = storage_folder()
    with open_store(store) as opened:
        with telling(console) as tell:
            study = open_study(file, opened, storage, trainer_starter("inspection"), tell, joins=False)
        stored = find_study(opened, study.spec.study)
        _introduce(console, opened, stored)
        arguments = [str(study_file), *(part for override in overrides for part in ("--set", override))]
        stop = StopFlag()
        stop.install(watch_parent=False)
        _work(console, opened, stored, arguments, workers or default_num_workers(), stop)
        _conclude(console, opened, stored, stop)


def _introduce(console: Console, store: Store, stored: StoredStudy) -> None:
    from rich.text import Text

    from hpsearch.data.manifest import Manifest
    from hpsearch.watch.examples import told_left_out

    manifest = Manifest.from_bytes(stored.manifest)
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in manifest.splits.items())
    spec = stored.spec
    told = Text.assemble((spec.study, "bold"), f": {spec.task} on {spec.model.base}; rows: {sizes}")
    console.print(told, soft_wrap=True)
    console.print(f"  store: {store.name}", soft_wrap=True)
    for line in told_left_out(manifest):
        console.print(f"  {line}", soft_wrap=True)


def _work(
    console: Console,
    store: Store,
    stored: StoredStudy,
    arguments: list[str],
    num_workers: int,
    stop: StopFlag,
) -> None:
    """Keeps workers running until the study is finished; a worker that dies is replaced.

    An outage of the store is theirs to survive: nobody stops them for it.
    """
    from hpsearch.errors import HpsearchError
    from hpsearch.launch.local import start_worker
    from hpsearch.search.view import read_view
    from hpsearch.watch.live import Follower

    def read() -> StudyView:
        return read_view(store, stored)

    if read().is_finished:
        return
    folder = storage_folder().path

    def start(index: int) -> WorkerJob:
        return start_worker(index, num_workers, arguments, store.url, folder)

    jobs = [start(index) for index in range(num_workers)]
    restarts_left = _MAX_RESTARTS * num_workers
    asked = 0
    try:
        with Follower(console) as follower:
            while any(job.is_running or (job.has_failed and not stop.requested) for job in jobs):
                follower.look(read)
                if stop.requested and asked < 1 + stop.urgent:
                    asked += 1
                    _ask_to_stop(console, jobs)
                for index, job in enumerate(jobs):
                    if job.has_failed and not stop.requested:
                        if not restarts_left:
                            raise HpsearchError(f"workers keep failing: {job.last_line()}\nthe log is {job.log}")
                        restarts_left -= 1
                        console.print(f"worker {index} ended ({job.last_line()}); another one starts")
                        jobs[index] = start(index)
                stop.wait(_LOOK_EVERY_S)
            follower.look(read)
    finally:
        for job in jobs:
            job.stop()


def _ask_to_stop(console: Console, jobs: list[WorkerJob]) -> None:
    for job in jobs:
        job.stop()
    console.print("stopping: running trials are saved … (Ctrl-C again to stop at once)")


def _conclude(console: Console, store: Store, stored: StoredStudy, stop: StopFlag) -> None:
    from hpsearch.search.view import read_view
    from hpsearch.watch.closing import closing_words
    from hpsearch.watch.pictures import draw_study

    view = read_view(store, stored)
    if not stop.requested:
        with telling(console) as tell:
            told = draw_study(store, view, storage_folder(), tell, lambda: stop.requested)
        if told:
            console.print(told, soft_wrap=True)
    console.print()
    console.print(closing_words(view), soft_wrap=True)
    if stop.requested and not view.is_finished:
        raise typer.Exit(130)
