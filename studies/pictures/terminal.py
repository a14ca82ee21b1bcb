"""Draws terminal.svg, the picture of the README: the quickstart's table in a terminal, while its fourteenth trial runs.

In a clone, on a machine that does nothing else, as the times in the picture are this machine's:

    .venv/bin/python studies/pictures/terminal.py
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hpsearch.errors import HpsearchError
from hpsearch.opening.places import find_study, look_at_store
from hpsearch.search.view import StudyView, read_view
from hpsearch.watch.console import open_console
from hpsearch.watch.tables import study_panel

HERE = Path(__file__).parent
PICTURE = HERE / "terminal.svg"
COMMAND = "hpsearch run studies/quickstart.yaml"
FINISHED = 13


def main() -> None:
    with tempfile.TemporaryDirectory() as storage:
        os.environ["HPSEARCH_STORAGE"] = storage
        os.environ["HPSEARCH_STORE"] = url = f"sqlite:///{storage}/hpsearch.db"
        command = [sys.executable, "-m", *COMMAND.split()]
        process = subprocess.Popen(command, cwd=HERE.parents[1])
        try:
            while not (view := look(url)):
                assert process.poll() is None, "the search ended before there was anything to draw"
                time.sleep(0.2)
            draw(view)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def draw(view: StudyView) -> None:
    """While the search runs: a worker that has ended is not shown."""
    console = open_console(record=True, width=124, file=io.StringIO(), force_terminal=True)
    console.print(f"$ {COMMAND}")
    console.print(study_panel(view))
    console.save_svg(str(PICTURE), title=COMMAND)


def look(url: str) -> StudyView | None:
    """The study, while its fourteenth trial trains after a report."""
    try:
        with look_at_store(url) as store:
            view = read_view(store, find_study(store, "quickstart"))
    except HpsearchError:  # no study yet
        return None
    running = [trial for trial in view.trials if trial.outcome == "running" and trial.reports]
    return view if view.slots.finished >= FINISHED and running else None


if __name__ == "__main__":
    main()
