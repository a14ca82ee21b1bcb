"""Which weights a base has, by its place in the hub's cache or by its files."""

from __future__ import annotations

import os
from pathlib import Path

import huggingface_hub.constants
import pytest
from transformers import AutoConfig, Qwen2Config

from hpsearch.train.identity import identity_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lab/base at one commit, as the hub's client lays it down."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--lab--base" / "snapshots" / COMMIT
    Qwen2Config().save_pretrained(snapshot)
    (tmp_path / "models--lab--base" / "refs").mkdir()
    (tmp_path / "models--lab--base" / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.mark.usefixtures("cached")
def test_a_hub_base_is_known_by_its_commit() -> None:
    assert identity_of("lab/base", None) == identity_of("lab/base", COMMIT) == COMMIT
    assert identity_of("lab/base", "another") is None
    assert identity_of("lab/other", None) is None


def test_transformers_does_not_tell_the_commit(cached: Path) -> None:
    """When it does again, `identity_of` need not know how the cache is laid out."""
    config = AutoConfig.from_pretrained("lab/base", cache_dir=cached.parents[2], local_files_only=True)
    assert getattr(config, "_commit_hash", None) is None


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("one")
    before = identity_of(str(tmp_path), None)
    assert identity_of(str(tmp_path), None) == before
    os.utime(tmp_path / "weights", ns=(1, 1))
    assert identity_of(str(tmp_path), None) != before
