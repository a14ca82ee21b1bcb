"""Building, pretraining and caching a tiny base."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from filelock import FileLock

from hpsearch.train.channel import Tell
from hpsearch.train.encoding import Encoder, collate
from hpsearch.train.tiny import architectures
from hpsearch.train.tiny.lessons import Lesson, compare_wines, read_print
from hpsearch.trial import RowsConfig

_BATCH_SIZE = 32
_PEAK_LEARNING_RATE = 1e-3
_WARMUP_STEPS = 50


@dataclass(frozen=True)
class Recipe:
    build: Callable[[], architectures.Built]
    lesson: Lesson
    num_steps: int


RECIPES = {
    "tiny:qwen2": Recipe(architectures.qwen2, compare_wines, 400),
    "tiny:gemma3": Recipe(architectures.gemma3, read_print, 400),
    "tiny:qwen2-vl": Recipe(architectures.qwen2_vl, read_print, 100),
    "tiny:qwen2.5-vl": Recipe(architectures.qwen2_5_vl, read_print, 400),
}


def ensure_tiny(name: str, tell: Tell) -> Path:
    """The folder of a tiny base, built first where the cache has none."""
    folder = cache_folder() / f"{name.replace(':', '-')}-{_recipe_hash()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            draft = folder.with_name(f".{folder.name}.{os.getpid()}")
            build_tiny(RECIPES[name], draft, tell, f"pretraining {name}")
            draft.rename(folder)
    return folder


def cache_folder() -> Path:
    """`$HPSEARCH_CACHE`, or `~/.cache/hpsearch`."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hpsearch"
    return Path(os.environ.get("HPSEARCH_CACHE", default)) / "bases"


def _recipe_hash() -> str:
    """Changes with the code that builds tiny bases and with the libraries that define them."""
    digest = hashlib.sha256(f"{transformers.__version__} {torch.__version__}".encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def build_tiny(recipe: Recipe, folder: Path, tell: Tell, phase: str) -> None:
    """Builds a base by its recipe, pretrains it in full, and saves it as any hub model is saved."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices), tempfile.TemporaryDirectory() as lesson_folder:
        torch.manual_seed(0)
        model, processor = recipe.build()
        rows = RowsConfig(row_format="question-answer", image_size=None, system_prompt=None, max_tokens=4096)
        encoder = Encoder(processor, rows, has_images=hasattr(processor, "image_processor"))
        lesson = recipe.lesson(Path(lesson_folder), np.random.default_rng(0))
        rows_seen = [encoder.encode(row) for row in lesson]
        _pretrain(model, rows_seen, encoder.tokenizer.pad_token_id, recipe.num_steps, tell, phase)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _pretrain(model: Any, rows: list[Any], pad_token_id: int, num_steps: int, tell: Tell, phase: str) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, num_steps))
    model.train()
    for step in range(num_steps):
        drawn = torch.randint(len(rows), (_BATCH_SIZE,), generator=generator).tolist()
        batch = collate([rows[i] for i in drawn], pad_token_id, side="right")
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tell(phase, step + 1, num_steps)
    model.eval()


def _rate(step: int, num_steps: int) -> float:
    """Warm-up, a plateau, and a linear fall over the last third."""
    return min(1.0, (step + 1) / _WARMUP_STEPS, max(0.05, (num_steps - step) / (num_steps / 3)))
