"""Images as people see them: upright, on white, at their own brightness; judged by their pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hpsearch.data.decoding import UnusableImage, image_size, read_first_frame, read_image
from hpsearch.data.rows import ReadRows
from hpsearch.train.images import load_image
from hpsearch.watch.report.drawings import small_image

Read = Callable[..., ReadRows]
WriteJsonl = Callable[[str, list[Any]], str]

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
SIDE = 16


def upright() -> Image.Image:
    """Twice as wide as high, with a colour in each corner."""
    image = Image.new("RGB", (4 * SIDE, 2 * SIDE))
    for (x, y), colour in {(0, 0): RED, (1, 0): GREEN, (0, 1): BLUE, (1, 1): GREY}.items():
        image.paste(colour, (2 * SIDE * x, SIDE * y, 2 * SIDE * (x + 1), SIDE * (y + 1)))
    return image


TURNS = {  # as a camera stores what its EXIF then turns back
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def write_turned(file: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = upright().transpose(TURNS[orientation])
    turned.save(file, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {"quality": 95}))


def corners(image: Image.Image) -> list[Any]:
    """The middles of the four quarters, to the nearest of 0, 128 and 255."""
    width, height = image.size
    places = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    return [tuple(int(round(level / 127.5) * 127.5 + 0.5) for level in image.getpixel(place)) for place in places]


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_a_photograph_stands_upright_as_its_exif_says(kind: str, orientation: int, tmp_path: Path) -> None:
    write_turned(tmp_path / "image", kind, orientation)
    image = read_image(tmp_path / "image")
    assert image.size == image_size(tmp_path / "image") == upright().size
    assert corners(image) == [RED, GREEN, BLUE, GREY]
    assert image.getexif() == {}, "whoever turned it by its EXIF would turn it twice"


def test_the_model_sees_it_upright_at_the_study_s_size(tmp_path: Path) -> None:
    write_turned(tmp_path / "image", "JPEG", 6)
    image = load_image(tmp_path / "image", 32)
    assert image.size == (32, 16)
    assert corners(image) == [RED, GREEN, BLUE, GREY]


def test_the_report_shows_it_upright(tmp_path: Path) -> None:
    write_turned(tmp_path / "image", "JPEG", 6)
    content = base64.b64decode((small_image(tmp_path / "image") or "").partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert image.width == 2 * image.height
        assert corners(image.convert("RGB"))[:2] == [RED, GREEN]


def test_the_exif_of_a_png_may_stand_behind_its_pixels(tmp_path: Path) -> None:
    write_turned(tmp_path / "before.png", "PNG", 6)
    content = (tmp_path / "before.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    (tmp_path / "behind.png").write_bytes(content[:start] + content[end:last] + content[start:end] + content[last:])
    image = read_image(tmp_path / "behind.png")
    assert image.size == image_size(tmp_path / "behind.png") == upright().size
    assert corners(image) == [RED, GREEN, BLUE, GREY]


def test_a_png_is_not_decoded_for_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upright().save(tmp_path / "image.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("it was decoded"))
    assert image_size(tmp_path / "image.png") == upright().size


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0no exif", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""], ids=str)
def test_an_image_with_broken_exif_is_taken_as_it_is(exif: bytes, tmp_path: Path) -> None:
    upright().save(tmp_path / "image.jpg", exif=exif, quality=95)
    assert corners(read_image(tmp_path / "image.jpg")) == [RED, GREEN, BLUE, GREY]
    assert image_size(tmp_path / "image.jpg") == upright().size


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_an_orientation_that_there_is_not_turns_nothing(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright().save(tmp_path / "image.jpg", exif=exif)
    assert read_image(tmp_path / "image.jpg").size == image_size(tmp_path / "image.jpg") == upright().size


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_levels_of_16_bits_keep_their_brightness(kind: str, tmp_path: Path) -> None:
    levels = np.array([[0, 257, 1000, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "image", kind)
    found = np.asarray(read_image(tmp_path / "image"))
    assert found[0].tolist() == [[level] * 3 for level in (0, 1, 4, 128, 255)]


@pytest.mark.parametrize("levels", [np.float32([[0, 0.5]]), np.int32([[0, 70000]]), np.int32([[-1, 5]])], ids=str)
def test_numbers_that_do_not_say_what_is_white_leave_an_image_out(levels: Any, tmp_path: Path) -> None:
    Image.fromarray(levels).save(tmp_path / "image", "TIFF")
    with pytest.raises(UnusableImage, match=r"^has grey levels of 32 bits, whose white level is unknown$"):
        read_image(tmp_path / "image")


def test_colours_for_the_printer_become_those_of_a_screen(tmp_path: Path) -> None:
    image = Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0))
    image.save(tmp_path / "image.jpg", quality=95)
    image.save(tmp_path / "image.tiff")
    for name in ("image.jpg", "image.tiff"):
        assert np.abs(np.int32(read_image(tmp_path / name)) - RED).max() <= 3


def transparent(mode: str) -> Image.Image:
    """The left half is a colour that nobody can see, the right half another that is opaque."""
    hidden, seen = {"RGBA": ((*BLUE, 0), (*RED, 255)), "LA": ((0, 0), (128, 255)), "P": (0, 1)}[mode]
    image = Image.new(mode, (2, 1), hidden)
    if mode == "P":
        image.putpalette([*BLUE, *RED])
    image.putpixel((1, 0), seen)
    return image


@pytest.mark.parametrize(("mode", "seen"), [("RGBA", RED), ("LA", GREY), ("P", RED)])
def test_what_nobody_can_see_is_white(mode: str, seen: tuple[int, ...], tmp_path: Path) -> None:
    transparent(mode).save(tmp_path / "image.png", **({"transparency": 0} if mode == "P" else {}))
    image = read_image(tmp_path / "image.png")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), seen]


def test_what_is_half_clear_lets_the_white_through(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (0, 0, 0, 127)).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png").getpixel((0, 0)) == GREY


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_an_opaque_image_has_the_pixels_that_pillow_says(mode: str, tmp_path: Path) -> None:
    image = Image.effect_noise((SIDE, SIDE), 90).convert("RGB").convert(mode)
    image.save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png").tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_pages_or_frames_it_is_the_first(kind: str, tmp_path: Path) -> None:
    first, *others = (Image.new("RGB", (SIDE, SIDE), colour) for colour in (RED, GREEN, BLUE))
    first.save(tmp_path / "many", kind, save_all=True, append_images=others)
    first.save(tmp_path / "one", kind)
    for name, has_more in (("many", True), ("one", False)):
        image, found = read_first_frame(tmp_path / name)
        assert corners(image) == [RED] * 4
        assert found is has_more
