"""The shipped study files, each on its tiny twin, all else as shipped; and real data from a study file alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

from hpsearch.spec import load_study
from tests.conftest import REPOSITORY, SHARED_DATA
from tests.integration.conftest import Driver, hpsearch
from tests.integration.workplaces import Workplace

STUDIES = sorted((REPOSITORY / "studies").glob("*.yaml"))


def test_every_shipped_study_loads() -> None:
    names = [load_study(file).spec.study for file in STUDIES]
    assert names == [file.stem for file in STUDIES]
    assert len(names) == 13


def kvasir(folder: Path) -> Path:
    """Rows with the columns of SimulaMet-HOST/Kvasir-VQA, the string "nan" among the answers."""
    answers = ["none", "polyp", "nan", "yes", "no", "1"]
    rows = [
        {
            "image": Pillow.new("RGB", (90, 70), (i, 2 * i, 100)),
            "source": ("Polyps", "Normal")[i % 2],
            "question": f"Are there any findings in image {i}?",
            "answer": answers[i % len(answers)],
            "img_id": f"image{i // 2}",
        }
        for i in range(120)
    ]
    features = Features(
        image=Image(), source=Value("string"), question=Value("string"), answer=Value("string"), img_id=Value("string")
    )
    Dataset.from_list(rows, features=features).save_to_disk(str(folder / "kvasir"))
    return folder / "kvasir"


def flashcards(folder: Path) -> Path:
    """Rows with the columns of medalpaca/medical_meadow_medical_flashcards."""
    file = folder / "flashcards.jsonl"
    rows = [
        {"input": f"What is compound {i}?", "output": f"It is acid number {i}.", "instruction": "Answer truthfully"}
        for i in range(200)
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def abstracts(folder: Path) -> Path:
    """Rows with the columns of qiaojin/PubMedQA, pqa_labeled."""
    rows = [
        {
            "pubid": 21645374 + i,
            "question": f"Does compound {i} help?",
            "context": {
                "contexts": [f"Compound {i} was given.", "It helped." if i % 2 else "It did not."] if i % 10 else [],
                "labels": ["METHODS", "RESULTS"],
                "meshes": ["Humans"],
            },
            "long_answer": "It depends.",
            "final_decision": ("no", "yes", "maybe")[i % 3],
        }
        for i in range(45)
    ]
    Dataset.from_list(rows).save_to_disk(str(folder / "abstracts"))
    return folder / "abstracts"


@pytest.fixture
def place(driver: Driver, tmp_path: Path) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path, driver.process)
    yield workplace
    workplace.close()


@pytest.mark.slow
def test_medgemma_on_kvasir_runs_on_its_tiny_twin(place: Workplace) -> None:
    source = f"data.source={kvasir(place.folder)}"
    view, first, _ = place.search("medgemma_kvasir_vqa", "tiny:gemma3", source, trials=2)
    assert [trial.outcome for trial in view.trials] == ["complete"] * 2
    assert len(place.manifest("medgemma_kvasir_vqa").left_out['answer is "nan"']) == 20
    assert first.rows.image_size == (896, 896)
    assert first.lora.target_modules == ["up_proj", "down_proj", "gate_proj"]
    assert first.training.learning_rate == 2e-5, "the first trial has the file's own values"
    assert first.training.gradient_checkpointing


@pytest.mark.slow
def test_qwen_on_medical_questions_runs_on_its_tiny_twin(place: Workplace) -> None:
    source = f"data.source={flashcards(place.folder)}"
    view, _, _ = place.search("qwen2.5_medical_qa", "tiny:qwen2", source, trials=2)
    assert [trial.outcome for trial in view.trials] == ["complete"] * 2


@pytest.mark.slow
def test_qwen_on_abstracts_runs_on_its_tiny_twin(place: Workplace) -> None:
    """With few-shot examples, as the comment in the file says."""
    source = f"data.source={abstracts(place.folder)}"
    view, first, result = place.search("qwen2.5_pubmed_qa", "tiny:qwen2", source, "data.examples=2")
    assert [trial.outcome for trial in view.trials] == ["complete"]
    assert result.num_steps > 0
    rows = list(Dataset.load_from_disk(str(first.train_rows)))
    questions = {row["messages"][0]["content"] for row in rows}
    assert any(" was given.\n\nIt helped.\n\nAnswer yes" in text for text in questions)
    assert all(len(row["examples"]) == 4 for row in rows)
    manifest = place.manifest("qwen2.5_pubmed_qa")
    assert sum(map(len, manifest.splits.values())) == 45
    assert set(manifest.labels["test"]) == {"maybe", "no", "yes"}


@pytest.mark.slow
def test_preferences_are_searched(place: Workplace) -> None:
    """The shipped search, on few rows of text: all images of the shipped rows take a while."""
    rows = [{"q": f"Is {number} a number?", "good": "yes", "bad": "no"} for number in range(40)]
    (place.folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = (
        "task=text-preference",
        f"data.source={place.folder / 'pairs.jsonl'}",
        "data.columns={question: q, chosen: good, rejected: bad}",
        "budget.max_steps=3",
        "budget.reports=1",
    )
    view, first, result = place.search("preference", "tiny:qwen2", *text, trials=2)
    assert [trial.outcome for trial in view.trials] == ["complete"] * 2
    assert (first.answers.preference.loss, first.answers.preference.beta) == ("sigmoid", 0.1)
    (report,) = result.reports
    assert report.metrics.keys() == {"ranking_accuracy"}
    assert view.trials[0].params["preference.beta"] != view.trials[1].params["preference.beta"]


@pytest.mark.slow
@pytest.mark.storm
def test_breast_cancer_runs_as_shipped(place: Workplace) -> None:
    view, _, _ = place.search("breast_cancer_qa", "tiny:qwen2", trials=2)
    for trial in view.trials:
        first, *_, last = trial.reports.values()
        assert last < 0.6 * first, "it learns to say malignant and benign"


MEDQUAD = """\
study: medquad
task: text-sft
model: {base: "tiny:qwen2"}
data:
  source: SOURCE
  prompt: "{question}[ (asked of {source})]"
  columns: {answer: answer, group: doc, id: id}
  max_tokens: 200
training: {batch_size: 8, gradient_checkpointing: false}
budget: {max_steps: 4, reports: 2, validation_fraction: 0.2}
search:
  trials: 2
  space: {training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""

BCCD = """\
study: bccd
task: vlm-sft
model: {base: "tiny:gemma3"}
data:
  source: SOURCE
  columns: {image: image, question: question, answer: answer, group: group, label: answer}
  image_size: [28, 28]
  max_tokens: 96
  split: {column: split, validation: val}
lora: {vision: true}
training: {batch_size: 8, gradient_checkpointing: false}
budget: {max_steps: 4, reports: 2, validation_fraction: 0.2}
search:
  trials: 2
  space: {training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""


def real_data(text: str, data: str, folder: Path) -> Path:
    """A study file on real data, and nothing else."""
    source = SHARED_DATA / data
    if not source.exists():
        pytest.skip(f"{source} is not there")
    file = folder / "study.yaml"
    file.write_text(text.replace("SOURCE", str(source)))
    return file


@pytest.mark.slow
@pytest.mark.needs_shared_data
@pytest.mark.storm
def test_real_questions_run_from_a_study_file_alone(workplace: Path) -> None:
    code, said = hpsearch("run", str(real_data(MEDQUAD, "medquad/medquad.jsonl", workplace)))
    assert code == 0, said
    for word in ["48 × duplicate of another row", "× longer than 200 tokens", "careful:", "2 complete"]:
        assert word in said


@pytest.mark.slow
@pytest.mark.needs_shared_data
def test_real_photographs_run_from_a_study_file_alone(place: Workplace) -> None:
    place.run(load_study(real_data(BCCD, "bccd/bccd_vqa.jsonl", place.folder)))
    assert [trial.outcome for trial in place.view("bccd").trials] == ["complete"] * 2
    rows = {split: len(rows) for split, rows in place.manifest("bccd").splits.items()}
    assert rows == {"train": 820, "test": 288, "validation": 348}
