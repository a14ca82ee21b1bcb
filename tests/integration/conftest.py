"""Real trainers on toy-sized work: rows, configs, and a driver that plays the worker's part of the bridge."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from hpsearch.bridge.protocol import Continue, Done, Event, Prune, Reported, Run
from hpsearch.bridge.trainer_process import TrainerProcess
from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.folders import JobFolder
from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.spec.training import BudgetSpec, TrainingSpec
from hpsearch.train.bases import find_base
from hpsearch.train.tiny.architectures import ARCHITECTURES
from hpsearch.trial import RowsConfig, TrackingConfig, TrialConfig, TrialResult
from tests.integration.gradient_fixtures import Gradients, spied_gradients
from tests.integration.inside import Inside

ROWS = RowsConfig(row_format="question-answer", image_size=None, system_prompt=None, max_tokens=256)


class Driver:
    """Sends folders to one trainer process and answers its reports."""

    def __init__(self, log: Path) -> None:
        self.process = TrainerProcess(log)
        self.was_clean = True

    def run(
        self,
        folder: Path,
        config: TrialConfig,
        goes_on: Callable[[Reported], bool] = lambda _: True,
        each: Callable[[Event], None] = lambda _: None,
    ) -> TrialResult:
        trial = JobFolder(folder)
        trial.prepare(config)
        self.process.send(Run(folder=folder))
        while True:
            event = self.process.next_event(60.0)
            if event is not None:
                each(event)
            if isinstance(event, Reported):
                self.process.send(Continue() if goes_on(event) else Prune())
            if isinstance(event, Done):
                self.was_clean = event.clean
                return trial.read(TrialResult)


@contextmanager
def drivers(log: Path) -> Iterator[Callable[[], Driver]]:
    """Makes trainer processes; all are gone at the end."""
    made: list[Driver] = []

    def start() -> Driver:
        made.append(Driver(log))
        return made[-1]

    yield start
    for driver in made:
        driver.process.end()


@pytest.fixture
def start_driver(tmp_path: Path) -> Iterator[Callable[[], Driver]]:
    with drivers(tmp_path / "trainer.txt") as start:
        yield start


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One warm trainer process for all tests that leave it clean: starting one takes longer than most trials."""
    driver = Driver(tmp_path_factory.mktemp("warm") / "trainer.txt")
    yield driver
    driver.process.end()


@pytest.fixture(scope="module")
def inside() -> Inside:
    """A trainer in the test's own process, with the bases that it loaded."""
    return Inside()


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[Gradients]:
    """Of each optimizer step, before they are clipped."""
    return spied_gradients(monkeypatch)


@pytest.fixture(scope="session")
def built() -> dict[str, Any]:
    """Tiny base → (model, processor), with random weights. To change one, copy it first."""
    torch.manual_seed(0)
    return {name: build() for name, build in ARCHITECTURES.items()}


@pytest.fixture(scope="session")
def text_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_text_rows(tmp_path_factory.mktemp("text"))


def write_text_rows(folder: Path) -> tuple[Path, Path]:
    """(24 train rows, 8 validation rows) for tiny:qwen2."""
    rows = [_row(i, f"Is {i} even or odd?", "even" if i % 2 == 0 else "odd", None) for i in range(32)]
    return _written(folder, rows)


@pytest.fixture(scope="session")
def image_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_image_rows(tmp_path_factory.mktemp("images"))


def write_image_rows(folder: Path) -> tuple[Path, Path]:
    """(24 train rows, 8 validation rows) with images, for the tiny vision-language bases."""
    rows = []
    for i in range(32):
        file = folder / f"{i}.png"
        Image.new("RGB", (28, 28), (8 * i, 255 - 8 * i, 40)).save(file)
        rows.append(_row(i, "Is it dark or light?", "dark" if i % 2 else "light", file))
    return _written(folder, rows)


def _row(number: int, question: str, answer: str, image: Path | None) -> Row:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Row(
        id=str(number),
        messages=messages,
        images=(CheckedImage(image, hashlib.sha256(image.read_bytes()).hexdigest()),) if image else (),
        group=None,
        label=answer,
        split=None,
    )


def _written(folder: Path, rows: list[Row]) -> tuple[Path, Path]:
    write_rows(rows[:24], folder / "train")
    write_rows(rows[24:], folder / "validation")
    return folder / "train", folder / "validation"


def ends_as_qwen2_5(folder: Path) -> Path:
    """A copy of tiny:qwen2 that takes `<|endoftext|>` alone for an end, as Qwen2.5-0.5B does, in an empty `folder`."""
    shutil.copytree(find_base(ModelSpec(base="tiny:qwen2"), lambda *_: None), folder, dirs_exist_ok=True)
    end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|endoftext|>")
    for name, change in {
        "config.json": {"eos_token_id": end},
        "generation_config.json": {"eos_token_id": end},
        "tokenizer_config.json": {"eos_token": "<|endoftext|>"},
    }.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))
    return folder


def text_config(rows: tuple[Path, Path], **changes: object) -> TrialConfig:
    """A short trial on tiny:qwen2; `changes` name fields of the config, or knobs with a double underscore."""
    config = TrialConfig(
        name="test",
        task="text-sft",
        model=ModelSpec(base="tiny:qwen2"),
        lora=LoraSpec(r=8, alpha=16, dropout=0.1),
        training=TrainingSpec(learning_rate=1e-3, batch_size=4, gradient_checkpointing=False),
        budget=BudgetSpec(max_steps=4, reports=2),
        rows=ROWS,
        train_rows=rows[0],
        validation_rows=rows[1],
    )
    return changed(config, **changes)


def changed(config: TrialConfig, **changes: object) -> TrialConfig:
    for key, value in changes.items():
        section, _, field = key.partition("__")
        if field:
            part = getattr(config, section).model_copy(update={field: value})
            config = config.model_copy(update={section: part})
        else:
            config = TrialConfig(**dict(config) | {section: value})
    return config


def hpsearch(*arguments: str, environment: dict[str, str] | None = None, timeout: float = 500) -> tuple[int, str]:
    """Runs the command as a user would; (exit code, everything it printed)."""
    done = subprocess.run(
        [sys.executable, "-m", "hpsearch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env=os.environ | (environment or {}),
        check=False,
    )
    return done.returncode, done.stdout


def followed(place: Path, number: int, trackers: list[Any]) -> TrackingConfig:
    name = f"trial-{number:04d}"
    board = place / "tensorboard" / name
    return TrackingConfig(
        trackers=trackers, id=f"demo-1a-{number:04d}", name=f"demo/{name}", group="demo", tensorboard=board
    )
