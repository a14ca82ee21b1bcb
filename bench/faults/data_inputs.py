"""Data that is broken: files and folders of rows, images, and questions for a trained model."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

from bench.faults.fuzz import Case
from bench.faults.mutations import broken_bytes, swapped
from hpsearch.errors import InputError
from hpsearch.spec.data import ColumnsSpec, DataSpec

_NUM_ROWS = 40


def data_sets(folder: Path) -> Case:
    """JSONL, JSON, CSV and Parquet files, and saved folders, read as `hpsearch run` reads them."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    rows = [
        {
            "question": f"Is {number} odd?",
            "answer": "yes" if number % 2 else "no",
            "group": f"g{number // 2}",
            "n": number,
        }
        for number in range(_NUM_ROWS)
    ]
    formats = _written_rows(folder, rows)

    def case(random: Random) -> None:
        suffix = random.choice(sorted(formats))
        place = folder / f"broken{suffix}"
        _remove(place)
        if suffix == "":
            _break_folder(formats[suffix], place, random)
        elif suffix in (".json", ".jsonl") and random.random() < 0.6:
            place.write_bytes(_as_json([swapped(row, random) for row in rows], lines=suffix == ".jsonl"))
        else:
            place.write_bytes(broken_bytes(formats[suffix].read_bytes(), random))
        try:
            _read_data(DataSpec(source=f"./{place.name}", columns=_COLUMNS), folder)
        finally:
            for name in ("cache", "storage"):
                shutil.rmtree(folder / name, ignore_errors=True)

    return case


_COLUMNS = ColumnsSpec(question="question", answer="answer", group="group")


def _written_rows(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Path]:
    from datasets import Dataset

    table = Dataset.from_list(rows)
    formats = {suffix: folder / f"whole{suffix}" for suffix in (".jsonl", ".json", ".csv", ".parquet", "")}
    formats[".jsonl"].write_bytes(_as_json(rows, lines=True))
    formats[".json"].write_bytes(_as_json(rows, lines=False))
    table.to_csv(formats[".csv"])
    table.to_parquet(formats[".parquet"])
    table.save_to_disk(str(formats[""]))
    return formats


def _as_json(rows: list[Any], *, lines: bool) -> bytes:
    text = "\n".join(json.dumps(row) for row in rows) + "\n" if lines else json.dumps(rows)
    return text.encode(errors="surrogatepass")


def _break_folder(whole: Path, place: Path, random: Random) -> None:
    shutil.copytree(whole, place)
    file = random.choice(sorted(place.iterdir()))
    file.write_bytes(broken_bytes(file.read_bytes(), random))


def _read_data(data: DataSpec, folder: Path) -> None:
    """As far as `hpsearch run` goes before a trainer sees them: read, divided, written down."""
    from hpsearch.data.divide import divide
    from hpsearch.data.manifest import Manifest, make_manifest
    from hpsearch.data.prepared import DataFolder, read_data, write_prepared
    from hpsearch.spec.curriculum import CurriculumSpec

    storage = DataFolder(folder / "storage")
    read, files = read_data(data, folder, storage, lambda *_: None)
    splits, left_out = divide(read, data, CurriculumSpec(), folder)
    manifest = make_manifest(splits, left_out)
    Manifest.from_bytes(manifest.to_bytes())
    write_prepared(manifest, splits, files, storage, [("train", 1.0), ("validation", 1.0)])


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def images(folder: Path) -> Case:
    """Image files in many formats and modes, and names of images that don't exist."""
    from hpsearch.data.images import RowImages

    whole = _drawn_images()
    file = folder / "image"

    def case(random: Random) -> None:
        from datasets import Dataset

        file.write_bytes(broken_bytes(random.choice(whole), random, most=2) if random.random() < 0.9 else _bomb(random))
        name = "image" if random.random() < 0.9 else random.choice(_NAMES)
        table = Dataset.from_dict({"image": [name]})
        found = RowImages(table, "image", folder, folder / "store", lambda *_: None).of(0)
        if isinstance(found, str):  # the row is left out, and counted under these words
            raise InputError(found)

    return case


_NAMES = ("/dev/zero", "/dev/stdin", "a\0b", "x" * 5000, "../" * 2000, ".", "", "\u202e", "/proc/self/mem", "~")


def _drawn_images() -> list[bytes]:
    from PIL import Image

    made = []
    for kind, modes in {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "JPEG": ("L", "RGB", "CMYK"),
        "GIF": ("P",),
        "BMP": ("1", "RGB"),
        "TIFF": ("1", "L", "RGB", "F", "CMYK", "I;16"),
        "WEBP": ("RGB", "RGBA"),
        "PPM": ("1", "L", "RGB"),
        "JPEG2000": ("L", "RGB"),
        "EPS": ("RGB",),
        "ICO": ("RGBA",),
    }.items():
        for mode in modes:
            content = io.BytesIO()
            Image.new(mode, (24, 16)).save(content, kind)
            made.append(content.getvalue())
    return made


def _bomb(random: Random) -> bytes:
    """A small PNG file that says it is a large image."""
    width, height = random.choice(((2**15, 2**15), (2**31 - 1, 2**31 - 1), (12_000, 12_000), (0, 5), (1, 2**30)))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, random.choice((1, 8, 16)), random.choice((0, 2, 6)), 0, 0, 0)
    rows = zlib.compress(bytes(2**20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def question_files(folder: Path) -> Case:
    """What `hpsearch predict --rows` is given."""
    from hpsearch.results.questions import check_columns, question_rows, read_lines

    rows = [{"question": f"Is {number} odd?", "image": f"{number}.png"} for number in range(_NUM_ROWS)]
    file = folder / "rows.jsonl"
    data = DataSpec(source="rows.jsonl", columns=ColumnsSpec(question="question", answer="answer", image="image"))

    def case(random: Random) -> None:
        whole = _as_json([swapped(row, random) for row in rows] if random.random() < 0.5 else rows, lines=True)
        file.write_bytes(whole if random.random() < 0.3 else broken_bytes(whole, random))
        lines = read_lines(file)
        check_columns(file, lines, {"question": "question"})
        question_rows(
            lines, data, folder, folder / "store", lambda *_: None, "one" if random.random() < 0.3 else "none"
        )

    return case
