"""Weights may be read by whoever may read the files beside them: a colleague, a server, another user's worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hpsearch.checkpoints import written_whole
from hpsearch.results.export_folder import new_export
from hpsearch.train.tensor_cache import TensorCache
from hpsearch.trial import CacheConfig

WEIGHTS = {"a": torch.zeros(2)}


@pytest.fixture(autouse=True, params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_safetensors_still_writes_for_the_owner_alone(tmp_path: Path) -> None:
    """Else `share_weights` is no longer needed."""
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    assert mode(tmp_path / "a.safetensors") == 0o600


def test_a_checkpoint_may_be_continued_by_another_user(tmp_path: Path, umask: int) -> None:
    with written_whole(tmp_path / "checkpoint-1") as draft:
        save_file(WEIGHTS, draft / "adapter_model.safetensors")
    assert mode(tmp_path / "checkpoint-1/adapter_model.safetensors") == 0o666 & ~umask


def test_an_export_may_be_loaded_by_a_server(tmp_path: Path, umask: int) -> None:
    with new_export(tmp_path / "merged") as draft:
        save_file(WEIGHTS, draft / "model.safetensors")
    assert mode(tmp_path / "merged/model.safetensors") == 0o666 & ~umask


def test_kept_tensors_may_be_read_by_another_user_s_worker(tmp_path: Path, umask: int) -> None:
    TensorCache(CacheConfig(folder=tmp_path, limit_bytes=2**20)).write("key/image", WEIGHTS)
    assert mode(tmp_path / "key/image") == 0o666 & ~umask
