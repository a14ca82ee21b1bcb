"""Pages as a reader uses them: which files their blocks are, and what their commands do.

* ```` ```yaml title="study.yaml" ```` (any language) is a file; a study file is loaded, and a part of one too.
* ```` ```console ````: each line that begins with `$ ` is run with bash and must end with 0; `> ` goes on with it, as
  after a backslash. What one line sets or exports, and the folder it goes to, holds for the next ones.
* ```` ```python ```` without a title is run.
* `<!-- not run: REASON -->` in the line before a fence: the block isn't run, and is checked all the same. A script
  (```` ```bash ````) is never run and must say why.

A page is run in a folder that is empty but for `studies/`, as in a checkout.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_command

from hpsearch.cli.app import app
from hpsearch.launch.sites import choose_site
from hpsearch.spec.load import load_study
from hpsearch.spec.study import StudySpec
from tests.conftest import REPOSITORY
from tests.docs.shell import PageError, Shell

FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?<![\w/.-])hpsearch ([a-z]+)((?: +(?![ #&|])[^\s`#]+)*)")
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->$")
LONG = re.compile(r"hpsearch (run|worker|launch|show|train|evaluate|predict|export)\b")  # they start a trainer


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    title: str | None
    text: str
    why_not_run: str | None

    @property
    def commands(self) -> list[str]:
        if self.language != "console":
            return []
        return [
            found[0][2:].replace("\n> ", "\n") for found in re.finditer(r"^\$ .*(\n> .*)*", self.text, re.MULTILINE)
        ]

    @property
    def is_run(self) -> bool:
        return self.why_not_run is None and bool(self.commands or (self.language == "python" and not self.title))


class Page:
    """One page, as it is on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text()
        self.blocks = [self._block(found) for found in FENCE.finditer(self.text)]
        self.prose = FENCE.sub("", self.text)
        self.files = [block for block in self.blocks if block.title]

    def _block(self, found: re.Match[str]) -> Block:
        before = self.text[: found.start()].rstrip("\n").rpartition("\n")[2]
        reason = NOT_RUN.search(before)
        language, _, rest = found[3].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        return Block(
            line=self.text.count("\n", 0, found.start()) + 1,
            language=language,
            title=title and title[1],
            text=textwrap.dedent(found[4]),
            why_not_run=reason and reason[1],
        )

    @property
    def is_run(self) -> bool:
        return any(block.is_run for block in self.blocks)

    @property
    def is_long(self) -> bool:
        """Whether it trains: such a page is a storm."""
        return any(block.is_run and LONG.search(block.text) for block in self.blocks)

    def check_commands(self) -> set[str]:
        """The verbs of its hpsearch commands: in blocks, in indented lines, in the text."""
        lines = re.findall(r"`[^`\n]+`", self.prose) + _indented(self.prose)
        for block in self.blocks:
            lines += block.commands if block.language == "console" else []
            lines += [block.text] if block.language in ("bash", "sh") else []
        verbs = get_command(app).commands  # type: ignore[attr-defined]
        found = COMMAND.findall("\n".join(lines).replace("\\\n", " "))
        for verb, rest in found:
            if verb not in verbs:
                raise PageError(f"{self.path}: there is no `hpsearch {verb}`")
            flags = _flags(verbs[verb], rest)
            for flag in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest):
                if flag not in flags:
                    raise PageError(f"{self.path}: there is no `hpsearch {verb} {flag}`")
        return {verb for verb, _ in found}

    def check_blocks(self, folder: Path) -> None:
        """Its files are written to `folder`; each block is what its language says, each study file loads."""
        self.write(self.files, folder)
        for block in self.blocks:
            try:
                assert block.why_not_run or block.language not in ("bash", "sh"), "a script must say why it isn't run"
                _check(block, folder)
            except Exception as error:
                raise PageError(f"{self.path}:{block.line}: {error}") from error

    def write(self, blocks: list[Block], folder: Path) -> None:
        for block in blocks:
            assert block.title
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text)

    def run(self, folder: Path) -> None:
        """Top to bottom, as a reader would."""
        shutil.copytree(REPOSITORY / "studies", folder / "studies")
        with Shell(folder) as shell:
            for block in self.blocks:
                if block.title:
                    self.write([block], folder)
                elif block.is_run:
                    python = f"{sys.executable} - <<'END_OF_PAGE'\n{block.text}\nEND_OF_PAGE"
                    for command in block.commands or [python]:
                        shell.run(command, f"{self.path}:{block.line}")


def _indented(prose: str) -> list[str]:
    """The lines of indented code, which is none in a list."""
    lines: list[str] = []
    in_list = False
    for line in prose.splitlines():
        if line and not line.startswith(" "):
            in_list = re.match(r"(\d+\.|[*-]) ", line) is not None
        elif line.startswith("    ") and not in_list:
            lines.append(line)
    return lines


def _flags(verb: Any, rest: str) -> set[str]:
    """The options of a verb, or of the sub-verb that `rest` begins with: `store backup`."""
    verb = getattr(verb, "commands", {}).get(rest.split()[0] if rest.split() else "", verb)
    return {option for parameter in verb.params for option in parameter.opts} | {"--help"}


def _check(block: Block, folder: Path) -> None:
    if block.language == "python":
        compile(block.text, block.title or "a block", "exec")
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "jsonl":
        for line in block.text.splitlines():
            json.loads(line)
    elif block.language == "yaml":
        raw = yaml.safe_load(block.text)
        if not isinstance(raw, dict) or not raw:
            return
        if set(raw) <= set(StudySpec.model_fields):
            study = folder / (block.title or f"line_{block.line}.yaml")
            study.write_text(block.text if "study" in raw else yaml.safe_dump(_completed(raw)))
            load_study(study)
        elif all(isinstance(site, dict) and site.keys() & {"on", True} for site in raw.values()):
            for site in raw:
                (folder / "launch.yaml").write_text(block.text)
                choose_site(site, {}, folder / "launch.yaml")


def _completed(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a study file, with the rest of the smallest study around it."""
    sees = part.get("task", "text-sft").startswith("vlm")
    least = {
        "study": "a_part",
        "task": "text-sft",
        "model": {"base": "tiny:gemma3" if sees else "tiny:qwen2"},
        "data": {"source": "rows.jsonl"},
        "search": {"trials": 1, "space": {"training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}},
    }
    return _merged(least, part)


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {**first, **second}
    for name in first.keys() & second.keys():
        if isinstance(first[name], dict) and isinstance(second[name], dict):
            both[name] = _merged(first[name], second[name])
    return both
