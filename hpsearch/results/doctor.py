"""What works on this machine: the checks that need no torch, and those that a trainer process makes."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil

from hpsearch import __version__
from hpsearch.bridge.follow import do_job
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.errors import HpsearchError, TrainerDied
from hpsearch.folders import StorageFolder, quantized_bases
from hpsearch.jobs import Check, DiagnosisConfig, DiagnosisResult, Tell
from hpsearch.mirror.mirror import Mirror
from hpsearch.search.sharing import sharing
from hpsearch.search.view import read_view
from hpsearch.store import Store
from hpsearch.trial import GIB
from hpsearch.worker.devices import find_devices
from hpsearch.worker.take_device import held_devices

_LITTLE_DISK_GIB = 20
_LITTLE_MEMORY_GIB = 8
_HUB_TIMEOUT_S = 5


def examine(
    storage: StorageFolder,
    open_store: Callable[[], Store],
    open_mirror: Callable[[], Mirror],
    start_trainer: StartTrainer,
    tell: Tell,
) -> list[Check]:
    return [
        _version(),
        _host(),
        _disk(storage),
        _cache("quantized bases", quantized_bases()),
        _cache("image features", storage.features),
        _store(open_store),
        *_bucket(open_mirror),
        _drivers(),
        _hub(),
        _devices(),
        *_sharing(open_store),
        *_training_plane(storage, start_trainer, tell),
    ]


def _version() -> Check:
    found = f"hpsearch {__version__}, Python {platform.python_version()} in {sys.prefix}"
    return Check(name="version", verdict="works", found=found)


def _host() -> Check:
    memory_gib = psutil.virtual_memory().total / GIB
    found = f"{_cores()}, {memory_gib:.0f} GiB of memory, {platform.system()} {platform.machine()}"
    if memory_gib < _LITTLE_MEMORY_GIB:
        fix = "merging an adapter holds a 4B base in 16 bit, 8 GiB: add memory or swap"
        return Check(name="host", verdict="limited", found=found, fix=fix)
    return Check(name="host", verdict="works", found=found)


def _cores() -> str:
    """The cores that this process may use; a container or `taskset` can limit them."""
    num_cores, of_machine = len(os.sched_getaffinity(0)), os.cpu_count()
    cores = f"{num_cores} {'core' if num_cores == 1 else 'cores'}"
    return cores if num_cores == of_machine else f"{cores} of {of_machine}"


def _disk(storage: StorageFolder) -> Check:
    if why := storage.why_unwritable():
        return Check(name="disk", verdict="fails", found=why, fix="set HPSEARCH_STORAGE to a folder of yours")
    free_gib = shutil.disk_usage(storage.path).free / GIB
    found = f"{free_gib:.0f} GiB free in {storage.path}"
    if free_gib < _LITTLE_DISK_GIB:
        fix = (
            "a 4B base is 8 GiB in 16 bit, 3 GiB in 4 bit and 8 GiB more where it is merged: make room, or set "
            "HPSEARCH_STORAGE, HPSEARCH_CACHE and HF_HOME elsewhere"
        )
        return Check(name="disk", verdict="limited", found=found, fix=fix)
    return Check(name="disk", verdict="works", found=found)


def _cache(name: str, folder: Path) -> Check:
    """`os.walk`, which, unlike `Path.glob`, skips what a trainer deletes meanwhile."""
    num_bytes = 0
    for path, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                num_bytes += (Path(path) / file).stat().st_size
    found = f"{num_bytes / GIB:.1f} GiB in {folder}, which may be deleted at any time"
    return Check(name=name, verdict="works", found=found if num_bytes else f"none in {folder}")


def _store(open_store: Callable[[], Store]) -> Check:
    try:
        with open_store() as store:
            studies = len(store.studies.all())
            found = f"{store.name}, {studies} {'study' if studies == 1 else 'studies'}"
            if store.url.get_backend_name() == "sqlite":
                found += f" (SQLite {sqlite3.sqlite_version}: for workers of one machine)"
            return Check(name="store", verdict="works", found=found)
    except HpsearchError as error:
        fix = "start the database, or correct --store or HPSEARCH_STORE"
        return Check(name="store", verdict="fails", found=str(error), fix=fix)


def _bucket(open_mirror: Callable[[], Mirror]) -> list[Check]:
    """Where storage is a URL: whether the bucket can be written, read and cleaned."""
    try:
        mirror = open_mirror()
        mirror.close()
    except HpsearchError as error:
        fix = "docs/how-to/storage-on-s3.md says what is needed"
        return [Check(name="bucket", verdict="fails", found=str(error), fix=fix)]
    return [Check(name="bucket", verdict="works", found=mirror.url)] if mirror.url else []


def _sharing(open_store: Callable[[], Store]) -> list[Check]:
    """What the trials so far show about several workers per card."""
    try:
        with open_store() as store:
            lines = [(study.name, sharing(read_view(store, study))) for study in store.studies.all()]
    except HpsearchError:
        return []  # the store has a check of its own
    return [Check(name="sharing a card", verdict="works", found=f"{name}: {line}") for name, line in lines if line]


def _drivers() -> Check:
    drivers = {"PostgreSQL": "psycopg", "MySQL": "pymysql"}
    found = [name for name, module in drivers.items() if find_spec(module)]
    if found:
        return Check(name="database drivers", verdict="works", found=", ".join(["SQLite", *found]))
    return Check(
        name="database drivers",
        verdict="limited",
        found="SQLite only",
        fix="several machines share a study through a server: pip install 'hpsearch[postgresql]'",
    )


def _hub() -> Check:
    from huggingface_hub import constants, get_token

    where = f"{constants.ENDPOINT}, {'a token is set' if get_token() else 'no token'}"
    if constants.HF_HUB_OFFLINE:
        fix = "unset HF_HUB_OFFLINE, or use local folders and tiny bases"
        return Check(name="model hub", verdict="limited", found="switched off by HF_HUB_OFFLINE", fix=fix)
    try:
        _ask_hub(constants.ENDPOINT)
    except OSError as error:
        fix = "local folders and tiny bases work without it; behind a proxy set HTTPS_PROXY"
        return Check(name="model hub", verdict="limited", found=f"{where}: {error}", fix=fix)
    return Check(name="model hub", verdict="works", found=where)


def _ask_hub(endpoint: str) -> None:
    """Raises OSError where the hub can't be reached."""
    import urllib.request

    urllib.request.urlopen(endpoint, timeout=_HUB_TIMEOUT_S).close()


def _devices() -> Check:
    """Which devices a worker may use, and which process holds which. Whether they compute is checked in a trainer."""
    try:
        devices = find_devices()
    except HpsearchError as error:
        found, _, fix = str(error).partition("\n")
        return Check(name="devices", verdict="fails", found=found, fix=fix)
    lines = "\n".join([*map(str, devices.allowed), *held_devices(devices), *devices.notes, *devices.refused])
    if devices.refused:
        fix = "see nvidia-smi; a lost card returns after a restart of the machine"
        return Check(name="devices", verdict="limited" if devices.allowed else "fails", found=lines, fix=fix)
    return Check(name="devices", verdict="works", found=lines)


def _training_plane(storage: StorageFolder, start_trainer: StartTrainer, tell: Tell) -> list[Check]:
    if storage.why_unwritable():
        found = "not checked: a trainer needs the storage folder"
        return [Check(name="training libraries", verdict="limited", found=found, fix="see the check of the disk")]
    folder = storage.diagnosis
    folder.prepare(DiagnosisConfig())
    try:
        do_job(folder, start_trainer, tell)
    except TrainerDied as died:
        fix = "reinstall: pip install --force-reinstall hpsearch"
        return [Check(name="training libraries", verdict="fails", found=str(died), fix=fix)]
    return folder.read(DiagnosisResult).checks
