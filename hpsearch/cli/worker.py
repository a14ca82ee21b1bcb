"""`hpsearch worker`: one more worker for a study, here or on another machine."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import (
    NOTIFY_VARIABLE,
    NotifyOption,
    PerDeviceOption,
    SetOption,
    StoreOption,
    StudyFileArgument,
    WaitOption,
    stoppable,
    telling,
    worker_arguments,
)
from hpsearch.opening.places import fetch_adapter, find_study, open_mirror, open_store, storage_folder
from hpsearch.opening.trainers import inspector

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpsearch.search.view import StudyView
    from hpsearch.store import Store
    from hpsearch.store.orders import Orders


def worker(
    study_file: StudyFileArgument,
    store: StoreOption = None,
    set_: SetOption = None,
    workers_per_device: PerDeviceOption = 1,
    wait_for_store: WaitOption = 60.0,
    notify: NotifyOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="restart the worker when it fails; for cluster jobs and containers")
    ] = False,
) -> None:
    """Join a study: run trials until it is finished, or until Ctrl-C or SIGTERM."""
    import logging

    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.bridge.trainer_process import TrainerProcess
    from hpsearch.launch.keep import keep_worker
    from hpsearch.launch.process import PARENT_VARIABLE, keeper_of_this
    from hpsearch.spec import load_study
    from hpsearch.store.workers import own_worker_id
    from hpsearch.study.open import open_study
    from hpsearch.watch.console import open_console
    from hpsearch.worker.devices import find_devices
    from hpsearch.worker.endings import EXIT_CODES, Step
    from hpsearch.worker.patience import patiently
    from hpsearch.worker.take_device import take_device
    from hpsearch.worker.worker import Worker

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    log = logging.getLogger("hpsearch")
    log.setLevel(logging.INFO)
    stop = StopFlag(keeper_of_this())
    stop.install(watch_parent=PARENT_VARIABLE in os.environ)
    if keep:
        load_study(study_file, set_)  # a mistake in it is reported once
        arguments = worker_arguments(study_file, store, set_, workers_per_device, wait_for_store)
        variables = {} if notify is None else {NOTIFY_VARIABLE: notify}
        raise typer.Exit(keep_worker(arguments, variables, stop, log.info))
    file = load_study(study_file, set_)
    storage, worker_id, limit_s = storage_folder(), own_worker_id(), 60 * wait_for_store
    trainer_log = storage.trainer_log(worker_id.replace(":", "-"), file.spec.study)
    with stop.preparing(), telling(open_console()) as tell:
        mirror = open_mirror()
        fetch_adapter(file)
        opened = patiently(lambda: open_store(store), limit_s, stop, log.warning)
        study = patiently(
            lambda: open_study(file, opened, storage, inspector(), stoppable(tell, stop), joins=True),
            limit_s,
            stop,
            log.warning,
        )
    with opened:
        device = take_device(
            lambda: find_devices().in_parts(workers_per_device),
            stop,
            log.info,
            is_over=lambda: _is_over(opened, study.study_id),
        )
        if device is None:
            raise typer.Exit(130 if stop.requested and PARENT_VARIABLE not in os.environ else 0)
        worker = Worker(
            study,
            opened,
            worker_id,
            lambda: TrainerProcess(trainer_log, device.environment, device.file_descriptors),
            stop,
            wait_limit_s=limit_s,
            device_uuid=device.device.uuid,
            mirror=mirror,
        )
        asks = partial(patiently, limit_s=limit_s, stop=stop, say=log.warning)
        asked = asks(lambda: _asked(opened, study.study_id))
        if asked.stop:
            stop.order(now=asked.stop_now)
        with _notifying(notify, opened, study.spec.study, asks, log.info):
            step = worker.run()
    log.info("%s", step.value)
    is_asked_by_run = step is Step.STOPPED and PARENT_VARIABLE in os.environ
    code = 0 if is_asked_by_run else EXIT_CODES[step]
    if code:
        raise typer.Exit(code)


def _is_over(store: Store, study_id: int) -> bool:
    """Whether there is no more work to wait for. An outage does not count."""
    from hpsearch.errors import StoreUnreachable

    try:
        with store.reaching():
            is_paused = store.studies.why_paused(study_id) is not None
            return is_paused or store.leases.slots(study_id).all_finished or _asked(store, study_id).stop
    except StoreUnreachable:
        return False


def _asked(store: Store, study_id: int) -> Orders:
    """What `hpsearch stop` asked of this worker before it was in the store; later requests come with its heartbeats."""
    from hpsearch.launch.process import seconds_kept

    with store.reaching():
        return store.orders.since(study_id, seconds_kept())


def _notifying(
    command: str | None,
    store: Store,
    study: str,
    asks: Callable[[Callable[[], StudyView]], StudyView],
    say: Callable[[str], None],
) -> AbstractContextManager[None]:
    """`asks` retries through an outage of the store."""
    if command is None:
        return nullcontext()
    from hpsearch.search.view import read_view
    from hpsearch.watch.notify import notifying

    def read() -> StudyView:
        return read_view(store, find_study(store, study))

    return notifying(command, store, asks(read), read, say, is_one_of_many=True)
