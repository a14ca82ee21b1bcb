"""Pictures inside a page: plots as SVG in the page's own colours, and small images."""

from __future__ import annotations

import base64
import io
import re
from itertools import count
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from hpsearch.data.decoding import read_image
from hpsearch.watch.plots import as_svg
from hpsearch.watch.plots.style import GRID, INK, PAGE

_LARGEST = 176
"""Pixels of an image's longer side."""
_COLOURS = {INK: "var(--ink)", GRID: "var(--grid)", PAGE: "var(--page)"}


class Drawings:
    """Makes figures part of one page."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def inline(self, figure: Figure, words: str) -> Markup:
        """The figure as an svg element; `words` is its alternative text. Its ids are unique on the page. It is drawn on
        nothing, so that the box in which it scrolls can be shaded, and `--drawn` is the width at which its letters have
        the size that they were drawn with.
        """
        figure.patch.set_visible(False)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        svg = as_svg(figure)
        view_box = re.search(r'viewBox="([^"]*)"', svg)
        assert view_box, "matplotlib gives every drawing a view box"
        body = svg[svg.index(">", view_box.end()) + 1 : svg.rindex("</svg>")]
        body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
        body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>d{next(self._numbers)}-", body)
        for colour, variable in _COLOURS.items():
            body = body.replace(colour, variable)
        width = view_box.group(1).split()[2]
        opening = Markup('<svg viewBox="{}" style="--drawn: {}px" role="img" aria-label="{}">')
        opening = opening.format(view_box.group(1), width, words)
        return opening + Markup(body) + Markup("</svg>")


def small_image(file: Path) -> str | None:
    """A data URL; None where the image is not on this machine, or is none."""
    from PIL import Image

    content = io.BytesIO()
    try:
        small = read_image(file)
        small.thumbnail((_LARGEST, _LARGEST))
        times = _LARGEST // max(small.size)
        if times > 1:  # of an image of few pixels each one is shown
            small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
        small.save(content, "PNG" if times > 1 else "JPEG")
    except (OSError, ValueError):
        return None
    kind = "png" if times > 1 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
