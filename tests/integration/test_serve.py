"""A trainer whose job's folder can't be used: it ends, and its last line says why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bench.faults.checkpoints import in_child
from hpsearch.bridge.protocol import Run
from hpsearch.folders import JobFolder
from hpsearch.jobs import DiagnosisConfig
from hpsearch.train import serve
from hpsearch.trial import Record


class OneJob(serve.Channel):
    """A worker that has one job."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._is_given = False

    def send(self, event: Record) -> None:
        pass

    def next_job(self) -> Run:
        if self._is_given:
            raise SystemExit
        self._is_given = True
        return Run(folder=self._folder.path)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "attempt-1")
    folder.prepare(DiagnosisConfig())
    return folder


def last_line(file: Path) -> str:
    return file.read_text().splitlines()[-1]


@pytest.fixture(autouse=True)
def nothing_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "diagnose", lambda: DiagnosisConfig())


def test_a_job_leaves_its_result(folder: JobFolder, tmp_path: Path) -> None:
    in_child(lambda: serve.serve(OneJob(folder)), tmp_path / "trainer.txt")
    assert folder.read(DiagnosisConfig) == DiagnosisConfig()


def test_what_is_printed_is_in_the_log_at_once(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a metric of the person's own prints, in a process that is killed."""

    def dies() -> None:
        print("the metric says")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(serve, "diagnose", dies)
    in_child(lambda: serve.serve(OneJob(folder)), tmp_path / "trainer.txt")
    assert last_line(folder.log) == "the metric says"


def test_a_result_that_cannot_be_written(folder: JobFolder, tmp_path: Path) -> None:
    folder.result.mkdir()
    assert in_child(lambda: serve.serve(OneJob(folder)), tmp_path / "trainer.txt") == 1
    assert last_line(tmp_path / "trainer.txt") == f"{folder.path} can't be written to: Is a directory"
    assert last_line(folder.log) == last_line(tmp_path / "trainer.txt")


def test_a_log_that_cannot_be_written(folder: JobFolder, tmp_path: Path) -> None:
    folder.log.mkdir()
    assert in_child(lambda: serve.serve(OneJob(folder)), tmp_path / "trainer.txt") == 1
    assert last_line(tmp_path / "trainer.txt") == f"{folder.path} can't be written to: Is a directory"


@pytest.mark.parametrize(("content", "why"), [("", "it is empty"), ('{"job": "sing"}', "Input tag"), (None, "No such")])
def test_a_config_that_cannot_be_read(folder: JobFolder, tmp_path: Path, content: str | None, why: str) -> None:
    folder.config.unlink()
    if content is not None:
        folder.config.write_text(content)
    assert in_child(lambda: serve.serve(OneJob(folder)), tmp_path / "trainer.txt") == 1
    assert last_line(folder.log).startswith(f"{folder.config}: can't be read: {why}")
