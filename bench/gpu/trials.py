"""Trials of a shape, run by hpsearch's own trainer process, without a study around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.gpu.place import Place
from bench.gpu.shapes import Shape
from hpsearch.bridge.protocol import Continue, Done, Reported, Run
from hpsearch.bridge.trainer_process import TrainerProcess
from hpsearch.bridge.witness import device_bytes
from hpsearch.folders import JobFolder
from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.spec.training import BudgetSpec, TrainingSpec
from hpsearch.trial import RowsConfig, TrialConfig, TrialResult

ROWS_PER_STEP = 16


def config_of(shape: Shape, place: Place) -> TrialConfig:
    """A short trial with hpsearch's own defaults."""
    train, validation = shape.rows(place)
    return TrialConfig(
        name=shape.name,
        task=shape.task,
        model=ModelSpec(base=str(shape.base(place))),
        lora=LoraSpec(dropout=0.0),
        training=TrainingSpec(batch_size=ROWS_PER_STEP),
        budget=BudgetSpec(max_steps=2, reports=1),
        rows=RowsConfig(row_format="question-answer", image_size=None, system_prompt=None, max_tokens=4096),
        train_rows=train,
        validation_rows=validation,
    )


def changed(config: TrialConfig, **changes: Any) -> TrialConfig:
    """`training__batch_size=4` changes a field of a part, `name="x"` one of the config."""
    for key, value in changes.items():
        section, _, field = key.partition("__")
        if field:
            value = getattr(config, section).model_copy(update={field: value})
        config = config.model_copy(update={section: value})
    return config


class Trials:
    """One trainer process, trial after trial."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = TrainerProcess(folder / "trainer.txt")
        self._number = 0
        self.is_clean = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, config: TrialConfig) -> TrialResult:
        """Raises TrainerDied where the process ends, and RuntimeError where the trial fails by itself."""
        self._number += 1
        folder = JobFolder(self._folder / str(self._number))
        folder.prepare(config)
        self._process.send(Run(folder=folder.path))
        while True:
            event = self._process.next_event(60.0)
            if isinstance(event, Reported):
                self._process.send(Continue())
            if isinstance(event, Done):
                self.is_clean = event.clean
                result = folder.read(TrialResult)
                if result.outcome == "failed":
                    raise RuntimeError(f"{result.reason}\n{result.traceback}")
                return result

    def device_bytes(self) -> int | None:
        """As NVML sees it, from outside."""
        return device_bytes(self._process.pid)

    def end(self) -> None:
        self._process.end()


@contextmanager
def trials(folder: Path) -> Iterator[Trials]:
    running = Trials(folder)
    try:
        yield running
    finally:
        running.end()
