"""`hpsearch worker`: one more worker for a study, here or on another machine."""

from __future__ import annotations

import os

import typer

from hpsearch.cli.options import SetOption, StoreOption, StudyFileArgument, open_store, storage_folder


def worker(study_file: StudyFileArgument, store: StoreOption = None, set_: SetOption = None) -> None:
    """Join a study: run trials until it is finished, or until Ctrl-C or SIGTERM."""
    import logging

    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.bridge.trainer_process import TrainerProcess
    from hpsearch.cli.options import telling
    from hpsearch.launch.local import PARENT_VARIABLE
    from hpsearch.spec import load_study
    from hpsearch.store.workers import own_worker_id
    from hpsearch.study.open import open_study
    from hpsearch.watch.console import open_console
    from hpsearch.worker.endings import Step
    from hpsearch.worker.worker import Worker

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("hpsearch").setLevel(logging.INFO)
    stop = StopFlag()
    stop.install(watch_parent=PARENT_VARIABLE in os.environ)
    file = load_study(study_file, set_)
    storage = storage_folder()
    worker_id = own_worker_id()
    log = storage.trainer_log(worker_id.replace(":", "-"))
    with open_store(store) as opened:
        with telling(open_console()) as tell:
            study = open_study(file, opened, storage, lambda: TrainerProcess(log), tell, joins=True)
        step = Worker(study, opened, worker_id, lambda: TrainerProcess(log), stop).run()
    logging.getLogger("hpsearch").info("%s", step.value)
    if step is Step.STOPPED and PARENT_VARIABLE not in os.environ:
        raise typer.Exit(130)
