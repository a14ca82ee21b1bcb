"""The pages are right: their commands, files, links and pictures exist, and each page that can be run is run."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import psutil
import pytest
from markdown.extensions.toc import slugify
from typer.main import get_command

from hpsearch.cli.app import app
from tests.conftest import REPOSITORY
from tests.docs.pages import Page
from tests.docs.shell import PageError

README = REPOSITORY / "README.md"
RECIPES = REPOSITORY / "studies" / "README.md"
PAGES = [README, RECIPES, REPOSITORY / "storage" / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGES += [REPOSITORY / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")]
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
RUN = [
    pytest.param(path, marks=[pytest.mark.storm] * Page(path).is_long, id=str(path.relative_to(REPOSITORY)))
    for path in PAGES
    if Page(path).is_run
]


@each_page
def test_every_command_has_a_verb_and_flags_that_exist(path: Path) -> None:
    Page(path).check_commands()


@each_page
def test_every_block_is_what_it_says(path: Path, workplace: Path) -> None:
    Page(path).check_blocks(workplace)


@each_page
def test_every_link_leads_somewhere(path: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", Page(path).prose):
        page = path.parent / target if target else path
        assert re.match("https?://", target) or page.exists(), target
        assert not heading or page.suffix != ".md" or heading in anchors(page), f"{target}#{heading}"


def anchors(path: Path) -> set[str]:
    return {slugify(title, "-") for title in re.findall(r"^#+ (.*)$", Page(path).prose, re.MULTILINE)}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", RUN)
def test_a_reader_gets_to_the_end(path: Path, workplace: Path) -> None:
    Page(path).run(workplace)


def test_the_readme_is_short() -> None:
    assert README.stat().st_size < 8_000


def test_every_verb_is_on_a_page() -> None:
    found = set().union(*(Page(path).check_commands() for path in PAGES))
    assert found >= set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_study_file_is_on_the_recipes_page() -> None:
    files = sorted((REPOSITORY / "studies").glob("*.yaml"))
    assert len(files) >= 10
    for file in files:
        assert f"`{file.name}`" in RECIPES.read_text()


def test_every_page_is_in_the_navigation_and_every_how_to_in_its_table() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = {str(path.relative_to(REPOSITORY / "docs")) for path in (REPOSITORY / "docs").rglob("*.md")}
    missing = {page for page in pages if not re.search(rf"[ :]{re.escape(page)}$", navigation, re.MULTILINE)}
    assert missing == set(), "each page has its line in the nav of mkdocs.yml"
    how_to = REPOSITORY / "docs" / "how-to"
    table = (how_to / "README.md").read_text()
    missing = {page.name for page in how_to.glob("*.md") if f"({page.name})" not in table} - {"README.md"}
    assert missing == set(), "each page has its row in docs/how-to/README.md"


def test_the_tree_of_files_is_the_real_one() -> None:
    there = {file.relative_to(REPOSITORY) for file in (REPOSITORY / "hpsearch").rglob("*.py")}
    there = {file for file in there if file.name != "__init__.py" and "versions" not in file.parts}
    assert len(there) > 100
    folders = {parent for file in there for parent in file.parents if parent.parts}
    real, shown = {str(path) for path in there | folders}, tree_of_the_page()
    assert real - shown == set(), "docs/architecture.md needs a line for each, in its tree"
    assert shown - real == set(), "docs/architecture.md has a line for what is not there"


def tree_of_the_page() -> set[str]:
    """The paths of the block that begins with hpsearch/, by their indentation."""
    tree = next(block.text for block in Page(ARCHITECTURE).blocks if block.text.startswith("hpsearch/"))
    folders: list[str] = []
    paths = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, phrase = line.strip().partition(" ")
        assert phrase.strip() or depth == 0, f"{name} has no phrase"
        folders = [*folders[:depth], name.rstrip("/")]
        paths.add("/".join(folders))
    return paths


# --- the checks themselves


def page(folder: Path, text: str) -> Page:
    path = folder / "page.md"
    path.write_text(text)
    return Page(path)


GOOD = """
```yaml title="data/names.yaml"
names: [a, b]
```

1.  In a list:

    ```console
    $ sleep 600 & echo $! > process
    $ cd data && export WHO=me
    $ grep -q names names.yaml \\
    >   && test "$WHO" = me
    shown output, not run: false
    ```

```python
assert __import__("pathlib").Path("names.yaml").exists()
```

<!-- not run: no such cluster here -->
```console
$ false
```
"""


def test_a_good_page_is_run(workplace: Path) -> None:
    assert page(workplace.parent, GOOD).is_run
    page(workplace.parent, GOOD).run(workplace)
    assert (workplace / "data" / "names.yaml").read_text() == "names: [a, b]\n"
    with contextlib.suppress(psutil.NoSuchProcess):  # what a page starts doesn't outlive it
        while psutil.Process(int((workplace / "process").read_text())).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


@pytest.mark.parametrize(
    "broken",
    [
        "```console\n$ false\n```\n",
        "```console\n$ false | cat\n```\n",
        "```console\n$ true\n$ echo the reason >&2; exit 3\n```\n",
        "```console\n$ hpsearch status no_such_study\n```\n",
        "```python\nraise SystemExit(1)\n```\n",
    ],
)
def test_a_broken_page_is_reported(broken: str, workplace: Path) -> None:
    with pytest.raises(PageError, match=r"page\.md:2: exit code \d\n\$ "):
        page(workplace.parent, "\n" + broken).run(workplace)


@pytest.mark.parametrize(
    "wrong",
    [
        "`hpsearch runn x.yaml`",
        "    hpsearch run --no-such-flag x.yaml",
        "```console\n$ hpsearch status \\\n>   --no-such-flag\n```",
        "<!-- not run: no reason -->\n```console\n$ hpsearch store backup --no-such-flag\n```",
    ],
)
def test_a_wrong_command_is_reported(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(PageError, match="there is no `hpsearch"):
        page(tmp_path, wrong + "\n").check_commands()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ('```yaml title="x.yaml"\nstudy: x\ntask: text-sft\n```\n', "model"),
        ("```yaml\nlora: {rank: 16}\n```\n", "rank"),
        ("```yaml\nlab: {on: slurm, worker: 8}\n```\n", "no such option"),
        ("```yaml\na: [\n```\n", "expected the node content"),
        ("```jsonl\n{}\nno\n```\n", "Expecting value"),
        ("```python\nif:\n```\n", "invalid syntax"),
        ("```bash\ntrue\n```\n", "why it isn't run"),
    ],
)
def test_a_wrong_block_is_reported(wrong: str, reason: str, workplace: Path) -> None:
    with pytest.raises(PageError, match=rf"page\.md:1: (.|\n)*{reason}"):
        page(workplace.parent, wrong).check_blocks(workplace)
