"""Building, pretraining and caching a tiny base."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from filelock import FileLock

from hpsearch.files import share_weights
from hpsearch.jobs import Tell
from hpsearch.train.encoding import IGNORED, Batch, Encoder
from hpsearch.train.tiny import architectures
from hpsearch.train.tiny.lessons import Lesson, LessonRow, compare_wines, read_print
from hpsearch.trial import RowsConfig

_BATCH_SIZE = 32
_WARMUP_STEPS = 40


@dataclass(frozen=True)
class Recipe:
    build: Callable[[], architectures.Built]
    lesson: Lesson
    num_steps: int
    peak_learning_rate: float


RECIPES = {
    "tiny:qwen2": Recipe(architectures.qwen2, compare_wines, 200, 3e-3),
    "tiny:gemma3": Recipe(architectures.gemma3, read_print, 250, 1e-3),
    "tiny:qwen2-vl": Recipe(architectures.qwen2_vl, read_print, 100, 1e-3),
    "tiny:qwen2.5-vl": Recipe(architectures.qwen2_5_vl, read_print, 200, 1e-3),
}


def ensure_tiny(name: str, tell: Tell) -> Path:
    """The folder of a tiny base; builds it if the cache has none."""
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
        _pretrain(model, _batches(lesson, encoder), recipe, lambda step: tell(phase, step, recipe.num_steps))
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    share_weights(folder / "model.safetensors")
    processor.save_pretrained(folder)


def _batches(lesson: list[LessonRow], encoder: Encoder) -> Iterator[Batch]:
    """Random batches without end; a row is encoded when it is first drawn."""
    encoded = cache(lambda number: encoder.encode(lesson[number]))
    generator = torch.Generator().manual_seed(0)
    while True:
        drawn = torch.randint(len(lesson), (_BATCH_SIZE,), generator=generator).tolist()
        yield encoder.batch([encoded(number) for number in drawn])


def _pretrain(model: Any, batches: Iterator[Batch], recipe: Recipe, tell_step: Callable[[int], None]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.peak_learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.num_steps))
    model.train()
    for step, batch in enumerate(islice(batches, recipe.num_steps), start=1):
        _loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tell_step(step)
    model.eval()


def _loss(model: Any, batch: Batch) -> torch.Tensor:
    """The model's own loss, without logits where nothing is learned: they would take a sixth to a half of a step."""
    labels = batch.pop("labels")[:, 1:]
    hidden = model.model(**batch).last_hidden_state[:, :-1]
    learned = labels != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]), labels[learned])


def _rate(step: int, num_steps: int) -> float:
    """Warm-up, constant, and a linear decay over the last third."""
    return min(1.0, (step + 1) / _WARMUP_STEPS, max(0.05, (num_steps - step) / (num_steps / 3)))
