"""A study of preferences from its file to its uses: looked at, trained, evaluated, asked and merged, for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hpsearch.bridge.stopping import StopFlag
from hpsearch.evaluation import Evaluation
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.results.card import model_card
from hpsearch.results.evaluate import EvaluationOptions, evaluate_run
from hpsearch.results.export import Export, ExportOptions
from hpsearch.results.final import RunFolder, train_final
from hpsearch.results.predict import PredictionOptions, ask
from hpsearch.results.scoring import read_answers
from hpsearch.spec import load_study
from hpsearch.study.prepare import prepare_study
from tests.integration.one_trainer import Trainers
from tests.unit.answer_fixtures import read_jsonl, write_jsonl

pytestmark = pytest.mark.slow

STUDY = """\
study: polite
task: text-preference
model: {base: "tiny:qwen2"}
data: {source: rows.jsonl, columns: {question: ask, chosen: good, rejected: bad}, max_tokens: 40}
preference: {beta: 0.2}
training: {batch_size: 4, gradient_checkpointing: false, learning_rate: 2e-3}
objective: [ranking_accuracy, loss]
final: {max_steps: 12, reports: 2}
evaluation: {max_new_tokens: 4}
"""


def tell(name: str, done: int, total: int) -> None:
    del name, done, total


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("polite")
    rows = [{"ask": f"Is {number} a number?", "good": "yes", "bad": "no"} for number in range(120)]
    rows += [{"ask": "Is it so?", "good": "yes", "bad": "yes"}, {"ask": "Is it?", "good": "yes", "bad": "no " * 40}]
    write_jsonl(folder / "rows.jsonl", rows)
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def trainers(place: Path) -> Iterator[Trainers]:
    made = Trainers(place / "trainer.txt")
    yield made
    made.end()


@pytest.fixture(scope="module")
def storage(place: Path) -> StorageFolder:
    return StorageFolder(place / "storage")


@pytest.fixture(scope="module")
def run(place: Path, storage: StorageFolder, trainers: Trainers) -> RunFolder:
    folder = RunFolder(storage.runs / "polite")
    flags: dict[str, Any] = {"resume": False, "restart": False}
    train_final(
        load_study(place / "study.yaml"), folder, storage, trainers.start, StopFlag(), tell, lambda _: None, **flags
    )
    return folder


@pytest.fixture(scope="module")
def evaluation(run: RunFolder, storage: StorageFolder, trainers: Trainers) -> Evaluation:
    return evaluate_run(run, EvaluationOptions(), storage, trainers.start, tell)


def test_both_answers_count_for_a_row_s_length_and_are_shown(
    place: Path, storage: StorageFolder, trainers: Trainers
) -> None:
    prepared = prepare_study(load_study(place / "study.yaml"), storage, trainers.start, tell, num_examples=1)
    assert prepared.manifest.left_out == {"chosen equals rejected": ["120"], "longer than 40 tokens": ["121"]}
    (example,) = prepared.examples
    assert example.pieces[-1].text.startswith("yes")
    assert example.rejected[-1].text.startswith("no")
    assert (example.pieces[-1].is_learned, example.rejected[-1].is_learned) == (True, True)


def test_the_untuned_base_is_ranked_and_the_tuned_model_is_rewarded(run: RunFolder, evaluation: Evaluation) -> None:
    assert [variant.name for variant in evaluation.variants] == ["base", "tuned"], "there is nothing to guess"
    base, tuned = evaluation.variant("base"), evaluation.variant("tuned")
    assert list(base.scores) == ["ranking_accuracy"]
    assert list(tuned.scores) == ["ranking_accuracy", "reward_accuracy", "reward_margin"]
    assert tuned.scores["ranking_accuracy"].value > base.scores["ranking_accuracy"].value
    assert tuned.scores["reward_margin"].low is not None
    assert base.loss is None
    assert tuned.loss is not None
    (gap,) = evaluation.gaps
    assert (gap.name, gap.than, gap.metric.name) == ("tuned", "base", "ranking_accuracy")
    said = read_answers(run.scores / "tuned.jsonl")
    assert {row.reference for row in said} == {"yes"}
    assert any(row.prediction for row in said), "it is asked, too"
    assert read_jsonl(run.scores / "base.jsonl")[0]["numbers"].keys() == {"ranking_accuracy"}


def test_it_answers_questions_and_ends_where_it_was_taught_to(
    run: RunFolder, evaluation: Evaluation, storage: StorageFolder, trainers: Trainers
) -> None:
    del evaluation
    row = read_answers(run.scores / "tuned.jsonl")[0]
    (said,) = ask(run, [], [row.question], PredictionOptions(), storage, trainers.start, tell)
    assert said.answer == row.prediction
    assert (run.adapter / "generation_config.json").exists()


def test_its_card_and_its_merged_weights_are_those_of_a_language_model(
    run: RunFolder, evaluation: Evaluation, storage: StorageFolder, trainers: Trainers
) -> None:
    del evaluation
    card = model_card(run, "adapter")
    assert "pipeline_tag: text-generation" in card
    assert "type: ranking_accuracy" in card
    assert "| preference.beta | 0.2 |" in card
    assert "head.hidden" not in card
    Export(run, ExportOptions(to="merged"), storage, trainers.start, tell).run()
    assert (run.exports / "merged-bfloat16" / "model.safetensors").exists()


def test_the_rows_of_a_trial_have_the_other_answer(run: RunFolder) -> None:
    config = JobFolder(run.path).job()
    rows = Dataset.load_from_disk(str(config.train_rows))  # type: ignore[union-attr]
    assert set(rows["rejected"]) == {"no"}


def test_texts_are_compared_where_that_is_asked(
    run: RunFolder, evaluation: Evaluation, storage: StorageFolder, trainers: Trainers
) -> None:
    del evaluation
    found = evaluate_run(run, EvaluationOptions(metrics=["token_f1"]), storage, trainers.start, tell)
    assert [variant.name for variant in found.variants] == ["most frequent answer", "base", "tuned"]


def test_a_scored_row_has_the_other_answer(run: RunFolder, evaluation: Evaluation) -> None:
    del evaluation
    rows = read_answers(run.scores / "tuned.jsonl")
    assert {row.rejected for row in rows} == {"no"}
