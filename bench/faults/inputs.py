"""The kinds of input that are broken: for each, real ones to begin with, and the code that reads a user's file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from bench.faults.data_inputs import data_sets, images, question_files
from bench.faults.fuzz import Case
from bench.faults.mutations import broken_bytes, swapped
from hpsearch.bridge.protocol import (
    Done,
    Phase,
    Progress,
    Ready,
    Reported,
    Run,
    Stop,
    read_command,
    read_event,
    to_line,
)
from hpsearch.convert.file import read_foreign
from hpsearch.folders import JobFolder
from hpsearch.search.samplers import make_sampler
from hpsearch.search.space import to_optuna
from hpsearch.spec import dump_study, load_study
from hpsearch.spec.model import ModelSpec
from hpsearch.spec.training import BudgetSpec, TrainingSpec
from hpsearch.trial import HistoryPoint, Outcome, Report, RowsConfig, TrialConfig, TrialResult

_STUDIES = Path(__file__).parents[2] / "studies"


def study_files(folder: Path) -> Case:
    """Shipped study files, broken as text and as values; what is accepted is dumped again, and its sampler made."""
    texts = [file.read_bytes() for file in sorted(_STUDIES.glob("*.yaml"))]
    written = _values_of(folder, texts)
    file = folder / "study.yaml"

    def case(random: Random) -> None:
        if random.random() < 0.5:
            file.write_bytes(broken_bytes(random.choice(texts), random))
        else:
            text = json.dumps(swapped(random.choice(written), random), ensure_ascii=random.random() < 0.5)
            file.write_bytes(text.encode(errors="surrogatepass"))
        overrides = [_override(random)] if random.random() < 0.3 else []
        spec = load_study(file, overrides).spec
        dump_study(spec)
        if spec.search is not None:
            to_optuna(spec.search.space, spec.defaults())
            make_sampler(spec.search.sampler, spec.search.space, spec.search.seed, 0)

    return case


def _values_of(folder: Path, texts: Sequence[bytes]) -> list[Any]:
    values = []
    for text in texts:
        (folder / "whole.yaml").write_bytes(text)
        values.append(load_study(folder / "whole.yaml").spec.model_dump(mode="json", exclude_none=True))
    return values


def _override(random: Random) -> str:
    whole = random.choice(
        (
            "training.learning_rate=2e-5",
            "search.space.lora.r=[4, 8]",
            "search.sampler={name: grid}",
            "lora.target_modules=[q_proj, v_proj]",
            "data.labels={a: b}",
        )
    )
    return broken_bytes(whole.encode(), random).decode(errors="surrogateescape")


def foreign_files(folder: Path) -> Case:
    """Other tools' training files."""
    whole = b"base_model: Qwen/Qwen2.5-0.5B\nlora_r: 16\ndatasets:\n  - path: rows.jsonl\n    type: alpaca\n"
    file = folder / "their.yaml"

    def case(random: Random) -> None:
        file.write_bytes(broken_bytes(whole, random))
        read_foreign(file)

    return case


def folders(folder: Path) -> Case:
    """A trial's folder: config, result, history and the journal of a stage."""
    trial = JobFolder(folder / "trial")
    trial.prepare(_CONFIG)
    trial.write_result(_RESULT)
    points = [HistoryPoint(step=step, loss=2.0 / step, learning_rate=1e-4) for step in range(1, 20)]
    trial.history.write_text("".join(point.model_dump_json() + "\n" for point in points))
    stage = trial.stage(0, 1)
    stage.path.mkdir()
    stage.finish(_RESULT.reports)
    readers: list[tuple[Path, Callable[[], object]]] = [
        (trial.config, trial.job),
        (trial.result, lambda: (trial.failure(), trial.read(TrialResult))),
        (trial.history, trial.read_history),
    ]
    whole = [file.read_bytes() for file, _ in readers]

    def case(random: Random) -> None:
        position = random.randrange(len(readers))
        file, read = readers[position]
        try:
            if file.suffix == ".json" and random.random() < 0.5:
                text = json.dumps(swapped(json.loads(whole[position]), random))
                file.write_bytes(text.encode(errors="surrogatepass"))
            else:
                file.write_bytes(broken_bytes(whole[position], random))
            read()
        finally:
            file.write_bytes(whole[position])

    return case


_CONFIG = TrialConfig(
    name="demo",
    task="text-sft",
    model=ModelSpec(base="tiny:qwen2"),
    lora={"r": 8},  # type: ignore[arg-type]
    training=TrainingSpec(),
    budget=BudgetSpec(),
    rows=RowsConfig(row_format="question-answer", image_size=None, system_prompt=None, max_tokens=256),
    train_rows=Path("train"),
    validation_rows=Path("validation"),
)
_RESULT = TrialResult(
    outcome=Outcome.COMPLETE, reports=[Report(step=step, loss=1.0 / step) for step in (1, 2, 3)], num_steps=12
)


def protocol_lines(_folder: Path) -> Case:
    """What worker and trainer say to each other."""
    messages = (
        Run(folder=Path("trial")),
        Stop(),
        Ready(device="CPU"),
        Phase(name="loading", done=1, total=2),
        Progress(step=1, num_steps=4, loss=2.0),
        Reported(step=1, num_reports=4, loss=1.5, metrics={"exact_match": 0.5}),
        Done(clean=True),
    )

    def case(random: Random) -> None:
        message = random.choice(messages)
        if random.random() < 0.5:
            line = broken_bytes(to_line(message), random)
        else:
            line = json.dumps(swapped(message.model_dump(mode="json"), random)).encode(errors="surrogatepass")
        (read_command if random.random() < 0.5 else read_event)(line)

    return case


KINDS: dict[str, tuple[int, Callable[[Path], Case]]] = {
    "study files": (35, study_files),
    "other tools": (5, foreign_files),
    "data sets": (15, data_sets),
    "images": (15, images),
    "folders": (15, folders),
    "protocol": (10, protocol_lines),
    "questions": (5, question_files),
}
"""Kind → (its share of the cases in percent, how its cases are made)."""
