"""The page of the Python interface names all there is: functions, arguments, attributes and columns, as the code has
them."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

import hpsearch
from hpsearch.api import frames
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "python.md").read_text()


def section(title: str) -> str:
    """Of that heading, with the headings below it."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no heading {title}"
    return found[2]


def test_every_public_name_has_a_heading() -> None:
    for name in hpsearch.__all__:
        assert section(f"`{name}`")


@pytest.mark.parametrize("kind", [hpsearch.Study, hpsearch.Run, hpsearch.BestTrial, hpsearch.Report])
def test_every_attribute_is_reported(kind: type) -> None:
    names = {name for name in vars(kind) if not name.startswith("_")}
    names |= {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    names |= set(re.findall(r"^    (\w+): ", inspect.getdoc(kind) or "", re.MULTILINE))
    table = section(f"`{kind.__name__}`").partition("| attribute | |\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)(?:\(.*\))?` \|", table, re.MULTILINE)) == names


@pytest.mark.parametrize("function", [hpsearch.open_study, hpsearch.load_run])
def test_every_argument_is_reported(function: object) -> None:
    told = section(f"`{function.__name__}`")  # type: ignore[attr-defined]
    signature = inspect.signature(function)  # type: ignore[arg-type]
    for name in signature.parameters:
        assert f"| `{name}` |" in told


@pytest.mark.parametrize("kind", [hpsearch.Run.predict, hpsearch.Run.predict_rows, hpsearch.Study.report])
def test_every_method_has_its_arguments(kind: object) -> None:
    parameters = list(inspect.signature(kind).parameters)[1:]  # type: ignore[arg-type]
    written = re.search(rf"^\| `{kind.__name__}\((.*)\)` \|", PAGE, re.MULTILINE)  # type: ignore[attr-defined]
    assert written
    assert [part.partition("=")[0] for part in written[1].split(", ") if part != "*"] == parameters


@pytest.mark.parametrize(
    ("title", "columns"),
    [
        ("`trials`", frames.TRIALS),
        ("`curves`", frames.CURVES),
        ("`history`", frames.HISTORY),
        ("`curves` of a run", frames.RUN_CURVES),
        ("`scores`", frames.SCORES),
    ],
)
def test_every_column_is_reported(title: str, columns: dict[str, str]) -> None:
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", found[1], re.MULTILINE)) == columns
