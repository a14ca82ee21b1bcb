"""Where a person's studies and final runs are: what they say of it, or else the environment, or else `./storage`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from hpsearch.folders import StorageFolder
    from hpsearch.mirror.mirror import Mirror
    from hpsearch.results.final import RunFolder
    from hpsearch.spec import StudyFile
    from hpsearch.store import Store, StoredStudy


def storage_folder(said: str | None = None) -> StorageFolder:
    """`said`, `$HPSEARCH_STORAGE`, or `./storage`; for a URL, its local folder."""
    from hpsearch.folders import StorageFolder, mirrored_storage

    url = storage_url(said)
    return StorageFolder(mirrored_storage(url) if url else Path(said or _usual_storage()).resolve())


def _usual_storage() -> str:
    return os.environ.get("HPSEARCH_STORAGE", "storage")


def fixed_storage(said: str | os.PathLike[str] | None) -> str:
    """The same as an absolute path, for long use: later changes of the working directory or the environment don't
    matter.
    """
    place = None if said is None else os.fspath(said)
    return storage_url(place) or str(storage_folder(place).path)


def storage_url(said: str | None = None) -> str | None:
    """`said`, or `$HPSEARCH_STORAGE`, if it is a URL. Raises InputError where it is an invalid one."""
    from hpsearch.mirror.address import checked, is_url

    said = said or _usual_storage()
    return checked(said) if is_url(said) else None


def open_mirror(storage: str | None = None) -> Mirror:
    """The mirror of the storage folder; it does nothing for a plain folder.

    Raises:
        HpsearchError: the bucket can't be reached or written.
    """
    from hpsearch.mirror.mirror import Mirror

    mirror = Mirror(storage_folder(storage), storage_url(storage))
    mirror.check()
    return mirror


def find_final_run(name: str, storage: str | None = None) -> RunFolder:
    """A run folder by its path, or by its study's name, also if another machine trained it. Raises InputError."""
    from hpsearch.errors import InputError
    from hpsearch.results.final import find_run

    if not Path(name).is_dir() and storage_url(storage):
        with open_mirror(storage) as mirror:
            mirror.fetch_runs(name)
    if found := find_run(name, storage_folder(storage)):
        return found
    raise InputError(_no_run(name, storage))


def _no_run(name: str, storage: str | None) -> str:
    from hpsearch.errors import HpsearchError, NoStoreYet, did_you_mean
    from hpsearch.store import Store
    from hpsearch.store.engine import located

    runs, study = storage_folder(storage).runs, Path(name).name
    there = sorted(folder.name for folder in runs.glob("*") if folder.is_dir())
    nothing = f"{name!r} is no run folder, and {runs} has no final run of it"
    try:
        url = store_url(None, storage)
        with Store(url, only_to_read=True) as store, store.reaching():
            studies = [found.name for found in store.studies.all()]
    except NoStoreYet:
        studies = []
    except HpsearchError:  # no store that answers
        return f"{nothing}; hpsearch train makes one" + (f"; {did_you_mean(name, there)}" if there else "")
    if study in studies:
        return f"{nothing}; hpsearch train {study} makes one"
    known = list(dict.fromkeys([*there, *studies]))
    near = did_you_mean(study, known) if known else "there are no studies yet"
    return f"{nothing}, and {located(url)} no study of that name; {near}"


def fetch_adapter(file: StudyFile, storage: str | None = None) -> None:
    """Downloads the final run that the file's `model.adapter` names, if only another machine has it.

    Raises:
        HpsearchError: the bucket can't be reached.
    """
    from hpsearch.folders import JobFolder

    if file.spec.model.adapter is None or not storage_url(storage):
        return
    place, runs = Path(file.spec.model.adapter), storage_folder(storage).runs
    name = place.relative_to(runs).parts[0] if place.is_relative_to(runs) else str(place)
    if Path(name).name != name or (file.path.parent / name).is_dir() or JobFolder(runs / name).result.exists():
        return
    with open_mirror(storage) as mirror:
        mirror.fetch_runs(name)


def open_store(url: str | None) -> Store:
    """For work: creates the store if there is none."""
    from hpsearch.store import Store

    return Store(store_url(url))


def change_store(url: str | None) -> Store:
    """For changes to an existing store. Raises NoStoreYet where there is none."""
    look_at_store(url).close()
    return open_store(url)


def look_at_store(url: str | None) -> Store:
    """Read-only: creates, changes and locks nothing."""
    from hpsearch.store import Store

    return Store(store_url(url), only_to_read=True)


def store_url(url: str | None, storage: str | None = None, *, from_argv: bool = True) -> URL:
    """`--store`, `$HPSEARCH_STORE`, or the SQLite file in the storage folder."""
    from hpsearch.errors import InputError
    from hpsearch.store.engine import parse_url

    if url is not None:
        return parse_url(url, from_argv=from_argv)
    said = os.environ.get("HPSEARCH_STORE")
    if said is None and (shared := storage_url(storage)):
        raise InputError(
            f"HPSEARCH_STORAGE is {shared}, for machines that share no folder, and no store is named that all of them "
            "can reach: set HPSEARCH_STORE, or --store, to a PostgreSQL or MySQL URL (on one machine: sqlite:///FILE)"
        )
    return parse_url(said or f"sqlite:///{storage_folder(storage).database}", from_argv=False)


def find_study(store: Store, name: str) -> StoredStudy:
    """Raises InputError with the names that exist, or why the study can't be read."""
    from hpsearch.errors import InputError, did_you_mean
    from hpsearch.store.engine import located

    with store.reaching():
        found = store.studies.find(name)
        known = [] if found else store.studies.all()
    if found is None:
        there = did_you_mean(name, [study.name for study in known]) if known else "it has no studies yet"
        raise InputError(f"{located(store.url)} has no study {name!r}; {there}")
    return found
