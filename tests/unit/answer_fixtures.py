"""Trained runs without training, and a trainer that answers rows as the test says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import datasets
from PIL import Image

from hpsearch.bridge.protocol import Done, Event, Phase
from hpsearch.bridge.stopping import StopFlag
from hpsearch.folders import JobFolder
from hpsearch.jobs import AnsweredRow, EvaluationConfig, EvaluationResult, JobFailure, Variant
from hpsearch.results.final import RunFolder, train_final
from hpsearch.trial import Outcome
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.worker_fixtures import Play, ScriptedTrainer, plays, steadily

Say = Callable[[Variant, dict[str, Any]], str]
"""What a cell's model says to a row."""


_DONE: dict[tuple[str, ...], Path] = {}
"""Folders of desks at which some work is done, by the rows and by what the work is called."""


def done_once(desk: Desk, work: Callable[[Desk], object], *called: str) -> None:
    """Leaves in the desk's folder what `work` does at a desk of the same rows; it's done once and then copied."""
    rows = (desk.folder / "rows.jsonl").read_text()
    if (rows, *called) not in _DONE:
        other = Desk(Path(mkdtemp(prefix="desk-", dir=desk.folder.parent)), desk.store)
        (other.folder / "rows.jsonl").write_text(rows)
        work(other)
        _DONE[rows, *called] = other.folder
    _copy(_DONE[rows, *called], desk.folder)


def _copy(source: Path, target: Path) -> None:
    """Files that name their folder name the new one. All keep their times, by which prepared rows are known."""
    for file in (path for path in source.rglob("*") if path.is_file()):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes().replace(bytes(source), bytes(target)))
        shutil.copystat(file, copy)


def trained(desk: Desk, *overrides: str, name: str = "demo") -> RunFolder:
    """A final run of the desk's study file, in the folder of this name."""

    def train(other: Desk) -> None:
        train_anew(other, [override.replace(str(desk.folder), str(other.folder)) for override in overrides], name)

    if (desk.folder / "images").exists():  # Arrow files that name their folder can't be made to name another
        train_anew(desk, overrides, name)
    else:
        done_once(desk, train, "trained", name, *(override.replace(str(desk.folder), "") for override in overrides))
    return RunFolder(desk.storage.runs / name)


def train_anew(desk: Desk, overrides: Iterable[str], name: str) -> None:
    file, folder = desk.file("search=null", *overrides), RunFolder(desk.storage.runs / name)
    start = plays(inspecting(), steadily(0.7))
    flags: dict[str, Any] = {"resume": False, "restart": False}
    result = train_final(file, folder, desk.storage, start, StopFlag(), desk.tell, lambda _: None, **flags)
    assert result.outcome is Outcome.COMPLETE


SEEN = ("task=vlm-sft", "data.columns={image: i, question: q, answer: a}")
CLASSES = ("task=vlm-classify", "data.columns={image: i, label: l}", "data.prompt=Which animal?")
"""What a study says that is trained on the rows of `draw_rows`."""


def draw_rows(desk: Desk) -> None:
    """Rows of images, which lie in `images` beside the study file."""
    (desk.folder / "images").mkdir()
    for number in range(20):
        Image.new("RGB", (28, 28), (number, 0, 0)).save(desk.folder / "images" / f"{number}.png")
    labels = ["cat", "dog"] * 10
    desk.write_rows(
        [{"i": f"images/{i}.png", "q": "Is it dark?", "a": "yes", "l": label} for i, label in enumerate(labels)]
    )


def echo(cell: Variant, row: dict[str, Any]) -> str:
    """What the model was asked, and by whom."""
    images = "".join(f" {Path(image).name}" for image in row.get("images", []))
    return f"{cell.name}: {row['messages'][-2]['content']}{images}"


def knowing(cell: Variant, row: dict[str, Any]) -> str:
    """The tuned model knows every answer, the base model none."""
    return str(row["messages"][-1]["content"]) if cell.model == "tuned" else "no idea"


def answering(say: Say = knowing, *, asked: list[tuple[str, str]] | None = None, dies_after: int | None = None) -> Play:
    """Answers the rows that have no answer yet, and dies after so many; `asked`: each cell's name and row's id."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        config = folder.job()
        assert isinstance(config, EvaluationConfig)
        rows = list(datasets.load_from_disk(str(config.test_rows)))
        answered = 0
        for cell in config.variants:
            file = folder.answers(cell.name)
            done = len(file.read_text().splitlines()) if file.exists() else 0
            yield Phase(name=f"answers: {cell.name}", done=done, total=len(rows))
            for row in rows[done:]:
                if answered == dies_after:
                    return
                answered += 1
                if asked is not None:
                    asked.append((cell.name, row["id"]))
                with file.open("a") as answers:
                    answers.write(_answer(cell, row, say, config).model_dump_json() + "\n")
        folder.write_result(EvaluationResult(num_rows=len(rows), longer_than_limit=2))
        yield Done(clean=True)

    return play


def _answer(cell: Variant, row: dict[str, Any], say: Say, config: EvaluationConfig) -> AnsweredRow:
    said = say(cell, row)
    return AnsweredRow(
        id=row["id"],
        question=row["messages"][-2]["content"],
        images=row.get("images", []),
        reference=row["messages"][-1]["content"] if config.has_references else None,
        prediction=said,
        loss=0.5 if config.has_references else None,
        num_tokens=1,
        is_cut=len(said) > config.answers.max_new_tokens,
    )


def failing(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
    folder.write_result(JobFailure(reason="OutOfMemoryError: 2 GiB", traceback="Traceback …"))
    yield Done(clean=False)


def write_jsonl(file: Path, rows: list[Any]) -> Path:
    """Text stands as it is, everything else as JSON."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().split("\n") if line]
