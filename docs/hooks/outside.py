"""Puts pages into the site that are outside of docs/, beside the files that they describe: MkDocs reads docs/ only.

Links in a page are paths in the repository, so that they work without the site too. `on_page_markdown` rewrites those
that lead into or out of docs/ to where the file is in the site.

A notebook becomes a page with its text and its code; links to the notebook lead to that page.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
OUTSIDE = (
    "studies/*.*",
    "studies/pictures/*",
    "storage/README.md",
    "storage/*.sql",
    "bench/RESULTS.md",
    "bench/faults/*.md",
    "docker/*.yaml",
    "docker/Dockerfile",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "SECURITY.md",
    "LICENSE",
)
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for pattern in OUTSIDE:
        for path in sorted(REPOSITORY.glob(pattern)):
            uri = path.relative_to(REPOSITORY).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    for path in sorted(DOCS.rglob("*.ipynb")):
        uri = path.relative_to(DOCS).with_suffix(".md").as_posix()
        files.append(File.generated(config, uri, content=_as_page(path)))
    return files


def _as_page(notebook: Path) -> str:
    parts = []
    for cell in json.loads(notebook.read_text())["cells"]:
        text, language = "".join(cell["source"]), "python"
        if text.startswith("%%bash\n"):
            text, language = text.removeprefix("%%bash\n").removeprefix("set -e\n"), "bash"
        parts.append(f"```{language}\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join([*parts, f"[The notebook itself]({notebook.name})"])


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    uri = page.file.src_uri
    on_disk = DOCS / uri if (DOCS / uri).exists() else REPOSITORY / uri

    def in_site(link: re.Match[str]) -> str:
        target = (on_disk.parent / link[1]).resolve()
        if not target.is_file() or not target.is_relative_to(REPOSITORY):
            return link[1]
        there = target.relative_to(DOCS if target.is_relative_to(DOCS) else REPOSITORY)
        there = there.with_suffix(".md") if there.suffix == ".ipynb" else there
        return Path(os.path.relpath(there, Path(uri).parent)).as_posix()

    return LINK.sub(in_site, markdown)
