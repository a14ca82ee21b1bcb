"""The console that every verb prints on.

Verbs print text that others wrote: a description, a row's id, a library's error. rich would take `[img]` in it for
markup, `:bug:` for an emoji, and `[/img]` for a fatal mistake, so all of that is off here; styles come from `Text` and
from tables.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console


def open_console(**options: Any) -> Console:
    """A console for standard output unless `options`, which are rich's own, say otherwise."""
    return Console(markup=False, emoji=False, highlight=False, **options)
