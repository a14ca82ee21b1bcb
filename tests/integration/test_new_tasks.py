"""A new task needs its row and its file only. Everything else, from the study file to the report, reads the row."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

import hpsearch.train.tasks
from hpsearch.errors import StudyFileErrors
from hpsearch.evaluation import Evaluation
from hpsearch.results.best import as_yaml, choose
from hpsearch.results.card import model_card
from hpsearch.results.evaluate import EvaluationOptions, evaluate_run
from hpsearch.results.final import RunFolder
from hpsearch.results.predict import PredictionOptions, ask
from hpsearch.results.scoring import read_answers
from hpsearch.search.importance import importances
from hpsearch.search.timeline import read_timeline
from hpsearch.spec import load_study
from hpsearch.spec.tasks import TASKS, TaskFacts, find_task
from hpsearch.train.encoding import IGNORED, Batch
from hpsearch.train.loss import on_device
from hpsearch.train.tasks import Task
from hpsearch.train.tasks.generation import Generation
from hpsearch.trial import TrialResult
from hpsearch.watch.evaluation import evaluation_table
from hpsearch.watch.pictures import draw_evaluation, draw_run, draw_study
from hpsearch.watch.report import Asked, FinalRun, report_page
from hpsearch.watch.tables import study_panel
from tests.integration.inside import Inside, InsideTrainer
from tests.integration.workplaces import Workplace

WORDS = {"animal": ["a cat", "a dog", "a cow"], "vehicle": ["a car", "a bus", "a train"]}


@pytest.fixture
def place(inside: Inside, tmp_path: Path) -> Iterator[Workplace]:
    """72 short texts, each with its kind."""
    workplace = Workplace(tmp_path, InsideTrainer(inside))
    texts = [
        {"text": f"{word} in picture {number}", "kind": kind}
        for number in range(12)
        for kind, words in WORDS.items()
        for word in words
    ]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    yield workplace
    workplace.close()


def evaluated(place: Workplace, name: str) -> tuple[RunFolder, Evaluation]:
    run = RunFolder(place.storage.runs / name)
    return run, evaluate_run(run, EvaluationOptions(), place.storage, place.start, place.tell)


def test_texts_are_classified_and_compared_with_the_untuned_base(place: Workplace) -> None:
    """The recipe, with short rows in the place of its data."""
    name = "breast_cancer_classify"
    split = "{train: 0.6, validation: 0.2, test: 0.2}"
    data = f"data={{source: texts.jsonl, columns: {{question: text, label: kind}}, split: {split}}}"
    _, config, _ = place.search(name, "tiny:qwen2", data, "budget={max_steps: 4, reports: 2}")
    assert config.task == find_task("class", has_images=False, sections=frozenset({"head"}))
    assert config.answers.classes == ["animal", "vehicle"]
    result = place.train(name, "final={max_steps: 48, reports: 2}")
    assert result.ledger is not None
    assert result.ledger.closes, result.ledger.not_given_back
    run, evaluation = evaluated(place, name)
    assert (run.adapter / "head.safetensors").exists()
    frequent, base, tuned = (variant.scores["balanced_accuracy"] for variant in evaluation.variants)
    assert frequent.value == 0.5
    assert (tuned.interval is None) == (tuned.value == 1.0), "without a mistake nothing can be resampled"
    assert tuned.value > max(0.8, base.value)
    (said,) = ask(run, [], ["a dog in picture 99"], PredictionOptions(), place.storage, place.start, place.tell)
    assert said.answer == "animal"
    card = model_card(run, "adapter")
    assert "pipeline_tag: text-classification" in card
    assert "The prompt was the column text." in card


class Smoothed(Generation):
    """Answers whose loss smooths the labels (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567)."""

    has_own_loss = True

    def training_loss(self, model: Any, batch: Batch, num_items: int) -> torch.Tensor:
        inputs = on_device(batch, model.device)
        labels = batch["labels"][:, 1:].to(model.device)
        logits = model(**inputs).logits[:, :-1].float()
        losses = cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=0.1, reduction="sum"
        )
        return losses / num_items


NAME = "smoothed-text"
STUDY = f"""\
study: smoothed
task: {NAME}
model: {{base: "tiny:qwen2"}}
data: {{source: texts.jsonl, columns: {{question: text, answer: kind}}, max_tokens: 64}}
training: {{batch_size: 8, learning_rate: 1e-2}}
objective: [exact_match, loss]
budget: {{max_steps: 4, reports: 2}}
final: {{max_steps: 16, reports: 2}}
evaluation: {{max_new_tokens: 6}}
search: {{trials: 2, space: {{training.learning_rate: [1e-2, 1e-3]}}}}
"""


@pytest.fixture
def one_task_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row, and its file."""
    row = TaskFacts(
        NAME,
        "a question → an answer, with smoothed labels",
        "text",
        "none",
        ("question-answer",),
        ("texts",),
        "text2text-generation",
        has_prompts=False,
        loss_unit="nats per smoothed token",
    )
    monkeypatch.setitem(TASKS, NAME, row)
    monkeypatch.setitem(hpsearch.train.tasks.TASKS, NAME, Task(NAME, Smoothed))


@pytest.mark.usefixtures("one_task_more")
class TestAMadeUpTask:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (
                ("answer: kind", "label: kind"),
                f"columns.answer: is missing: task {NAME} takes question-answer rows",
            ),
            (("[exact_match, loss]", "accuracy"), f"accuracy does not fit task {NAME}; it has: loss, exact_match,"),
            (("evaluation: {", "evaluation: {prompts: {static: Hm.}, "), f"task {NAME} takes none"),
            (("final:", "head: {hidden: 4}\nfinal:"), f"task {NAME} has no classification head"),
            ((NAME, "smoothed-txt"), f"did you mean '{NAME}'?"),
        ],
    )
    def test_its_study_file_is_checked_by_its_row(self, tmp_path: Path, change: tuple[str, str], expected: str) -> None:
        file = tmp_path / "smoothed.yaml"
        file.write_text(STUDY.replace(*change))
        with pytest.raises(StudyFileErrors) as raised:
            load_study(file)
        assert expected in str(raised.value)

    def test_it_goes_from_the_study_file_to_report_tables_plots_and_card(self, place: Workplace) -> None:
        file = place.folder / "smoothed.yaml"
        file.write_text(STUDY)
        place.run(load_study(file))
        view = place.view("smoothed")
        assert [trial.outcome for trial in view.trials] == ["complete"] * 2
        result = place.train("smoothed")
        assert result.reports[-1].loss < result.reports[0].loss
        run, evaluation = evaluated(place, "smoothed")
        assert [metric.name for metric in evaluation.metrics][:2] == ["exact_match", "exact_match_raw"]
        said = {row.prediction for row in read_answers(run.scores / "tuned.jsonl")}
        assert said <= set(WORDS), "it has learned the form of an answer"
        assert draw_study(place.store, view, place.storage, place.tell).startswith("plots: ")
        assert draw_run(run, run.plots).startswith("plots: loss in ")
        assert draw_evaluation(evaluation, run.plots).startswith("plots: scores")
        words = _words(study_panel(view), evaluation_table(evaluation, NAME))
        assert "per smoothed token)" in words
        assert "pipeline_tag: text2text-generation" in model_card(run, "adapter")
        assert "nats per smoothed token" in model_card(run, "adapter")
        final = FinalRun(run.path, run.load()[2], run.read(TrialResult), run.read_history(), evaluation, run.scores)
        best = as_yaml(choose(view, None))
        shares, timeline = importances(place.store, view.study), read_timeline(place.store, view)
        page = report_page(Asked(view, shares, timeline, final, best, time.time()))
        assert NAME in page
        asked = read_answers(run.scores / "tuned.jsonl")[0]
        (again,) = ask(run, [], [asked.question], PredictionOptions(), place.storage, place.start, place.tell)
        assert again.answer == asked.prediction


def _words(*parts: Any) -> str:
    console = Console(file=io.StringIO(), width=60)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]
