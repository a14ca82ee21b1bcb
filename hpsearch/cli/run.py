"""`hpsearch run`: create or resume a study, with workers on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import (
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
from hpsearch.opening.places import fetch_adapter, find_study, open_mirror, open_store, storage_folder
from hpsearch.opening.trainers import inspector

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.launch.crew import Crew
    from hpsearch.search.view import StudyView
    from hpsearch.spec import StudyFile
    from hpsearch.store import Store, StoredStudy
    from hpsearch.study.prepare import PreparedStudy
    from hpsearch.worker.relay import Relay

_LONGEST_LOOK_S = 0.5


def run(
    study_file: StudyFileArgument,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="workers on this machine; default: one per free GPU", show_default=False),
    ] = None,
    workers_per_device: PerDeviceOption = 1,
    trials: Annotated[
        int | None, typer.Option(min=1, help="total number of trials, instead of the file's", show_default=False)
    ] = None,
    store: StoreOption = None,
    set_: SetOption = None,
    wait_for_store: WaitOption = 60.0,
    notify: NotifyOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="start without asking, also if it takes more than an hour")
    ] = False,
) -> None:
    """Run a search: create the study or resume it, and work until all of its trials are done."""
    from hpsearch.spec import load_study

    overrides = [*(set_ or []), *([f"search.trials={trials}"] if trials else [])]
    with _of_trials(trials):
        file = load_study(study_file, overrides)  # report mistakes before the libraries are loaded

    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.study.open import check_trackers, open_study
    from hpsearch.watch.console import open_console
    from hpsearch.watch.notify import notifying
    from hpsearch.watch.words import format_time
    from hpsearch.worker.patience import patiently
    from hpsearch.worker.relay import Relay

    check_trackers(file)
    console = open_console()
    storage, limit_s = storage_folder(), 60 * wait_for_store
    stop = StopFlag()
    stop.install(watch_parent=False)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    with stop.preparing(), telling(console) as tell:
        open_mirror().close()  # report its errors before anything begins
        fetch_adapter(file)
        opened = patiently(lambda: open_store(store), limit_s, stop, say)
    is_new = patiently(lambda: _is_new(opened, file), limit_s, stop, say)
    prepared = _prepare(console, file, stop, workers, workers_per_device, asks=not yes) if is_new else None
    with _of_trials(trials), stop.preparing(), telling(console) as tell:
        study = patiently(
            lambda: open_study(
                file, opened, storage, inspector(), stoppable(tell, stop), joins=False, prepared=prepared
            ),
            limit_s,
            stop,
            say,
        )
    with opened:
        stored = patiently(lambda: find_study(opened, study.spec.study), limit_s, stop, say)
        _introduce(console, opened, stored)
        arguments = worker_arguments(study_file, None, overrides, workers_per_device, wait_for_store)
        view = patiently(lambda: _read(opened, stored), limit_s, stop, say)
        if not view.is_finished:
            refuse_paused(view.study)
            number = workers or _num_workers(console, workers_per_device)
            if (left := view.seconds_left(number)) is not None:
                console.print(f"  {_left(view)}, about {format_time(left)} at the pace so far")
            with notifying(notify, opened, view, lambda: _read(opened, stored), say):
                crew = _start_crew(console, opened, stored.name, arguments, number)
                with closing(Relay(opened, stop, limit_s)) as relay:
                    _work(console, relay, lambda: _read(opened, stored), crew, stop)
                    view = relay.ask(lambda: _read(opened, stored))
                _refuse_failures(view, crew, stop)
        _conclude(console, opened, view, stop)


@contextmanager
def _of_trials(trials: int | None) -> Iterator[None]:
    """A mistake in the number of trials is the option's where it is given, not the file's."""
    from hpsearch.errors import InputError, StudyFileErrors

    try:
        yield
    except StudyFileErrors as error:
        if trials is None or [mistake.key for mistake in error.mistakes] != ["search.trials"]:
            raise
        raise InputError(f"--trials {trials}: {error.mistakes[0].message}") from None


def _read(store: Store, stored: StoredStudy) -> StudyView:
    """The current state: somebody may have paused the study, or changed its budget."""
    from hpsearch.search.view import read_view

    return read_view(store, find_study(store, stored.name))


def _left(view: StudyView) -> str:
    return f"left: {view.slots.wanted - view.slots.finished} of {view.slots.wanted} trials"


def _is_new(store: Store, file: StudyFile) -> bool:
    with store.reaching():
        return file.spec.search is not None and store.studies.find(file.spec.study) is None


def _prepare(
    console: Console, file: StudyFile, stop: StopFlag, workers: int | None, per_device: int, *, asks: bool
) -> PreparedStudy:
    """Prepares a study that is in no store yet: until the person agrees, the file can still be changed."""
    from hpsearch.bridge.trainer_process import one_trainer
    from hpsearch.cli.estimating import LONG_S, agrees
    from hpsearch.errors import HpsearchError, Interrupted
    from hpsearch.opening.estimates import measured_estimate
    from hpsearch.study.adapter import with_adapter
    from hpsearch.study.open import prepare_new
    from hpsearch.watch.console import print_table
    from hpsearch.watch.estimate import estimate_table

    storage, found = storage_folder(), None
    with stop.preparing(), telling(console) as telling_on, one_trainer(inspector()) as start:
        tell = stoppable(telling_on, stop)
        file = with_adapter(file, storage)
        prepared = prepare_new(file, storage, start, tell)
        try:
            found = measured_estimate(file, prepared, start, tell, workers, per_device)
        except Interrupted:
            raise
        except HpsearchError as error:
            console.print(f"how long it will take could not be measured: {error}; it begins all the same")
    if found is not None:
        print_table(console, estimate_table(file.spec, found, storage.path))
        if asks and found.search_s > LONG_S and not agrees(console, stop):
            console.print("nothing was trained, and the study is in no store: change its file, or start it later")
            raise typer.Exit(130)
    return prepared


def _introduce(console: Console, store: Store, stored: StoredStudy) -> None:
    from rich.text import Text

    from hpsearch.data.manifest import Manifest
    from hpsearch.watch.examples import format_left_out

    manifest = Manifest.from_bytes(stored.manifest)
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in manifest.splits.items())
    spec = stored.spec
    title = Text.assemble((spec.study, "bold"), f": {spec.task} on {spec.model.base}; rows: {sizes}")
    console.print(title, soft_wrap=True)
    console.print(f"  store: {store.name}", soft_wrap=True)
    for line in format_left_out(manifest):
        console.print(f"  {line}", soft_wrap=True)


def _num_workers(console: Console, per_device: int) -> int:
    from hpsearch.launch.process import default_num_workers

    return default_num_workers(lambda line: console.print(f"  {line}", soft_wrap=True), per_device)


def _start_crew(console: Console, store: Store, study: str, arguments: list[str], number: int) -> Crew:
    from hpsearch.launch.crew import Crew
    from hpsearch.launch.process import WorkerProcess, share_cores, start_worker, worker_environment

    storage = storage_folder()
    environment = worker_environment(store.url, storage.path) | share_cores(number)

    def start(index: int) -> WorkerProcess:
        return start_worker(arguments, environment, storage.worker_log(study, index))

    return Crew(start, number, lambda line: console.print(line, soft_wrap=True))


def _work(console: Console, relay: Relay, read: Callable[[], StudyView], crew: Crew, stop: StopFlag) -> None:
    """Runs until no worker is left. The workers survive an outage of the store; it neither stops them nor delays a
    stop.
    """
    from hpsearch.launch.crew import supervise
    from hpsearch.watch.live import Follower
    from hpsearch.watch.logs import Deaths

    deaths = Deaths(crew.logs)
    seen = relay.offer(read)
    with Follower(console) as follower:

        def look() -> None:
            nonlocal seen
            for line in deaths.new():
                console.print(line, soft_wrap=True)
            if relay.is_answered(seen, _LONGEST_LOOK_S):
                follower.look(seen.result)
                seen = relay.offer(read)

        stopping = "stopping: saving the running trials … (Ctrl-C again to stop at once)"
        supervise(crew, stop, lambda line: console.print(line, soft_wrap=True), look, stopping)
        last = relay.offer(read)
        if relay.is_answered(last):
            follower.look(last.result)


def _refuse_failures(view: StudyView, crew: Crew, stop: StopFlag) -> None:
    """Raises HpsearchError where the workers ended too early: with the reason and what to do."""
    from hpsearch.errors import HpsearchError

    if view.is_finished:
        return
    refuse_paused(view.study)
    if stop.requested or not crew.failures:
        return
    aside = [f"  {worker.device}: {worker.aside}" for worker in view.workers if worker.aside]
    if aside:
        causes = "\n".join(["all devices of this machine are set aside:", *dict.fromkeys(aside)])
        raise HpsearchError(f"{causes}\nfix them and run the same command again; no trial is lost")
    failed = crew.failures[-1]
    raise HpsearchError(f"workers keep failing: {failed.last_line()}\nthe log is {failed.log}")


def _conclude(console: Console, store: Store, view: StudyView, stop: StopFlag) -> None:
    from hpsearch.watch.closing import closing_words
    from hpsearch.watch.console import line_width
    from hpsearch.watch.pictures import draw_study

    if not stop.requested:
        with telling(console) as tell:
            summary = draw_study(store, view, storage_folder(), tell, lambda: stop.requested)
        if summary:
            console.print(summary, soft_wrap=True)
    console.print()
    console.print(closing_words(view, line_width(console)), soft_wrap=True)
    if not view.is_finished and not view.reached_limit:  # by Ctrl-C, or by hpsearch stop
        raise typer.Exit(130)
