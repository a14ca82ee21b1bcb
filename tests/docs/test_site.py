"""The site is built strictly: each page is in its navigation, links and anchors lead somewhere, nothing is remote."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

REMOTE = re.compile(r"<(?:script|link|img|source|iframe)\b[^>]*\b(?:src|href)=\"?(https?:)?//")


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=repository,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


def test_the_site_is_built(tmp_path: Path) -> None:
    built = build(REPOSITORY, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert tmp_path / "site" / "studies" / "index.html" in pages
    notebook = (tmp_path / "site" / "notebook.html").read_text()
    assert 'href="reference/python.html"' in notebook
    assert 'href="notebook.ipynb"' in notebook
    assert 'href="../notebook.html"' in (tmp_path / "site" / "reference" / "python.html").read_text()
    assert len(pages) > 10
    for page in pages:
        assert not REMOTE.search(page.read_text()), f"{page} fetches something from elsewhere"


@pytest.mark.parametrize("wrong", ["[a](no-such-page.md)", "[a](index.md#no-such-heading)", "[a](../no-such-file)"])
def test_a_broken_link_is_an_error(tmp_path: Path, wrong: str) -> None:
    shutil.copytree(REPOSITORY / "docs" / "hooks", tmp_path / "docs" / "hooks")
    (tmp_path / "docs" / "index.md").write_text(f"# A page\n\n{wrong}\n")
    config = (REPOSITORY / "mkdocs.yml").read_text().partition("\nnav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(config + "\nnav: [index.md]\n")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode == 1
    assert "index.md" in built.stderr
