"""What a notebook shows of our objects: plain tables in the notebook's own colours, and pages in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def facts_table(title: str, facts: Mapping[str, str]) -> str:
    """Sets no colours, so that it works in dark notebooks too."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left;white-space:pre-line">{escape(value)}</td></tr>'
        for name, value in facts.items()
        if value
    )
    return f'<table><caption style="text-align:left"><b>{escape(title)}</b></caption>{rows}</table>'


def framed(page: str, title: str, height: int = 640) -> str:
    """A whole document in a frame, so that its styles stay inside; sandboxed, as it needs no scripts."""
    return (
        f'<iframe srcdoc="{escape(page)}" title="{escape(title)}" sandbox="" '
        f'style="width:100%;height:{height}px;border:1px solid #8884;border-radius:4px"></iframe>'
    )
