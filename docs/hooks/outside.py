"""Pages that stand outside of docs/, beside what they are about, are part of the site.

Links in a page name files as they lie in the repository, so that they hold without the site too. `on_page_markdown`
rewrites those that cross the border of docs/ to where the file is in the site.
"""

from __future__ import annotations

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
    "LICENSE",
)
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for pattern in OUTSIDE:
        for path in sorted(REPOSITORY.glob(pattern)):
            uri = path.relative_to(REPOSITORY).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    uri = page.file.src_uri
    on_disk = DOCS / uri if (DOCS / uri).exists() else REPOSITORY / uri

    def in_site(link: re.Match[str]) -> str:
        target = (on_disk.parent / link[1]).resolve()
        if not target.is_file() or not target.is_relative_to(REPOSITORY):
            return link[1]
        there = target.relative_to(DOCS if target.is_relative_to(DOCS) else REPOSITORY)
        return Path(os.path.relpath(there, Path(uri).parent)).as_posix()

    return LINK.sub(in_site, markdown)
