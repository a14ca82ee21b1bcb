"""How long a search was estimated to take, from a few measured steps, against how long it takes.

The reason: a user who starts a search in the evening wants to know whether it ends by the morning.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from datasets import disable_progress_bars

from bench.comparison import Comparison, Finding, Say, Side
from bench.searches import study as text_study
from bench.shapes import Shape
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import TrainerProcess
from hpsearch.folders import StorageFolder
from hpsearch.spec import load_study
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.workers import own_worker_id
from hpsearch.study.estimate import Estimate, estimate
from hpsearch.study.measure import file_s_own_trial
from hpsearch.study.measure import measure as measure_steps
from hpsearch.study.open import open_study, prepare_new
from hpsearch.worker.worker import Worker

_TRIALS = 8
_QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart.yaml"


def measure(say: Say) -> list[Finding]:
    disable_progress_bars()
    text = Shape("tiny:qwen2", "tiny:qwen2", words=8, steps=20, warm_base_pairs=0, growth_trials=0)
    return [
        _compared("text, tiny:qwen2", lambda folder: _text(folder, text), say),
        _compared("images, tiny:gemma3 (the quickstart without pruning)", _images, say),
    ]


def _text(folder: Path, shape: Shape) -> dict[str, Any]:
    shape.write_rows(folder / "rows.jsonl")
    return text_study(shape, _TRIALS, None)


def _images(folder: Path) -> dict[str, Any]:
    del folder
    study: dict[str, Any] = yaml.safe_load(_QUICKSTART.read_text())
    study["search"] |= {"trials": _TRIALS, "pruner": "none"}
    return study


def _compared(name: str, write: Any, say: Say) -> Comparison:
    folder = Path(tempfile.mkdtemp())
    try:
        found, really_s = _searched(folder, write(folder))
    finally:
        shutil.rmtree(folder)
    say(f"{name}: {found.search_s:.1f} s estimated, {really_s:.1f} s taken; measured in {found.measured.took_s:.1f} s")
    what = f"seconds for {_TRIALS} trials, {name}; measured in {found.measured.took_s:.1f} s"
    return Comparison(what, "s", Side("the estimate", [found.search_s]), Side("the search", [really_s]))


def _searched(folder: Path, study: dict[str, Any]) -> tuple[Estimate, float]:
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    file, storage = load_study(folder / "study.yaml"), StorageFolder(folder / "storage")

    def start() -> TrainerProcess:
        return TrainerProcess(folder / "trainer.txt")

    def tell(*_: Any) -> None:
        pass

    with Store(parse_url(f"sqlite:///{storage.database}", from_argv=False)) as store:
        prepared = prepare_new(file, storage, start, tell)
        config = file_s_own_trial(file, prepared, storage)
        found = measure_steps(config, prepared, storage, "here", start, tell, file.spec.silence)
        opened = open_study(file, store, storage, start, tell, joins=False, prepared=prepared)
        worker = Worker(opened, store, own_worker_id(), start, StopFlag())
        started = time.monotonic()
        worker.run()
        return estimate(file.spec, prepared, found, 1), time.monotonic() - started
