"""The notebook runs from top to bottom, as a reader would run it, and its kernel never imports the training plane."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY
from tests.integration.command import BIN

NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
LAST = """\
import sys
assert not {"torch", "transformers", "hpsearch.train"} & set(sys.modules)
hpsearch.open_study("even_or_od")
"""


def shown(cell: Any, kind: str) -> str:
    return "".join(output.get("data", {}).get(kind, "") for output in cell.outputs)


def test_it_is_kept_without_outputs() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.cell_type != "code" or (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.storm
@pytest.mark.timeout(1800)
def test_it_runs_to_its_end(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    mistake = nbformat.v4.new_code_cell(LAST, metadata={"tags": ["raises-exception"]})
    notebook.cells.append(mistake)
    where = {"metadata": {"path": str(workplace)}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=where).execute()
    by_last_line = {cell.source.splitlines()[-1]: cell for cell in notebook.cells}
    assert "3 of 3" in shown(by_last_line["study"], "text/html")
    assert shown(by_last_line["study.report()"], "text/html").startswith("<iframe")
    assert shown(by_last_line["study.trials"], "text/html").count("<tr") == 4
    assert shown(by_last_line['run.predict("Is 7 even or odd?")'], "text/plain")
    for cell in notebook.cells:
        complaints = [output for output in cell.get("outputs", []) if output.get("name") == "stderr"]
        assert cell.source.startswith("%%bash") or not complaints
    (error,) = mistake.outputs
    said = "\n".join(error.traceback)
    assert said.endswith("has no study 'even_or_od'; did you mean 'even_or_odd'?")
    assert len(said.splitlines()) < 6
