"""A copy of an SQLite store, taken while workers run: a consistent snapshot, written aside and then renamed.

Other databases have their own tools for this; the exact command is printed.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy.engine import URL

from hpsearch.errors import HpsearchError, InputError
from hpsearch.files import draft_of
from hpsearch.store.engine import reaching, shown
from hpsearch.store.network import refuse_network_file
from hpsearch.store.reading import nothing_yet


def back_up(url: URL, file: Path) -> int:
    """Copies a SQLite store; returns the copy's size in bytes. Writers continue meanwhile:
    https://www.sqlite.org/backup.html

    Raises:
        InputError: there is no SQLite store, or `file` exists already or can't be written.
        HpsearchError: the copy is incomplete.
    """
    if url.get_backend_name() != "sqlite":
        raise InputError(f"hpsearch can copy SQLite files only; for this store:\n  {_command(url, file)}\n{_PASSWORD}")
    refuse_network_file(url)
    source = Path(str(url.database)).absolute()
    if not source.exists():
        raise nothing_yet(url)
    if file.exists():
        raise InputError(f"{file} is there already; give another name")
    draft = draft_of(file.absolute())
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        with reaching(url):
            _copy(source, draft)
        os.link(draft, file)  # unlike a rename it never replaces a file that appeared meanwhile
        return file.stat().st_size
    except OSError as error:
        raise InputError(f"{file}: can't be written: {error.strerror}") from None
    except sqlite3.Error as error:
        raise HpsearchError(f"{file}: the copy could not be made: {error}") from error
    finally:
        for left in (draft, *(draft.with_name(draft.name + end) for end in ("-wal", "-shm", "-journal"))):
            with suppress(OSError):
                left.unlink()


def _copy(source: Path, draft: Path) -> None:
    where = f"{source.as_uri()}?mode=ro"
    with closing(sqlite3.connect(where, uri=True)) as store, closing(sqlite3.connect(draft)) as copy:
        store.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # so that everything is in one file
        found = copy.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {found}; see hpsearch store check")
    with draft.open("rb") as written:
        os.fsync(written.fileno())


_PASSWORD = "The password, where there is one, is read from ~/.pgpass or asked for."


def _command(url: URL, file: Path) -> str:
    """A shell command, without a password."""
    if url.get_backend_name() == "postgresql":
        address = shown(url.set(drivername="postgresql"))
        return shlex.join(["pg_dump", "--format=custom", f"--file={file}", address])
    words = ["mysqldump", "--single-transaction", f"--host={url.host or 'localhost'}"]
    words += [f"--port={url.port}"] if url.port else []
    words += [f"--user={url.username}"] if url.username else []
    return shlex.join([*words, "--password", f"--result-file={file}", str(url.database)])
