"""The one way from an image file to pixels, so that a model sees images as people do: upright, transparent parts white,
16-bit grey levels scaled. Of an animated image, or a file with several pages, the first is taken.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

DECODED_AS = 2
"""Increased when the same file gives other pixels than before: it is part of the key of all stored image data."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow opens more formats. Some start another program: for EPS it runs Ghostscript on the file's content."""
_ORIENTATION = 0x0112
_ON_ITS_SIDE = range(5, 9)


class UnusableImage(ValueError):
    """Its message follows the word "image "."""


def read_image(file: Path | bytes) -> Image:
    """The image in RGB.

    Raises:
        UnusableImage: it is no image, is too large, or the range of its pixel values is unknown.
    """
    return read_first_frame(file)[0]


def read_first_frame(file: Path | bytes) -> tuple[Image, bool]:
    """(the image in RGB, whether the file has more frames). Raises UnusableImage, as `read_image` does."""
    from PIL import Image, ImageOps

    try:
        with Image.open(_content(file), formats=_FORMATS) as image:
            image.load()
            turn = _orientation(image)
            flat = _in_rgb(image)
            has_more = _has_more(image)
        if turn != 1:
            flat.getexif()[_ORIENTATION] = turn
            flat = ImageOps.exif_transpose(flat)
    except UnusableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableImage(f"has more than {(Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels") from None
    except Exception:  # for other data Pillow's decoders raise a dozen unrelated types
        raise UnusableImage("can't be decoded") from None
    return flat, has_more


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) of `read_image`'s result; most files need no decoding. Raises as Pillow does."""
    from PIL import Image

    with Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        if width == height or not _may_lie(image, file):
            return width, height
        return (height, width) if _orientation(image) in _ON_ITS_SIDE else (width, height)


def _has_more(image: Image) -> bool:
    """An MPO is a photograph followed by a smaller version or a second view: phones write them under the name JPEG."""
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def _content(file: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(file) if isinstance(file, bytes) else file


def _may_lie(image: Image, file: Path) -> bool:
    """Whether EXIF may rotate the image. For a TIFF, Pillow (13.0, TiffImagePlugin.py, `_setup`) returns the upright
    size itself.

    For a PNG it searches EXIF after the pixels (PngImagePlugin.py, `getexif`): False avoids decoding all of it.
    """
    if image.format == "PNG":
        return "exif" in image.info or b"eXIf" in file.read_bytes()
    return image.format != "TIFF"


def _orientation(image: Image) -> int:
    """EXIF's number, from 1 to 8. 1 is upright, also the result for broken EXIF."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # any error of the EXIF parser
        return 1
    return found if found in range(1, 9) else 1


def _in_rgb(image: Image) -> Image:
    """A new image without the file's metadata.

    Pillow (13.0, Convert.c) clips values above 255 and drops transparency, so that colours appear which nobody saw.
    """
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        above = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(above)
        return page.convert("RGB")
    flat = image.convert("RGB")  # in RGB already: a copy
    flat.info = {}
    return flat


def _eight_bits(image: Image) -> Image:
    """From grey levels of 16 bits, where 65535 is white. Raises UnusableImage for other modes."""
    import numpy as np
    from PIL import Image

    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 0xFFFF:
        raise UnusableImage("has grey levels of 32 bits, whose white level is unknown")
    return Image.fromarray(np.uint8(np.round(levels / 257)))
