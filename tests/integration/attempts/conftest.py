"""A trial that nobody interrupted, and the same one stopped at step 4."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpsearch.folders import JobFolder
from hpsearch.trial import Outcome
from tests.integration.attempt_fixtures import Rows, config_of
from tests.integration.inside import Inside


@pytest.fixture(scope="module")
def whole(text_rows: Rows, inside: Inside, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """Of a trial that nobody interrupted."""
    folder = JobFolder(tmp_path_factory.mktemp("whole"))
    assert inside.run(folder.path, config_of(text_rows)).outcome is Outcome.COMPLETE
    return folder


@pytest.fixture(scope="module")
def stopped_once(text_rows: Rows, inside: Inside, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an attempt that was stopped at its second report, at step 4."""
    folder = tmp_path_factory.mktemp("stopped") / "attempt-1"
    assert inside.run(folder, config_of(text_rows), stops_after=2).outcome is Outcome.STOPPED
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> JobFolder:
    """A copy, to be torn and continued."""
    return JobFolder(Path(shutil.copytree(stopped_once, tmp_path / "attempt-1")))
