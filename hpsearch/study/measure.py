"""Measuring a study before its search: a few real steps of its own rows, in a trainer on the device that will work.

The measured run is a trial with the file's own values, on a sample of rows, in a temporary folder. The first pass over
them tells what a new row costs, later ones what a step costs; the last one has half as many rows, for the fixed cost.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from math import ceil
from pathlib import Path

from pydantic import TypeAdapter

from hpsearch.bridge.follow import Listener, follow
from hpsearch.bridge.protocol import Event, Phase, Progress, Reported
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.data.prepared import DataFolder, read_written, write_rows
from hpsearch.data.rows import Row
from hpsearch.data.split import subset
from hpsearch.errors import HpsearchError, Interrupted, UnreadableFile
from hpsearch.files import read_file, write_text
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.jobs import Tell
from hpsearch.spec import StudyFile
from hpsearch.spec.limits import SilenceSpec
from hpsearch.study.configs import training_config
from hpsearch.study.prepare import PreparedStudy
from hpsearch.trial import GIB, CacheConfig, Outcome, Record, TrialConfig, TrialResult

_PASSES = 4
_FEW_ROWS = 8
_ENOUGH_S = 20.0
"""After this time two passes are enough."""
_VALIDATION_ROWS = 32
_WELL = (Outcome.COMPLETE, Outcome.PRUNED)


class Measurement(Record):
    """Time and memory of the parts of a trial with the file's own values. Seconds and bytes."""

    device: str
    what: str
    """Digest of everything in a trial's config that these numbers depend on."""
    took_s: float
    num_steps: int
    """The number of steps timed in `step_s`."""
    start_s: float
    """Before a worker's first trial: start of the trainer, and loading the base."""
    fit_s: float
    """Finding how many rows fit: once for each combination of values that affects it."""
    batch_size: int
    """Rows of a step that takes `step_s`."""
    step_s: float
    step_fixed_s: float
    """The part of it that does not grow with the rows of a step."""
    new_row_s: float
    """Extra time for a row that this machine sees for the first time."""
    save_s: float
    validation_row_s: float
    rest_s: float
    """Per trial, whatever its length."""
    tokens_per_row: float
    memory_bytes: int
    """GPU memory, or host memory where there is no GPU."""
    checkpoint_bytes: int
    trial_bytes: int
    image_bytes: int
    """Bytes stored per image."""

    def seconds_of_step(self, rows: int) -> float:
        return self.step_fixed_s + (self.step_s - self.step_fixed_s) * rows / self.batch_size


class NotMeasured(HpsearchError):
    """The measured steps did not finish; the message has the reason. A search may begin all the same."""


_KEPT: TypeAdapter[list[Measurement]] = TypeAdapter(list[Measurement])


def file_s_own_trial(file: StudyFile, prepared: PreparedStudy, storage: StorageFolder) -> TrialConfig:
    """The config of the first trial, which has the file's own values."""
    spec, data, folder = file.spec, DataFolder(storage.path), file.path.parent.resolve()
    budget = spec.budget
    return training_config(
        spec,
        f"{spec.study} trial 0",
        budget,
        prepared.manifest,
        folder,
        storage,
        data.rows(prepared.manifest, "train", budget.train_fraction),
        data.rows(prepared.manifest, "validation", budget.validation_fraction),
        tracking=None,
        is_final=False,
    )


def find_measurement(
    config: TrialConfig, prepared: PreparedStudy, storage: StorageFolder, device: str | None = None
) -> Measurement | None:
    """An earlier measurement of such trials on such a device; `device` None: on any device, the latest."""
    kept = [each for each in _read(_file(prepared, storage)) if each.what == _what(config)]
    found = [each for each in kept if device in (None, each.device)]
    return found[-1] if found else None


def measure(
    config: TrialConfig,
    prepared: PreparedStudy,
    storage: StorageFolder,
    device: str,
    start_trainer: StartTrainer,
    tell: Tell,
    silence: SilenceSpec,
) -> Measurement:
    """Measures, and stores the result beside the prepared rows.

    Raises:
        NotMeasured: for example out of memory.
    """
    began = time.monotonic()
    folder = storage.new_inspection("measured")
    try:
        short = _short(config, prepared, folder)
        folder.prepare(short)
        _run(folder, start_trainer, tell, silence)
        result = folder.read(TrialResult)
        found = _found(config, short, result, folder, device, time.monotonic() - began)
    except (NotMeasured, Interrupted):
        raise
    except Exception as error:  # whatever it is, no study ends for it
        raise NotMeasured(str(error)) from error
    finally:
        shutil.rmtree(folder.path, ignore_errors=True)
    file = _file(prepared, storage)
    others = [each for each in _read(file) if (each.what, each.device) != (found.what, found.device)]
    with suppress(OSError):  # on a full disk it is measured again
        write_text(file, _KEPT.dump_json([*others, found]).decode())
    return found


def _file(prepared: PreparedStudy, storage: StorageFolder) -> Path:
    return DataFolder(storage.path).of(prepared.manifest.sha256) / "measurements.json"


def _read(file: Path) -> list[Measurement]:
    try:
        return read_file(file, _KEPT.validate_json) if file.exists() else []
    except UnreadableFile:
        return []  # for example from another version: it is measured again


def _what(config: TrialConfig) -> str:
    places = {"name", "train_rows", "validation_rows", "images", "fits", "earlier"}
    facts = config.model_dump_json(exclude=places | {"budget"})
    facts += f" {config.budget.memory_gib} {[version(name) for name in ('hpsearch', 'torch', 'bitsandbytes')]}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _short(config: TrialConfig, prepared: PreparedStudy, folder: JobFolder) -> TrialConfig:
    """The config of the measured run; writes its rows."""
    size, budget = config.training.batch_size, config.budget
    wanted = size * max(2, ceil(_FEW_ROWS / size)) + (0 if config.curriculum.stages else size // 2)
    rows = {
        "train": _sample(subset(prepared.splits["train"], budget.train_fraction), wanted),
        "validation": _sample(subset(prepared.splits["validation"], budget.validation_fraction), _VALIDATION_ROWS),
    }
    places = {name: folder.path / name for name in rows}
    for name, place in places.items():
        write_rows(rows[name], place)
    steps = _PASSES * ceil(len(rows["train"]) / size)
    images = config.images and CacheConfig(folder=folder.path / "images", limit_bytes=config.images.limit_bytes)
    few = {"max_steps": steps, "epochs": float(_PASSES), "reports": _PASSES}
    return config.model_copy(
        update={
            "budget": budget.model_copy(update=few),
            "train_rows": places["train"],
            "validation_rows": places["validation"],
            "curriculum": config.curriculum.model_copy(update={"order": "random"}),
            "images": images,
        }
    )


def _sample(rows: Sequence[Row], count: int) -> list[Row]:
    """Rows spread evenly over the lengths, so that a few represent all."""
    ordered = sorted(rows, key=lambda row: (len(row.images), sum(len(turn["content"]) for turn in row.messages)))
    count = min(count, len(ordered))
    found = [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]
    random.Random(0).shuffle(found)
    return found


class _Timing(Listener):
    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._began = time.monotonic()
        self._now: tuple[str, int, int] = ("measuring: starting the trainer", 0, 0)

    def hears(self, event: Event) -> None:
        if isinstance(event, Phase):
            self._now = (f"measuring: {event.name}", event.done, event.total)
        if isinstance(event, Progress):
            self._now = ("measuring: training", event.step, event.num_steps)

    def goes_on(self, report: Reported) -> bool:
        return report.step < 2 or time.monotonic() - self._began < _ENOUGH_S

    def tick(self) -> None:
        self._tell(*self._now)


def _run(folder: JobFolder, start_trainer: StartTrainer, tell: Tell, silence: SilenceSpec) -> None:
    tell("measuring: starting the trainer", 0, 0)
    trainer = start_trainer()
    try:
        follow(trainer, folder, StopFlag(), _Timing(tell), silence)
    finally:
        trainer.end()


def _found(
    config: TrialConfig,
    short: TrialConfig,
    result: TrialResult,
    folder: JobFolder,
    device: str,
    took_s: float,
) -> Measurement:
    """Raises NotMeasured."""
    if result.outcome is Outcome.OUT_OF_MEMORY:
        needed = f"{result.bytes_needed / GIB:.1f} GiB of memory" if result.bytes_needed else "memory than there is"
        raise NotMeasured(f"with the file's own values a trial needs more than {needed}")
    pace, ledger = result.pace, result.ledger
    if result.outcome not in _WELL or pace is None or ledger is None or not pace.validation_s:
        raise NotMeasured(f"{result.outcome}: {result.reason}")
    size, num_sampled = config.training.batch_size, len(read_written(short.train_rows))
    of_a_pass = ceil(num_sampled / size)
    new, later, small = _steps(pace.step_s, of_a_pass, has_small=bool(num_sampled % size) and of_a_pass > 1)
    parts = (pace.base_s, pace.fit_s, pace.step_s, pace.save_s, pace.validation_s)
    validations = pace.validation_s[1:] or pace.validation_s
    checkpoints = sorted(folder.checkpoints.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    images = [file.stat().st_size for file in (folder.path / "images").rglob("*") if file.is_file()]
    kept = (folder.config, folder.log, folder.journal, folder.history, folder.result)
    beside = ledger.peak_device_bytes - ledger.peak_allocated_bytes
    predicted = (result.fit.predicted_bytes or 0) + beside if result.fit and ledger.used_device_bytes else 0
    return Measurement(
        device=device,
        what=_what(config),
        took_s=took_s,
        num_steps=len(later) + len(small),
        start_s=pace.start_s + sum(pace.base_s),
        fit_s=sum(pace.fit_s),
        batch_size=size,
        step_s=_mean(later),
        step_fixed_s=_fixed(_mean(later), size, _mean(small), num_sampled % size) if small else 0.0,
        new_row_s=max(0.0, _mean(new) - _mean(later)) / size,
        save_s=_mean(pace.save_s),
        validation_row_s=_mean(validations) / len(read_written(short.validation_rows)),
        rest_s=max(0.0, pace.whole_s - sum(map(sum, parts))),
        tokens_per_row=pace.tokens_per_row,
        memory_bytes=max(ledger.used_device_bytes, predicted) or ledger.peak_host_bytes,
        checkpoint_bytes=_size(checkpoints[-1]) if checkpoints else 0,
        trial_bytes=sum(file.stat().st_size for file in kept if file.exists()),
        image_bytes=round(_mean(images)),
    )


def _steps(times: list[float], of_a_pass: int, *, has_small: bool) -> tuple[list[float], list[float], list[float]]:
    """Whole steps of the first pass without its first step, whole steps of later passes, and small steps of later
    passes.
    """
    passes = [times[start : start + of_a_pass] for start in range(0, len(times), of_a_pass)]
    whole = [steps[: of_a_pass - has_small] for steps in passes]
    new = whole[0][1:] or whole[0]
    small = [steps[-1] for steps in passes[1:] if has_small and len(steps) == of_a_pass]
    return new, [step for steps in whole[1:] for step in steps] or new, small


def _fixed(whole_s: float, whole_rows: int, small_s: float, small_rows: int) -> float:
    """The value at zero rows of the line through both points."""
    per_row_s = (whole_s - small_s) / (whole_rows - small_rows)
    return min(whole_s, max(0.0, whole_s - per_row_s * whole_rows))


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / max(1, len(numbers))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
