"""Files of a folder that can't be read: one error with the file and the reason, whichever of them it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.data.manifest import Manifest
from hpsearch.errors import UnreadableFile
from hpsearch.files import read_file, read_json
from hpsearch.folders import JobFolder
from hpsearch.results.scoring import read_answers
from hpsearch.trial import TrialResult

READERS: dict[str, Callable[[Path], object]] = {
    "config.json": lambda folder: JobFolder(folder).job(),
    "result.json": lambda folder: JobFolder(folder).read(TrialResult),
    "files.json": lambda folder: read_json(folder / "files.json"),
    "manifest.json.gz": lambda folder: read_file(folder / "manifest.json.gz", Manifest.from_bytes),
    "base.jsonl": lambda folder: read_answers(folder / "base.jsonl"),
}
CONTENTS = {
    "half of it": b'{"job": "train", "na',
    "another version": b'{"outcome": "complete", "colour": "red"}',
    "no UTF-8": b'\xff\xfe{"a"',
    "a list": b"[1, 2]",
    "deep": b'{"a":' * 5000,
    "zeros": bytes(4096),
}
WELCOME = {("base.jsonl", "empty"), ("files.json", "another version")}


BROKEN = [(name, what) for name in READERS for what in ("empty", *CONTENTS) if (name, what) not in WELCOME]


@pytest.mark.parametrize(("name", "what"), BROKEN)
def test_a_broken_file_is_reported_with_its_name_in_one_line(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(CONTENTS.get(what, b""))
    with pytest.raises(UnreadableFile) as raised:
        READERS[name](tmp_path)
    words = str(raised.value)
    assert words.startswith(f"{tmp_path / name}: can't be read: ")
    assert "\n" not in words
    assert len(words) < len(str(tmp_path)) + 400


def test_a_missing_file_is_one_of_them(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"result\.json: can't be read: No such file or directory"):
        JobFolder(tmp_path).read(TrialResult)


def test_the_mistake_is_named_and_the_value_kept_secret(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"outcome": "complete", "train_seconds": "hunter2"}))
    with pytest.raises(UnreadableFile) as raised:
        JobFolder(tmp_path).read(TrialResult)
    assert "train_seconds: Input should be a valid number" in str(raised.value)
    assert "hunter2" not in str(raised.value)
