"""The vision lesson: digits printed in ordinary fonts, at the size of scikit-learn's handwritten ones.

Related to the quickstart's task and different from it: a base that has read print still has handwriting to learn.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CANVAS = 64
_PIXELS = 8
_FONTS = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmr10", "cmss10", "cmtt10")
QUESTIONS = ("What number do you see?", "Read the digit in the picture.", "Which number is shown?")


@cache
def _glyphs(digit: int) -> list[Image.Image]:
    """The digit in every font that matplotlib ships, white on black, cropped."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = sorted(file for file in folder.glob("*.ttf") if file.stem.startswith(_FONTS))
    glyphs = []
    for file in files:
        canvas = Image.new("L", (2 * _CANVAS, 2 * _CANVAS))
        font = ImageFont.truetype(str(file), _CANVAS)
        ImageDraw.Draw(canvas).text((_CANVAS // 2, _CANVAS // 2), str(digit), fill=255, font=font)
        glyphs.append(canvas.crop(canvas.getbbox()))
    return glyphs


def printed_digit(digit: int, distortion: float, rng: np.random.Generator) -> Image.Image:
    """White on black, 8×8 pixels. `distortion` from 0 (upright, centred) to 1 (shifted, rotated, squeezed)."""
    glyphs = _glyphs(digit)
    glyph = glyphs[rng.integers(len(glyphs))]
    height = _CANVAS - 4
    width = min(height, round(glyph.width * height / glyph.height))
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    canvas.paste(glyph.resize((width, height)), ((_CANVAS - width) // 2, 2))
    angle, shift_x, shift_y, shear = distortion * rng.uniform(-1, 1, 4) * (15, 6, 3, 0.25)
    stretch_x, stretch_y = np.exp(distortion * rng.uniform(-0.25, 0.25, 2))
    middle = _CANVAS / 2
    affine = (
        stretch_x, shear, middle - (stretch_x + shear) * middle + shift_x,
        0, stretch_y, middle - stretch_y * middle + shift_y,
    )  # fmt: skip
    turned = canvas.rotate(angle, Image.Resampling.BILINEAR)
    moved = turned.transform(canvas.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return moved.resize((_PIXELS, _PIXELS), Image.Resampling.BOX)
