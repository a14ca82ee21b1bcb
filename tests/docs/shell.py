"""A reader's terminal: one line after another, each of which must end with 0."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY


class PageError(AssertionError):
    """What is wrong with a page, and in which line."""


class Shell:
    """Bash, in which a line finds what the lines before it exported, and the folder they went to."""

    def __init__(self, folder: Path) -> None:
        self._state = folder.parent / f"{folder.name}.state"
        self._output = folder.parent / f"{folder.name}.output"
        self._state.write_text(f"cd {shlex.quote(str(folder))}\n")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("HPSEARCH_")}
        self._environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment["PYTHONPATH"] = str(REPOSITORY)
        self._groups: list[int] = []

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what lines left running."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def run(self, command: str, where: str) -> None:
        state = shlex.quote(str(self._state))
        keep = f"{{ declare -p | grep -v '^declare -[a-z]*r'; printf 'cd %q\\n' \"$PWD\"; }} > {state}"
        lines = [f"source {state} 2>/dev/null", "set -e -o pipefail", command, "set +e", keep]
        with self._output.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", "\n".join(lines)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._groups.append(process.pid)
        code = process.wait()
        if code:
            raise PageError(f"{where}: exit code {code}\n$ {command}\n{self._output.read_text()[-4000:]}")
