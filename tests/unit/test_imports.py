"""What is cheap to import stays cheap, and the control plane does its work without the training plane's libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

_WORKS = """
import socket, sys
from pathlib import Path

def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse

TRAINING = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "tensorflow", "jax"}
def tell(when, *more): print(f"after {when}:", sorted((TRAINING | set(more)) & set(sys.modules)))

import hpsearch.metrics as metrics
tell("importing metrics", "sklearn", "scipy", "numpy", "nltk", "rouge_score", "sacrebleu", "pandas")
import hpsearch.watch.pictures
tell("importing pictures", "matplotlib.figure", "seaborn")
import hpsearch.data.prepared as prepared
tell("importing data")

answers = ["yes", "no"]
metrics.row_scores("yes", "no")
metrics.scores(answers, answers, ["bleu", "rougeL", "macro_f1"])
metrics.difference(metrics.mean_of([0.0, 1.0, 0.0]), metrics.mean_of([1.0, 0.0, 1.0]))
metrics.interval(metrics.mean_of([0.0, 1.0] * 9))
tell("scoring")

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
tell("preparing data")
"""
STEPS = ("importing metrics", "importing pictures", "importing data", "scoring", "preparing data")


def test_nothing_heavy_is_imported_before_it_is_needed_and_no_torch_and_no_network_at_all(
    tmp_path: Path, write_jsonl: Callable[[str, list[Any]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process for all of it: each would load the same libraries again."""
    for i in range(10):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    rows = [{"i": f"{i // 2}.png", "q": f"{i}?", "a": "a", "g": str(i)} for i in range(20)]
    write_jsonl("rows.jsonl", rows)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    command = [sys.executable, "-c", _WORKS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "".join(f"after {step}: []\n" for step in STEPS)
