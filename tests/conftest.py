"""What all tests share: the rule on skips, one thread per process, and an empty folder for each test to work in."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from tests.clusters.ray_cluster import ray_cluster
from tests.clusters.slurm_cluster import slurm_cluster

__all__ = ["ray_cluster", "slurm_cluster"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two torch processes with all cores each slow each other down
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # as in a trainer: nothing is compiled, and no compiler loaded
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COLUMNS"] = "200"

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = Path(os.environ.get("HPSEARCH_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails, unless this machine can't run it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: two processes then end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What the libraries hold is not searched for garbage again and again."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def]
    report = yield
    may_skip = item.get_closest_marker("needs_gpu") or item.get_closest_marker("needs_shared_data")
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips") and not may_skip:
        report.outcome = "failed"
        report.longrepr = f"skipped, but this machine should run it: {report.longrepr}"
    return report


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as a person would work in; storage lands in it."""
    for name in ("HPSEARCH_STORE", "HPSEARCH_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
