"""Markdown that both a site and a plain viewer show alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MADE = "<!-- Generated from the code by `make reference`: edits are lost, and a test reports them. -->"


def page(title: str, *parts: str) -> str:
    return "\n\n".join([MADE, f"# {title}", *(part.strip("\n") for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def code(text: object) -> str:
    return f"`{text}`"


def listed(texts: Iterable[object]) -> str:
    return ", ".join(map(code, texts))


def prose(text: str) -> str:
    """A text of the code: what Markdown would take for itself is as it was; addresses are links, dotted names code."""
    pieces = re.split(r"(`[^`]*`|https?://[^\s,;)]*[^\s,;).])", " ".join(text.split()))
    return "".join(_piece(piece) for piece in pieces)


def _piece(text: str) -> str:
    if text.startswith("`"):
        return text
    if text.startswith("http"):
        return f"<{text}>"
    return re.sub(r"([*<>\[\]])", r"\\\1", text)
