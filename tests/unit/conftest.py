"""What tests of several files share: one store, studies on it, a view of one, and rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import alembic.util
import pytest
import typer.main
from sqlalchemy import event

from hpsearch.cli import app as app_module
from hpsearch.data.images import CheckedImage
from hpsearch.data.rows import Row
from hpsearch.search.view import StudyView
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from tests.unit.opening_fixtures import Desk
from tests.unit.outage_fixtures import Outage
from tests.unit.view_fixtures import watched
from tests.unit.worker_fixtures import Demo, MakeDemo, emptied, new_demo

MakeRow = Callable[..., Row]
BLANK: dict[str, Any] = {
    "png": b"\x89PNG\r\n\x1a\n",
    "svg": '<svg viewBox="0 0 1 1"></svg>',
}
"""What stands in a picture's file, by its format, where nobody draws."""


@pytest.fixture(autouse=True)
def few_resamples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are drawn with few resamples, except in the tests of the intervals themselves."""
    if request.node.get_closest_marker("all_resamples"):
        return
    for name, number in {"RESAMPLES": 100, "SWAPS": 399}.items():
        monkeypatch.setattr(f"hpsearch.metrics.comparison.{name}", number)


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    """What a process does about once, and the tests would do again for each command line and for each store: Typer
    makes commands of functions, and alembic loads migrations. Its env.py is no module but what it does: never kept.
    """
    load, keep = alembic.util.load_python_file, cache(alembic.util.load_python_file)

    def load_file(folder: Path, name: str) -> ModuleType:
        return load(folder, name) if name == "env.py" else keep(folder, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alembic.util.load_python_file", load_file)
        patch.setattr("typer.main.get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def open_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One SQLite store for all tests: an engine that knows its statements already is several times faster."""
    url = parse_url(f"sqlite:///{tmp_path_factory.mktemp('store') / 'hpsearch.db'}", from_argv=False)
    with Store(url) as store:
        yield store


@pytest.fixture
def empty_store(open_store: Store) -> Store:
    return emptied(open_store)


@pytest.fixture(scope="session")
def view(open_store: Store, tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    """Eight trials are wanted: five are done, one was given up, one runs and one waits."""
    return watched(open_store, tmp_path_factory.mktemp("demo"))


@pytest.fixture
def make_demo(tmp_path: Path, empty_store: Store) -> MakeDemo:
    """Makes the study `demo`; takes what `study_spec` takes."""
    return partial(new_demo, empty_store, tmp_path)


@pytest.fixture
def demo(make_demo: MakeDemo) -> Demo:
    return make_demo()


@pytest.fixture
def desk(tmp_path: Path, empty_store: Store) -> Desk:
    return Desk(tmp_path, empty_store)


@pytest.fixture
def outage(empty_store: Store) -> Iterator[Outage]:
    outage, engine = Outage(), empty_store.optuna.engine
    event.listen(engine, "begin", outage.begin, insert=True)
    yield outage
    event.remove(engine, "begin", outage.begin)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and their files written, but nothing is drawn: that takes longer than everything else."""

    def savefig(_: object, file: Any, *, format: str, **__: Any) -> None:  # noqa: A002
        file.write(BLANK[format])

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


@pytest.fixture
def row() -> MakeRow:
    """`row(3, group="g")`: a row with id "3", a question and an answer that no other row has, and this group.

    `seen`: the checksum of its image, or those of several.
    """

    def make(number: int, seen: str | Sequence[str] | None = None, **changes: Any) -> Row:
        messages = [{"role": "user", "content": f"q{number}?"}, {"role": "assistant", "content": f"a{number}."}]
        sums = [seen] if isinstance(seen, str) else seen or []
        images = tuple(CheckedImage(Path(f"/{sha256}.png"), sha256) for sha256 in sums)
        nothing = dict.fromkeys(("group", "label", "split"))
        return Row(**{"id": str(number), "messages": messages, "images": images, **nothing, **changes})

    return make


@pytest.fixture
def main(
    demo: Demo, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str, str]]:
    """`hpsearch` on the demo's store: exit code, what it says and what it complains of."""
    monkeypatch.setenv("HPSEARCH_STORE", demo.store.url.render_as_string())
    monkeypatch.setenv("HPSEARCH_STORAGE", str(demo.study.storage.path))
    assert Path.cwd() == workplace

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["hpsearch", *arguments])
        with pytest.raises(SystemExit) as exited:
            app_module.main()
        return (exited.value.code, *capfd.readouterr())

    return run
