"""A bucket behind a file:// URL, and two machines that share nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from hpsearch.folders import JobFolder, TrialFolder
from hpsearch.mirror import mirror as mirror_module
from hpsearch.mirror.copies import Copy
from hpsearch.mirror.remote import Remote

NAME = "trials/demo-1/0000"


class Cut(Exception):
    """The line is cut."""


def kept(remote: Remote, folder: JobFolder) -> None:
    Copy(remote, folder, f"{NAME}/{folder.path.name}").keep_up()


def fetched(remote: Remote, trial: TrialFolder, before: int) -> None:
    mirror_module.fetch_attempts(remote, trial, NAME, before)


def cut_after(monkeypatch: pytest.MonkeyPatch, remote: Remote, name: str, number: int) -> list[str]:
    """The bucket does so many things of this kind and then no more; what it did."""
    done: list[str] = []
    real = getattr(remote._fs, name)

    def counted(*arguments: Any) -> Any:
        if len(done) == number:
            raise Cut
        done.append(str(arguments[-1] if name == "put_file" else arguments[0]).partition(f"{NAME}/")[2])
        return real(*arguments)

    monkeypatch.setattr(remote._fs, name, counted)
    return done
