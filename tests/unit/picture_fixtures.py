"""What tests of pictures and of the report share: an evaluation, a run, and trials that leave a history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from hpsearch.bridge.protocol import Event
from hpsearch.evaluation import Evaluation, Gap, Score, Units, VariantScores
from hpsearch.folders import JobFolder
from hpsearch.metrics import class_scores, confusion
from hpsearch.search.timeline import Timeline, timeline_of
from hpsearch.store import Activity, StoredWorker
from hpsearch.store.attempts import StoredAttempt
from hpsearch.trial import HistoryPoint, Outcome, Report, TrialConfig, TrialResult
from hpsearch.watch.report.final import FinalRun
from tests.unit.worker_fixtures import Play, ScriptedTrainer, ending, report

CELLS = ("most frequent answer", "base", "base-static", "tuned", "tuned-static")
REFERENCES = ["cat"] * 6 + ["dog"] * 4
SAID = {
    "most frequent answer": ["cat"] * 10,
    "base": ["cow"] * 9 + ["dog"],
    "base-static": ["cat"] * 3 + ["cow"] * 7,
    "tuned": ["cat"] * 6 + ["dog"] * 3 + ["cat"],
    "tuned-static": REFERENCES,
}


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def words_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def history(num_steps: int, loss: float = 2.0) -> list[HistoryPoint]:
    return [HistoryPoint(step=step, loss=loss / step, learning_rate=1e-3 / step) for step in range(1, num_steps + 1)]


def config(**changes: Any) -> TrialConfig:
    whole: dict[str, Any] = {
        "name": "demo final",
        "task": "text-sft",
        "model": {"base": "tiny:qwen2"},
        "lora": {},
        "training": {},
        "budget": {"reports": 4},
        "rows": {"row_format": "question-answer", "image_size": None, "system_prompt": None, "max_tokens": 64},
        "train_rows": Path("train"),
        "validation_rows": Path("validation"),
        "is_final": True,
    }
    return TrialConfig.model_validate(whole | changes)


def result(*losses: float, num_steps: int = 0, outcome: Outcome = Outcome.COMPLETE, **more: Any) -> TrialResult:
    reports = [Report(step=step, loss=loss) for step, loss in enumerate(losses, start=1)]
    return TrialResult(outcome=outcome, reports=reports, num_steps=num_steps or len(losses), **more)


def evaluation(metrics: tuple[str, ...] = ("accuracy",), *, has_classes: bool = True) -> Evaluation:
    return Evaluation(
        num_rows=len(REFERENCES),
        rows_sha256="0" * 64,
        longer_than_limit=0,
        metrics=list(metrics),  # type: ignore[arg-type]
        variants=[_cell(name, metrics, has_classes) for name in CELLS],
        gaps=[
            Gap(name="tuned", than="base", metric="accuracy", difference=0.8, low=0.5, high=1, p_value=0.01, shown=True)
        ],
        units=Units(name="images", num=10, effective=10),
    )


def timeline() -> Timeline:
    """Two cards of one machine. The first one's worker is killed at trial 0, which the second one's goes on with after
    its own; it is stopped, and a new one on the first card ends it."""
    attempts = [
        StoredAttempt(0, 0, 1, "box:1:1", 1000.0, None, None),
        StoredAttempt(0, 0, 2, "box:2:1", 1050.0, 1060.0, "stopped"),
        StoredAttempt(0, 0, 3, "box:3:1", 1100.0, 1200.0, "complete"),
        StoredAttempt(1, 1, 1, "box:2:1", 1010.0, 1050.0, "pruned"),
        StoredAttempt(2, 2, 1, "box:3:1", 1200.0, None, None),
    ]
    workers = [
        stored_worker("box:1:1", 990.0, 1030.0, gone=True),
        stored_worker("box:2:1", 991.0, 1060.0, "b", gone=True),
        stored_worker("box:3:1", 1090.0, 1240.0),
    ]
    return timeline_of(attempts, workers, 1250.0)


def stored_worker(name: str, started_at: float, beat_at: float, card: str = "a", *, gone: bool = False) -> StoredWorker:
    return StoredWorker(name, "H100", started_at, beat_at, 1.0, Activity(doing="training"), gone, card)


def without_base(whole: Evaluation) -> Evaluation:
    """As `hpsearch evaluate --without-base` gives it."""
    cells = [cell for cell in whole.variants if not cell.name.startswith("base")]
    return whole.model_copy(update={"variants": cells, "gaps": [gap for gap in whole.gaps if gap.than != "base"]})


def _cell(name: str, metrics: tuple[str, ...], has_classes: bool) -> VariantScores:
    said = SAID[name]
    value = sum(one == other for one, other in zip(REFERENCES, said, strict=True)) / len(said)
    score = Score(value=value, low=max(0.0, value - 0.1), high=min(1.0, value + 0.1))
    return VariantScores(
        name=name,
        scores=dict.fromkeys(metrics, score),  # type: ignore[arg-type]
        loss=None if name == CELLS[0] else 1.25,
        classes=class_scores(REFERENCES, said) if has_classes else [],
        confusion=confusion(REFERENCES, said) if has_classes else None,
    )


def training(*losses: float, outcome: Outcome = Outcome.COMPLETE, **more: Any) -> Play:
    """A training that leaves two optimizer steps for each of its reports."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        lines = [point.model_dump_json() for point in history(2 * len(losses))]
        folder.history.write_text("".join(f"{line}\n" for line in lines))
        for step, loss in enumerate(losses, start=1):
            yield report(step, loss)
        yield from ending(folder, outcome, *losses, **more)

    return play


def rows_of(cell: str, image: Path | None = None) -> str:
    rows = [
        {
            "id": f"row {number}",
            "question": "What is it?",
            **({"image": str(image)} if image else {}),
            "reference": reference,
            "prediction": prediction,
            "accuracy": float(reference == prediction),
        }
        for number, (reference, prediction) in enumerate(zip(REFERENCES, SAID[cell], strict=True))
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def final_run(path: Path, image: Path | None = None) -> FinalRun:
    for cell in CELLS[1:]:
        (path / f"{cell}.jsonl").write_text(rows_of(cell, image))
    return FinalRun(path, config(), result(1.0, 0.5, 0.75), history(6), evaluation(), path)
