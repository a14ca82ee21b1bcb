"""Tensors that can be made again: within a limit, and never a reason to fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpsearch.train import tensor_cache
from hpsearch.train.tensor_cache import LEAVES_FREE_BYTES, TensorCache
from hpsearch.trial import CacheConfig

NUM_BYTES = 4096
TENSORS = {"features": torch.arange(NUM_BYTES // 4, dtype=torch.float32)}


def cache_of(folder: Path, files: float = 100) -> TensorCache:
    """With room for so many of them: each has a header beside its numbers."""
    return TensorCache(CacheConfig(folder=folder, limit_bytes=int(files * (NUM_BYTES + 100))))


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*/*")}


def test_what_was_kept_is_read_by_others_as_it_was(tmp_path: Path) -> None:
    cache_of(tmp_path).write("key/image", TENSORS)
    found = cache_of(tmp_path).read("key/image")
    assert found is not None
    assert torch.equal(found["features"], TENSORS["features"])
    assert cache_of(tmp_path).read("key/other") is None
    assert names(tmp_path) == {"image"}, "no draft stays"


def test_what_was_read_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, files=10)
    for number in range(10):
        cache.write("key/" + str(number), TENSORS)
        os.utime(tmp_path / "key" / str(number), (number, number))
    assert cache.read("key/0") is not None
    cache.write("other/10", TENSORS)
    assert names(tmp_path) == {"0", *map(str, range(3, 11))}, "down to nine tenths, with the new one"
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*")) <= 10 * (NUM_BYTES + 100)


def test_no_limit_but_zero_keeps_nothing(tmp_path: Path) -> None:
    cache_of(tmp_path, files=0.5).write("key/image", TENSORS)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("content", [b"", b"half a file", None], ids=["empty", "no header", "cut off"])
def test_a_torn_file_is_a_miss(tmp_path: Path, content: bytes | None) -> None:
    cache = cache_of(tmp_path)
    cache.write("key/image", TENSORS)
    file = tmp_path / "key" / "image"
    file.write_bytes(file.read_bytes()[:-7] if content is None else content)
    assert cache.read("key/image") is None
    cache.write("key/image", TENSORS)
    assert cache.read("key/image") is not None


def test_a_disk_that_is_nearly_full_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=LEAVES_FREE_BYTES + NUM_BYTES - 1))
    cache_of(tmp_path).write("key/image", TENSORS)
    assert names(tmp_path) == set()


def test_a_disk_that_is_full_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def half(_: Any, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_cache, "save_file", half)
    cache_of(tmp_path).write("key/image", TENSORS)
    assert names(tmp_path) == set()
    assert "No space left" in capfd.readouterr().out
