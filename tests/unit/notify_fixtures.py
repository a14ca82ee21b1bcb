"""A user's command that keeps all messages that it gets."""

from __future__ import annotations

from pathlib import Path

KEEP = 'cat > message.txt; echo "$HPSEARCH_EVENT" >> events.txt; env > variables.txt'
"""A command that keeps all that it is told."""


def events(folder: Path) -> list[str]:
    file = folder / "events.txt"
    return file.read_text().split() if file.exists() else []


def variables(folder: Path) -> dict[str, str]:
    """Those that begin a line: a message has several."""
    lines = (folder / "variables.txt").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
