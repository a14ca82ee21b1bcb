"""Options that several verbs share, and what they open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy.engine import URL

    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.bridge.trainer_process import StartTrainer
    from hpsearch.folders import StorageFolder
    from hpsearch.jobs import Tell
    from hpsearch.mirror.mirror import Mirror
    from hpsearch.results.final import RunFolder
    from hpsearch.store import Store, StoredStudy

StudyFileArgument = Annotated[Path, typer.Argument(help="a study file", show_default=False)]
StudyArgument = Annotated[str, typer.Argument(help="a study's name", show_default=False)]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="database URL, without a password; default: $HPSEARCH_STORE, or SQLite in ./storage",
        show_default=False,
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait-for-store", metavar="MINUTES", min=0, help="how long an outage of the store may last before it gives up"
    ),
]
NOTIFY_VARIABLE = "HPSEARCH_NOTIFY"
NotifyOption = Annotated[
    str | None,
    typer.Option(
        "--notify",
        envvar=NOTIFY_VARIABLE,
        metavar="COMMAND",
        help="called when the study is finished, paused, at a limit, stopped or failed: mail, chat; the message comes "
        "on its standard input",
        show_default=False,
    ),
]
PerDeviceOption = Annotated[
    int, typer.Option(min=1, max=8, help="workers that share each card, and its memory in equal parts")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="overrides a field of the study file", show_default=False),
]


def worker_arguments(
    study_file: Path, store: str | None, overrides: list[str] | None, workers_per_device: int, wait_for_store: float
) -> list[str]:
    """What makes one verb's options those of the `hpsearch worker` that it starts."""
    arguments = [str(study_file), *(part for override in overrides or [] for part in ("--set", override))]
    arguments += ["--store", store] if store else []
    return [*arguments, "--wait-for-store", f"{wait_for_store:g}", "--workers-per-device", str(workers_per_device)]


def storage_folder() -> StorageFolder:
    """`$HPSEARCH_STORAGE`, or `./storage`; of a URL, this machine's side of it."""
    from hpsearch.folders import StorageFolder, mirrored_storage

    url = storage_url()
    return StorageFolder(mirrored_storage(url) if url else Path(_said_storage()).resolve())


def _said_storage() -> str:
    return os.environ.get("HPSEARCH_STORAGE", "storage")


def storage_url() -> str | None:
    """`$HPSEARCH_STORAGE` where it is a URL. Raises InputError where that can't be one."""
    from hpsearch.mirror.address import checked, is_url

    return checked(_said_storage()) if is_url(_said_storage()) else None


def open_mirror() -> Mirror:
    """Of the storage folder; one that does nothing where it is a plain folder.

    Raises:
        HpsearchError: the bucket can't be written by us, or not reached.
    """
    from hpsearch.mirror.mirror import Mirror

    mirror = Mirror(storage_folder(), storage_url())
    mirror.check()
    return mirror


def find_final_run(name: str) -> RunFolder:
    """A run folder by its path, or by its study's name, also where another machine trained it. Raises InputError."""
    from hpsearch.results.final import find_run

    storage = storage_folder()
    if not Path(name).is_dir() and storage_url():
        with open_mirror() as mirror:
            mirror.fetch_runs(name)
    return find_run(name, storage)


def open_store(url: str | None) -> Store:
    """To work with: it is made where there is none."""
    from hpsearch.store import Store

    return Store(store_url(url))


def change_store(url: str | None) -> Store:
    """To change what is there. Raises NoStoreYet where nothing is: none is made."""
    look_at_store(url).close()
    return open_store(url)


def look_at_store(url: str | None) -> Store:
    """Only to read: nothing is made, changed or waited for."""
    from hpsearch.store import Store

    return Store(store_url(url), only_to_read=True)


def store_url(url: str | None) -> URL:
    """What `--store` says, or `$HPSEARCH_STORE`, or the file in the storage folder."""
    from hpsearch.errors import InputError
    from hpsearch.store.engine import parse_url

    if url is not None:
        return parse_url(url, from_argv=True)
    said = os.environ.get("HPSEARCH_STORE")
    if said is None and (shared := storage_url()):
        raise InputError(
            f"HPSEARCH_STORAGE is {shared}, for machines that share no folder, and no store is said that all of them "
            "reach: set HPSEARCH_STORE, or --store, to a PostgreSQL or MySQL URL (on one machine alone to sqlite:///FILE)"
        )
    return parse_url(said or f"sqlite:///{storage_folder().database}", from_argv=False)


def find_study(store: Store, name: str) -> StoredStudy:
    """Raises InputError with the names that there are, or why the study can't be read."""
    from hpsearch.errors import InputError, did_you_mean

    with store.reaching():
        found = store.studies.find(name)
        known = [] if found else store.studies.all()
    if found is None:
        there = did_you_mean(name, [study.name for study in known]) if known else "it has no studies yet"
        raise InputError(f"{store.name} has no study {name!r}; {there}")
    return found


def refuse_paused(stored: StoredStudy) -> None:
    """Raises HpsearchError with the reason, and how trials begin again."""
    from hpsearch.errors import HpsearchError

    if stored.paused is not None:
        raise HpsearchError(
            f"study {stored.name} is paused: {stored.paused}\nhpsearch resume {stored.name} lets trials start again"
        )


def short(path: Path) -> Path:
    """The path from here, where it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def names_of(option: str, value: str | None, known: Sequence[str] | None = None) -> Any:
    """The comma-separated names of an option; None where it was not given. Raises InputError for one that is not
    `known`, where it can be told here."""
    from hpsearch.errors import InputError, did_you_mean

    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if known is not None and name not in known:
            raise InputError(f"{option}: there is no {name!r}; {did_you_mean(name, list(known))}")
    return names


def trainer_starter(name: str) -> StartTrainer:
    """Starts trainers on one device, which this process holds from the first of them on; their own words go to a log
    of that name.

    Starting raises HpsearchError where no device is free: with who holds each.
    """
    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.bridge.trainer_process import TrainerProcess
    from hpsearch.worker.device_lock import HeldDevice
    from hpsearch.worker.devices import find_devices
    from hpsearch.worker.take_device import take_device

    log = storage_folder().trainer_log(name)
    held: list[HeldDevice] = []

    def start() -> TrainerProcess:
        if not held and (taken := take_device(find_devices, StopFlag(), lambda _: None, waits=False)):
            held.append(taken)
        return TrainerProcess(log, held[0].environment, held[0].file_descriptors)

    return start


def plain_starter(name: str, environment: dict[str, str] | None = None) -> StartTrainer:
    """Starts trainers that hold no device."""
    from hpsearch.bridge.trainer_process import TrainerProcess

    log = storage_folder().trainer_log(name)
    return lambda: TrainerProcess(log, environment)


def inspector() -> StartTrainer:
    """Starts the trainers that look at rows and bases, on the CPU: devices belong to workers."""
    return plain_starter("inspection", {"CUDA_VISIBLE_DEVICES": ""})


def stoppable(tell: Tell, stop: StopFlag) -> Tell:
    """Raises Interrupted as soon as a stop is asked for: preparation has nothing to save."""
    from hpsearch.errors import Interrupted

    def tell_or_stop(name: str, done: int, total: int) -> None:
        if stop.requested:
            raise Interrupted("stopped while preparing the study; the same command continues")
        tell(name, done, total)

    return tell_or_stop


_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def telling(console: Console) -> Iterator[Tell]:
    """A progress line for whatever takes more than a moment: a bar on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield _teller(console)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def tell(name: str, done: int, total: int) -> None:
            progress.update(task, description=name, completed=done, total=total or None)

        yield tell


def _teller(console: Console) -> Tell:
    """A line when something new begins, and every few seconds."""
    last_name, last_at = "", 0.0

    def tell(name: str, done: int, total: int) -> None:
        nonlocal last_name, last_at
        now = time.monotonic()
        if name != last_name or now - last_at > _SECONDS_BETWEEN_LINES:
            last_name, last_at = name, now
            console.print(f"{name}{f' {done}/{total}' if done else ''}")

    return tell
