"""The same picture in other files: found, kept in one split, and distinguished from pictures that only resemble it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from hpsearch.data import images, lookalikes
from hpsearch.data.images import RowImages
from hpsearch.data.lookalikes import MOST_BITS, MOST_LEVELS, look_of, lookalike_groups
from hpsearch.data.manifest import Manifest, make_manifest
from hpsearch.data.rows import ReadRows
from hpsearch.data.split import split_rows
from hpsearch.errors import FieldError
from hpsearch.spec.data import SplitByColumn, SplitByFraction
from hpsearch.watch.examples import format_left_out

Read = Callable[..., ReadRows]
WriteJsonl = Callable[[str, list[Any]], str]
COLUMNS = {"image": "i", "question": "q", "answer": "a"}


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Twelve that show different things: parts of a temple and of a flower."""
    return [
        Image.fromarray(photograph).crop((x, y, x + 200, y + 200))
        for photograph in load_sample_images().images
        for y in (0, 220)
        for x in (0, 210, 420)
    ]


def stored(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Image.open(content).convert("RGB")


def copies(image: Image.Image) -> Iterator[Image.Image]:
    width, height = image.size
    for quality in (50, 75):
        yield stored(image, "JPEG", quality=quality)
    yield stored(image, "WEBP", quality=60)
    for times in (0.5, 2):
        yield image.resize((round(width * times), round(height * times)), Image.Resampling.BICUBIC)
    yield image.resize((width, height // 2), Image.Resampling.BICUBIC)
    yield stored(image.resize((width // 2, height // 2)), "JPEG", quality=60)


def are_alike(*pictures: Image.Image) -> bool:
    return lookalike_groups([look_of(picture) for picture in pictures]) == [list(range(len(pictures)))]


def test_a_picture_is_found_again_however_it_was_stored(photographs: list[Image.Image]) -> None:
    found = [are_alike(photograph, copy) for photograph in photographs[::2] for copy in copies(photograph)]
    assert sum(found) >= 0.95 * len(found)


def test_pictures_of_different_things_are_not_alike(photographs: list[Image.Image]) -> None:
    assert lookalike_groups([look_of(photograph) for photograph in photographs]) == []


def test_a_large_photograph_is_found_in_its_thumbnail(photographs: list[Image.Image]) -> None:
    assert are_alike(photographs[0].resize((2000, 2000), Image.Resampling.LANCZOS), photographs[0].resize((128, 128)))


def test_the_same_shape_in_another_colour_is_another_picture() -> None:
    """They are the same grey, and that is all that a perceptual hash looks at."""
    noise = np.random.default_rng(0).integers(0, 2, (8, 8)) * 200
    red, green = np.zeros((8, 8, 3), dtype=np.uint8), np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0], green[..., 1] = noise, np.round(noise * 0.299 / 0.587)
    pictures = [Image.fromarray(levels).resize((64, 64), Image.Resampling.NEAREST) for levels in (red, green)]
    assert look_of(pictures[0])[:8] == look_of(pictures[1])[:8]
    assert not are_alike(*pictures)
    assert are_alike(pictures[0], stored(pictures[0], "JPEG"))


def test_empty_pages_are_not_copies_of_one_another() -> None:
    pages = [Image.new("RGB", (64, 64), "white") for _ in range(2)]
    pages.append(stored(Image.effect_noise((64, 64), 2).convert("RGB"), "PNG"))
    assert [look_of(page) for page in pages] == [b""] * 3
    assert lookalike_groups([b"", b""]) == lookalike_groups([]) == []


def random_looks(seed: int, number: int) -> list[bytes]:
    """In clusters, so that some pairs are just near enough and some just not."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (6, 64))[rng.integers(0, 6, number)] ^ (rng.random((number, 64)) < 0.06)
    levels = 128 + rng.normal(0, 2, (number, 48)) + rng.choice([0, 5, 12], (number, 1))
    hashes, colours = np.packbits(bits.astype(np.uint8), axis=1), np.clip(levels, 0, 255).astype(np.uint8)
    return [hashes[i].tobytes() + colours[i].tobytes() if i % 9 else b"" for i in range(number)]


def by_all_pairs(looks: list[bytes]) -> list[list[int]]:
    group_of = {place: {place} for place, look in enumerate(looks) if look}
    for left, right in combinations(group_of, 2):
        bits = int.from_bytes(looks[left][:8]) ^ int.from_bytes(looks[right][:8])
        far = max(abs(a - b) for a, b in zip(looks[left][8:], looks[right][8:], strict=True))
        if bits.bit_count() <= MOST_BITS and far <= MOST_LEVELS and group_of[left] is not group_of[right]:
            group_of[left] |= group_of[right]
            for place in group_of[right]:
                group_of[place] = group_of[left]
    groups = {id(group): sorted(group) for group in group_of.values() if len(group) > 1}
    return sorted(groups.values())


@pytest.mark.parametrize("at_once", [1, 50, 2**18])
def test_groups_are_those_that_a_look_at_all_pairs_finds(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalikes, "_AT_ONCE", at_once)
    looks = random_looks(seed=at_once, number=20 if at_once == 1 else 120)
    expected = by_all_pairs(looks)
    assert len(expected) > 1
    assert sorted(lookalike_groups(looks)) == expected


def test_thousands_of_copies_are_compared_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the frames of a camera that doesn't move: all pairs of them are near."""
    monkeypatch.setattr(lookalikes, "_AT_ONCE", 10_000)
    sizes = []
    expand = lookalikes._expanded

    def noting(*given: Any) -> Iterator[tuple[Any, Any]]:
        for left, places in expand(*given):
            sizes.append(len(left))
            yield left, places

    monkeypatch.setattr(lookalikes, "_expanded", noting)
    assert lookalike_groups([b"\x0f" * 56] * 700) == [list(range(700))]
    assert max(sizes) <= 10_000


@pytest.fixture
def write_copies(photographs: list[Image.Image], write_jsonl: WriteJsonl, tmp_path: Path) -> str:
    """Twelve photographs as PNG, and each once more at half its size as JPEG."""
    rows = []
    for number, photograph in enumerate(photographs):
        photograph.save(tmp_path / f"{number}.png")
        photograph.resize((100, 100)).save(tmp_path / f"{number}-small.jpg", quality=80)
        for name, part in ((f"{number}.png", "train"), (f"{number}-small.jpg", "test" if number else "train")):
            rows.append({"i": name, "q": f"{name}?", "a": "yes", "part": part})
    return write_jsonl("rows.jsonl", rows)


def numbers_of(rows: Any) -> set[str]:
    return {row.images[0].path.stem.removesuffix("-small") for row in rows}


def test_copies_of_a_picture_stay_in_one_split_when_asked(read: Read, write_copies: str) -> None:
    found = read(write_copies, columns=COLUMNS, group_duplicates=True)
    for seed in range(3):
        splits = split_rows(found, SplitByFraction(train=0.5, validation=0.25, test=0.25, seed=seed))
        assert sum(len(numbers_of(rows)) for rows in splits.values()) == 12
    apart = read(write_copies, columns=COLUMNS)
    splits = split_rows(apart, SplitByFraction(train=0.5, validation=0.25, test=0.25))
    assert sum(len(numbers_of(rows)) for rows in splits.values()) > 12
    assert {row.images[0].lookalikes for row in apart.rows} == {None}
    assert apart.notes == ()


def test_rows_of_several_images_that_share_a_picture_stay_together(
    read: Read, write_copies: str, write_jsonl: WriteJsonl
) -> None:
    """Whichever of their images it is: the first row and the third share none, and hang together by the second."""
    del write_copies
    chain = [["0.png", "1.png"], ["2.png", "1-small.jpg"], ["2-small.jpg"]]
    others = [[f"{number}.png", f"{number}-small.jpg"] for number in range(3, 12)]
    rows = [{"i": names, "q": f"{names}?", "a": "yes"} for names in [*chain, *others, []]]

    def num_apart(**options: bool) -> int:
        """Seeds at which the rows of the chain are not in one split."""
        found = read(write_jsonl("lists.jsonl", rows), columns=COLUMNS, **options)
        assert [len(row.images) for row in found.rows] == [2, 2, 1, *[2] * 9, 0]
        wholes = [split_rows(found, SplitByFraction(train=0.5, validation=0.25, test=0.25, seed=s)) for s in range(5)]
        places = [
            {name for name, part in splits.items() for row in part if row.id in ("0", "1", "2")} for splits in wholes
        ]
        return sum(len(names) > 1 for names in places)

    assert num_apart() > 0
    assert num_apart(group_duplicates=True) == 0


def test_the_manifest_says_how_many_look_alike(read: Read, write_copies: str) -> None:
    found = read(write_copies, columns=COLUMNS, group_duplicates=True)
    splits = split_rows(found, SplitByFraction())
    manifest = Manifest.from_bytes(make_manifest(splits, found.left_out, notes=found.notes).to_bytes())
    assert manifest.notes == ["24 of 24 images look like another one: 12 groups, the largest of 2"]
    assert format_left_out(manifest) == manifest.notes
    assert found.without({}).notes == found.notes


def test_splits_of_the_data_s_own_that_share_a_picture_are_refused(read: Read, write_copies: str) -> None:
    split = {"column": "part", "validation": 0.2}
    found = read(write_copies, columns=COLUMNS, group_duplicates=True, split=split)
    with pytest.raises(FieldError) as raised:
        make_manifest(split_rows(found, SplitByColumn(**split)), found.left_out)
    assert " share the same picture in different files (" in raised.value.message


def test_a_copy_of_the_bytes_is_one_image_in_several_files(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / name)
    (tmp_path / "copy.png").write_bytes((tmp_path / "1.png").read_bytes())
    rows = [{"i": name, "q": f"{name}?", "a": "yes"} for name in ("1.png", "2.png", "copy.png")]
    found = read(write_jsonl("rows.jsonl", rows), columns=COLUMNS, group_duplicates=True)
    assert found.notes == ("0 of 2 images look like another one: 0 groups",)


def test_looks_are_kept_and_asked_for_once(read: Read, write_copies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    decode = images.read_first_frame
    monkeypatch.setattr(images, "read_first_frame", lambda content: (decoded.append(content), decode(content))[1])
    for group_duplicates, num_decoded in ((False, 24), (True, 24), (True, 0), (False, 0)):
        decoded.clear()
        found = read(write_copies, columns=COLUMNS, group_duplicates=group_duplicates)
        assert len(decoded) == num_decoded
        assert len({row.images[0].lookalikes for row in found.rows}) == (12 if group_duplicates else 1)


def test_images_of_several_frames_are_counted(tmp_path: Path) -> None:
    from datasets import Dataset

    frames = [Image.effect_noise((16, 16), 90) for _ in range(3)]
    frames[0].save(tmp_path / "many.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "one.gif")
    table = Dataset.from_dict({"i": ["many.gif", "one.gif", "many.gif"]})
    for _ in range(2):  # the second time out of what was noted
        found = RowImages(table, "i", tmp_path, tmp_path / "store", lambda *_: None)
        assert found.notes == ["images with several frames or pages, of which the first is taken: 1"]
