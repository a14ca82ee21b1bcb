"""`hpsearch launch`: workers for a study on an engine, without staying with them."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.options import (
    NOTIFY_VARIABLE,
    NotifyOption,
    PerDeviceOption,
    SetOption,
    StoreOption,
    StudyFileArgument,
    WaitOption,
    refuse_paused,
    stoppable,
    telling,
    worker_arguments,
)
from hpsearch.opening.places import fetch_adapter, find_study, open_store, storage_folder, store_url
from hpsearch.opening.trainers import inspector

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy.engine import URL

    from hpsearch.launch.launcher import Order
    from hpsearch.launch.sites import Site
    from hpsearch.spec import StudyFile
    from hpsearch.store import LaunchedJob, Store, StoredStudy


ENGINE_PANEL = "Options of the engine"


def _engine_option(help_: str) -> Any:
    return typer.Option(help=help_, show_default=False, rich_help_panel=ENGINE_PANEL)


def launch(
    study_file: StudyFileArgument,
    on: Annotated[str | None, typer.Option(metavar="ENGINE", help="local, slurm or ray", show_default=False)] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="default: 1; on this machine one per free GPU", show_default=False)
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="profile in ./launch.yaml, with its options", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be submitted; submit nothing")] = False,
    time: Annotated[str | None, _engine_option("slurm: time limit of a job, as 4h, 90m or 1-12:00:00")] = None,
    partition: Annotated[str | None, _engine_option("slurm: partition")] = None,
    account: Annotated[str | None, _engine_option("slurm: account")] = None,
    qos: Annotated[str | None, _engine_option("slurm: quality of service")] = None,
    constraint: Annotated[str | None, _engine_option("slurm: features that a node must have")] = None,
    gres: Annotated[str | None, _engine_option("slurm: generic resources of a worker, as gpu:a100:1")] = None,
    gpus: Annotated[float | None, _engine_option("slurm, ray: GPUs of a worker")] = None,
    cpus: Annotated[int | None, _engine_option("slurm, ray: cores of a worker")] = None,
    memory: Annotated[str | None, _engine_option("slurm, ray: memory of a worker, as 64G")] = None,
    setup: Annotated[str | None, _engine_option("slurm, ray: shell lines first, as 'module load cuda'")] = None,
    address: Annotated[str | None, _engine_option("ray: the cluster, as auto or http://HEAD:8265")] = None,
    workers_per_device: PerDeviceOption = 1,
    store: StoreOption = None,
    set_: SetOption = None,
    wait_for_store: WaitOption = 60.0,
    notify: NotifyOption = None,
) -> None:
    """Start workers for a study, in the background of this machine or on a cluster, and return."""
    from hpsearch.launch.sites import choose_site
    from hpsearch.spec import load_study
    from hpsearch.watch.console import open_console

    console = open_console()
    given: dict[str, Any] = {
        "on": on,
        "workers": workers,
        "time": time,
        "partition": partition,
        "account": account,
        "qos": qos,
    }
    given |= {"constraint": constraint, "gres": gres, "gpus": gpus, "cpus": cpus, "memory": memory}
    site = choose_site(profile, given | {"setup": setup, "address": address})
    file = load_study(study_file, set_)
    arguments = worker_arguments(study_file.resolve(), None, set_, workers_per_device, wait_for_store)
    order = _order(console, site, file.spec.study, arguments, store, workers_per_device)
    if notify is not None:  # not as an argument: the address of a chat is as secret as a password
        order = replace(order, environment={**order.environment, NOTIFY_VARIABLE: notify})
    site.launcher.check(order)
    if dry_run:
        console.print(site.launcher.plan(order), soft_wrap=True)
        return
    with open_store(store) as opened:
        stored = _open(console, file, opened)
        _refuse_idle(opened, stored)
        _say_who_is_there(console, opened, stored)
        started = _start(site, order, opened, stored.study_id)
    _say_started(console, site, order, started, store)


def _order(console: Console, site: Site, study: str, arguments: list[str], store: str | None, per_device: int) -> Order:
    from hpsearch.launch.launcher import Order
    from hpsearch.launch.process import default_num_workers, share_cores, worker_environment

    url, storage = store_url(store), storage_folder()
    environment = worker_environment(url, storage.path)
    if site.launcher.reaches_other_machines:
        _refuse_unreachable(console, url)
        num_workers = site.num_workers or 1
    else:
        num_workers = site.num_workers or default_num_workers(
            lambda line: console.print(line, soft_wrap=True), per_device
        )
        environment |= share_cores(num_workers)
    return Order(
        study=study,
        num_workers=num_workers,
        arguments=arguments,
        environment=environment,
        folder=Path.cwd(),
        logs=storage.logs(study),
    )


_ONLY_HERE = ("localhost", "127.0.0.1", "::1")


def _refuse_unreachable(console: Console, url: URL) -> None:
    """Workers elsewhere would create a store of their own, or find none."""
    from hpsearch.errors import InputError

    if url.get_backend_name() == "sqlite":
        raise InputError(
            "--store: an SQLite file belongs to this machine, and workers on others can't share it: use PostgreSQL or "
            "MySQL, with its address in $HPSEARCH_STORE (docs/how-to/databases.md)"
        )
    if url.host in _ONLY_HERE:
        warning = f"careful: {url.host} means each machine itself; workers on others look for the store there"
        console.print(warning, soft_wrap=True)


def _open(console: Console, file: StudyFile, store: Store) -> StoredStudy:
    """The study, created where it is new, so that workers that start together all find it prepared."""
    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.study.open import open_study

    stop = StopFlag()
    stop.install(watch_parent=False)
    with stop.preparing(), telling(console) as tell:
        fetch_adapter(file)
        study = open_study(file, store, storage_folder(), inspector(), stoppable(tell, stop), joins=False)
    return find_study(store, study.spec.study)


def _refuse_idle(store: Store, stored: StoredStudy) -> None:
    from hpsearch.errors import HpsearchError
    from hpsearch.search.view import read_view

    view = read_view(store, stored)
    refuse_paused(stored)
    if view.is_finished:
        raise HpsearchError(
            f"{stored.name} is finished: all of its {view.slots.wanted} trials have ended; more begin with a higher "
            "search.trials in its file, or --set search.trials=N"
        )
    if view.reached_limit:
        raise HpsearchError(f"{stored.name} has reached its limit: {view.reached_limit}")


def _say_who_is_there(console: Console, store: Store, stored: StoredStudy) -> None:
    """A launch adds workers: the person should know of those that exist."""
    from hpsearch.launch.roll import call_roll

    num_jobs = sum(len(called.there) for called in call_roll(store, stored.study_id))
    if num_jobs:
        jobs = "1 job is" if num_jobs == 1 else f"{num_jobs} jobs are"
        console.print(f"{jobs} already started for {stored.name}; these are added to them", soft_wrap=True)


def _start(site: Site, order: Order, store: Store, study_id: int) -> list[LaunchedJob]:
    """Starts the jobs and records them, or neither: jobs without a record can't be stopped."""
    from hpsearch.launch.process import PARENT_VARIABLE
    from hpsearch.store import StoredLaunch
    from hpsearch.store.workers import JOB_VARIABLE

    for name in (JOB_VARIABLE, PARENT_VARIABLE):  # of the worker that this process runs in: engines pass the rest on
        os.environ.pop(name, None)
    started = site.launcher.start(order)
    options = site.options.model_dump(mode="json", exclude_none=True)
    try:
        with store.reaching():
            store.launches.add(study_id, site.engine, options, started)
    except BaseException:
        site.launcher.stop(StoredLaunch(0, site.engine, options, started, "", 0.0), now=True)
        raise
    return started


def _say_started(console: Console, site: Site, order: Order, started: list[LaunchedJob], store: str | None) -> None:
    study = order.study if store is None else f"{order.study} --store {shlex.quote(store)}"
    workers = "1 worker" if len(started) == 1 else f"{len(started)} workers"
    ids = ", ".join(job.job_id for job in started[:4]) + (", …" if len(started) > 4 else "")
    lines = [
        f"{workers} for {order.study} on {site.engine}: {ids}",
        f"  hpsearch status {study}   who works, who waits, and why",
        f"  hpsearch logs {study}     what they say; in {order.logs}",
        f"  hpsearch stop {study}     all of them save and leave",
    ]
    console.print("\n".join(lines), soft_wrap=True)
