"""The console that every verb prints on.

Verbs print text that others wrote: a description, a row's id, a library's error. rich would take `[img]` in it for
markup, `:bug:` for an emoji, and `[/img]` for a fatal mistake, so all of that is off here; styles come from `Text` and
from tables.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console


def open_console(**options: Any) -> Console:
    """A console for standard output unless `options`, which are rich's own, say otherwise.

    Only a terminal counts as one. rich also takes a pipe for a terminal where $FORCE_COLOR is set (15.0, console.py,
    `is_terminal`), as Jupyter and some CI services do: their cells and logs would be full of progress bars.
    """
    if "force_terminal" not in options:
        file = options.get("file") or (sys.stderr if options.get("stderr") else sys.stdout)
        options["force_terminal"] = file.isatty()
    return Console(markup=False, emoji=False, highlight=False, **options)
