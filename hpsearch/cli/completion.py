"""What a shell completes besides verbs and options: names of studies and of final runs.

A person waits for it after each Tab: nothing but the standard library is imported, no server is asked, and where
anything goes wrong there are no names. A shell then offers files.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import typer

_SQLITE = "sqlite:///"
_PATIENCE_S = 0.2


def study_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """From an SQLite store: of `--store`, if it comes first, `$HPSEARCH_STORE`, or the storage folder."""
    default = f"{_SQLITE}{_storage() / 'hpsearch.db'}"
    url = str(ctx.params.get("store") or os.environ.get("HPSEARCH_STORE") or default)
    file = Path(url.removeprefix(_SQLITE))
    if not url.startswith(_SQLITE) or not file.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_S)) as store:
            rows = store.execute("SELECT name FROM hpsearch_studies ORDER BY created_at DESC").fetchall()
    except sqlite3.Error:
        return []
    return [name for (name,) in rows if name.startswith(incomplete)]


def run_names(incomplete: str) -> list[str]:
    """From this machine's storage folder."""
    try:
        return sorted(run.name for run in (_storage() / "runs").iterdir() if run.name.startswith(incomplete))
    except OSError:
        return []


def _storage() -> Path:
    """The local folder of a bucket is not looked up."""
    return Path(os.environ.get("HPSEARCH_STORAGE", "storage"))
