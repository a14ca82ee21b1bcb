"""Images are decoded and stored once each, few at a time, and what was checked is remembered."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pytest

from hpsearch.data import images
from hpsearch.data.prepared import DataFolder, read_data
from hpsearch.data.rows import ReadRows
from hpsearch.spec.data import DataSpec
from tests.unit.image_fixtures import COLUMNS, embedded, png, rows_with

Read = Callable[..., ReadRows]
WriteJsonl = Callable[[str, list[Any]], str]


@pytest.mark.parametrize("source", ["saved", "rows.parquet"])
def test_images_in_the_data_are_stored_once_each(read: Read, tmp_path: Path, source: str) -> None:
    table = embedded(png(1), png(2), png(1), None, b"no image")
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "rows.parquet")
    found = read(source, columns=COLUMNS)
    assert [(row.id, len(row.images)) for row in found.rows] == [("0", 1), ("1", 1), ("2", 1), ("3", 0)]
    assert found.left_out == {"image can't be decoded": ["4"]}
    files = list((tmp_path / "storage" / "data" / "images").glob("*/*"))
    assert {file.read_bytes() for file in files} == {png(1), png(2)}
    assert len(files) == 2
    assert [row.images[0].path.read_bytes() for row in found.rows[:3]] == [png(1), png(2), png(1)]
    assert [row.images[0].sha256 for row in found.rows[:2]] == [hashlib.sha256(png(i)).hexdigest() for i in (1, 2)]


@pytest.mark.parametrize("kind", ["in the data", "files"])
def test_few_images_are_held_at_once(
    kind: str, read: Read, write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table may hold more than the host's memory: what is given to the threads waits there with its bytes."""
    futures: list[weakref.ref[Future[Any]]] = []
    held: list[int] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *work: Any, **more: Any) -> Future[Any]:
            future = super().submit(*work, **more)
            futures.append(weakref.ref(future))
            held.append(sum(there() is not None for there in futures))
            return future

    monkeypatch.setattr(images, "ThreadPoolExecutor", Counting)
    monkeypatch.setattr(images, "read_first_frame", lambda _: (time.sleep(0.001), False))
    contents = [png(i) for i in range(200)]
    embedded(*contents).save_to_disk(tmp_path / "saved")
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.png").write_bytes(content)
    write_jsonl("rows.jsonl", rows_with(*(f"{i}.png" for i in range(200))))
    assert len(read("saved" if kind == "in the data" else "rows.jsonl", columns=COLUMNS).rows) == len(held) == 200
    assert max(held) <= 2 * images._THREADS + 1


@pytest.mark.parametrize("kind", ["in the data", "files"])
def test_an_image_of_many_rows_is_decoded_once(
    kind: str, read: Read, write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    last_is_there = threading.Event()

    def decodes(content: bytes) -> tuple[None, bool]:
        decoded.append(content)
        if content == png(2):
            last_is_there.set()
        assert last_is_there.wait(20), "the first image keeps the rows after it waiting"
        return None, False

    monkeypatch.setattr(images, "read_first_frame", decodes)
    for colour in (1, 2):
        (tmp_path / f"{colour}.png").write_bytes(png(colour))
    write_jsonl("rows.jsonl", rows_with("1.png", "1.png", "1.png", "2.png"))
    embedded(png(1), png(1), png(1), png(2)).save_to_disk(tmp_path / "saved")
    assert len(read("saved" if kind == "in the data" else "rows.jsonl", columns=COLUMNS).rows) == 4
    assert sorted(decoded) == sorted([png(1), png(2)])


def note_decoded(decoded: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    decode = images.read_first_frame
    monkeypatch.setattr(images, "read_first_frame", lambda content: (decoded.append(content), decode(content))[1])


def test_image_files_are_decoded_again_only_where_they_have_changed(
    read: Read, write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    note_decoded(decoded, monkeypatch)
    for colour in (1, 2):
        (tmp_path / f"{colour}.png").write_bytes(png(colour))
    (tmp_path / "3.png").write_bytes(b"no image")
    source = write_jsonl("rows.jsonl", rows_with("1.png", "2.png", "3.png"))
    first = read(source, columns=COLUMNS)
    decoded.clear()
    assert read(source, columns=COLUMNS) == first
    assert decoded == [b"no image"]
    (tmp_path / "2.png").write_bytes(png(20))
    again = read(source, columns=COLUMNS)
    assert [row.images[0].sha256 for row in again.rows] == [hashlib.sha256(png(i)).hexdigest() for i in (1, 20)]
    next((tmp_path / "storage" / "data" / "images").glob("checked*")).write_text('["half of')
    decoded.clear()
    assert read(source, columns=COLUMNS) == again
    assert len(decoded) == 3


KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from datasets import Dataset
from hpsearch.data import images

decode, numbers = images.read_first_frame, itertools.count()

def dying(content):
    if next(numbers) >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(content)

images.read_first_frame = dying
folder = Path(sys.argv[1])
table = Dataset.load_from_disk(str(folder / "saved"))
images.RowImages(table, "i", folder, folder / "storage" / "data" / "images", lambda *_: None)
"""


@pytest.mark.parametrize("kind", ["in the data", "files"])
def test_what_was_checked_before_a_kill_is_not_decoded_again(
    kind: str, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what the threads had in their hands."""
    num_images, num_before = 90, 60
    contents = [png(i) for i in range(num_images)]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.png").write_bytes(content)
    names = [str(tmp_path / f"{i}.png") for i in range(num_images)]
    table = embedded(*contents) if kind == "in the data" else datasets.Dataset.from_list(rows_with(*names))
    table.save_to_disk(tmp_path / "saved")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(num_before)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    decoded: list[bytes] = []
    note_decoded(decoded, monkeypatch)
    assert len(read("saved", columns=COLUMNS).rows) == num_images
    assert num_images - num_before <= len(decoded) <= num_images - num_before + images._THREADS


def test_a_disk_that_takes_no_notes_costs_them_alone(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "store").write_text("no folder")
    table = datasets.Dataset.from_dict({"i": ["1.png"]})
    found = images.RowImages(table, "i", tmp_path, tmp_path / "store", lambda *_: None)
    assert isinstance(found.of(0), images.CheckedImage)


def test_stored_images_are_not_written_again(read: Read, tmp_path: Path) -> None:
    embedded(png(1), png(2)).save_to_disk(tmp_path / "saved")
    files = [row.images[0].path for row in read("saved", columns=COLUMNS).rows]
    before = [file.stat().st_ino for file in files]
    assert [row.images[0].path for row in read("saved", columns=COLUMNS).rows] == files
    assert [file.stat().st_ino for file in files] == before


def test_a_hub_data_set_may_carry_paths_instead_of_bytes(read: Read, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    features = datasets.Features({"i": datasets.Image(), "q": datasets.Value("string"), "a": datasets.Value("string")})
    values = [{"bytes": None, "path": str(tmp_path / "1.png")}]
    table = datasets.Dataset.from_dict({"i": values, "q": ["Q?"], "a": ["a"]}, features=features)
    table.to_parquet(tmp_path / "rows.parquet")
    assert [row.images[0].path for row in read("rows.parquet", columns=COLUMNS).rows] == [tmp_path / "1.png"]


@pytest.mark.usefixtures("own_cache")
def test_progress_is_reported_while_images_are_checked(write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    (tmp_path / "1.png").write_bytes(png(1))
    source = write_jsonl("rows.jsonl", rows_with(*["1.png"] * 450))
    data = DataSpec.model_validate({"source": source, "columns": COLUMNS})
    read_data(data, tmp_path, DataFolder(tmp_path / "storage"), lambda *words: told.append(words))
    checked = [(done, total) for what, done, total in told if what == "checking images"]
    assert checked == [(0, 450), (200, 450), (400, 450)]
