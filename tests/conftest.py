"""What all tests share: the rule on skips, one thread per process, an empty folder to work in, rows and servers."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from contract_servers import MariaDb, PostgreSql

    from hpsearch.data.rows import ReadRows
    from tests.clusters.ray_cluster import RayTestCluster
    from tests.clusters.slurm_cluster import SlurmCluster

sys.path.insert(0, str(Path(__file__).parent / "contract"))  # processes of tests import contract_* by name

Read = Callable[..., "ReadRows"]
WriteJsonl = Callable[[str, Sequence[Any]], str]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two torch processes with all cores each slow each other down
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # as in a trainer: nothing is compiled, and no compiler loaded
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COLUMNS"] = "200"
os.environ.pop("PYTHONUNBUFFERED", None)  # which many machines of tests set, and most people's shells do not

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


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`datasets` remembers files by path and time; no test may see what another one read."""
    import datasets

    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


@pytest.fixture
def write_jsonl(tmp_path: Path) -> WriteJsonl:
    """Writes rows into a file of this name and returns the name: a source, seen from a study file beside it."""

    def write(name: str, rows: Sequence[Any]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    return write


@pytest.fixture
def read(tmp_path: Path, own_cache: Path) -> Read:  # noqa: ARG001
    """Reads a source as a study file in `tmp_path` names it: `read("rows.jsonl", columns={…}, split={…})`."""

    def read(source: str, **data: Any) -> ReadRows:
        from hpsearch.data.prepared import DataFolder, read_data
        from hpsearch.spec.data import DataSpec

        spec = DataSpec(source=source, **data)
        return read_data(spec, tmp_path, DataFolder(tmp_path / "storage"), lambda *_: None)[0]

    return read


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    from contract_servers import PostgreSql

    server = PostgreSql()
    yield server
    server.close()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    from contract_servers import MariaDb

    server = MariaDb()
    yield server
    server.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayTestCluster]:
    """One for all tests of a session, with two nodes. This process becomes a client of it."""
    from tests.clusters.ray_cluster import RayTestCluster

    cluster = RayTestCluster()
    before = dict(os.environ)
    try:
        os.environ.update(cluster.environment)
        cluster.add_node(log_monitor=True)
        cluster.add_node()
        yield cluster
    finally:
        os.environ.clear()
        os.environ.update(before)
        cluster.close()


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """One for all tests of a session: SLURM's daemons take a few seconds to find each other."""
    from tests.clusters.slurm_cluster import SlurmCluster, refusal

    if reason := refusal():
        pytest.skip(reason)
    with SlurmCluster() as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
