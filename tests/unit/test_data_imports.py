"""The control plane prepares data without the training plane's libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

_PREPARES = """
import sys
from pathlib import Path

import hpsearch.data.prepared as prepared
heavy = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "tensorflow", "jax"}
print("after the import:", sorted(heavy & set(sys.modules)))

from hpsearch.data.manifest import make_manifest
from hpsearch.data.split import split_rows
from hpsearch.spec.data import DataSpec

folder = Path(sys.argv[1])
data = DataSpec(source="rows.jsonl", columns={"image": "i", "question": "q", "answer": "a", "group": "g"})
storage = prepared.DataFolder(folder / "storage")
read, _ = prepared.read_data(data, folder, storage, lambda *_: None)
manifest = make_manifest(split_rows(read, data.split), read.left_out)
paths = prepared.ensure_prepared(manifest, data, folder, storage, [("train", 0.5)], lambda *_: None)
assert paths["train", 0.5].is_dir()
print("after the work:", sorted(heavy & set(sys.modules)))
"""


def test_data_is_prepared_without_torch(
    tmp_path: Path, write_jsonl: Callable[[str, list[Any]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(10):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    rows = [{"i": f"{i // 2}.png", "q": f"{i}?", "a": "a", "g": str(i)} for i in range(20)]
    write_jsonl("rows.jsonl", rows)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    command = [sys.executable, "-c", _PREPARES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "after the import: []\nafter the work: []\n"
