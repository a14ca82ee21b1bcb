"""A bucket behind a file:// URL, and two machines that share nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpsearch.folders import StorageFolder, TrialFolder
from hpsearch.mirror.mirror import Mirror
from hpsearch.mirror.remote import Remote


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(f"file://{tmp_path}/bucket/prefix")


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket" / "prefix"


@pytest.fixture
def here(tmp_path: Path) -> TrialFolder:
    return StorageFolder(tmp_path / "here").trial("demo-1", 0)


@pytest.fixture
def there(tmp_path: Path) -> TrialFolder:
    return StorageFolder(tmp_path / "there").trial("demo-1", 0)


@pytest.fixture
def open_mirror(tmp_path: Path) -> Iterator[Callable[[str], Mirror]]:
    """Of a machine's storage folder; all are closed at the end."""
    opened: list[Mirror] = []

    def open_it(machine: str) -> Mirror:
        opened.append(Mirror(StorageFolder(tmp_path / machine), f"file://{tmp_path}/bucket/prefix"))
        return opened[-1]

    yield open_it
    for mirror in opened:
        mirror.close(5.0)
