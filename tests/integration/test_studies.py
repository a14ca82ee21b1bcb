"""The shipped study files, each on its tiny twin, all else as shipped; and real data from a study file alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

from hpsearch.folders import TrialFolder
from hpsearch.spec import load_study
from hpsearch.trial import Outcome, TrialConfig, TrialResult
from tests.conftest import REPOSITORY, SHARED_DATA
from tests.integration.conftest import hpsearch

STUDIES = sorted((REPOSITORY / "studies").glob("*.yaml"))


def test_every_shipped_study_loads() -> None:
    names = [load_study(file).spec.study for file in STUDIES]
    assert names == [file.stem for file in STUDIES]
    assert len(names) == 10


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


def finished_trials(study: str) -> list[tuple[TrialConfig, TrialResult]]:
    folders = [TrialFolder(path) for path in sorted(Path("storage/trials", study).iterdir())]
    pairs = [(folder.job(), folder.read(TrialResult)) for folder in folders]
    return [(config, result) for config, result in pairs if isinstance(config, TrialConfig)]


@pytest.mark.slow
def test_medgemma_on_kvasir_runs_on_its_tiny_twin(workplace: Path) -> None:
    file = REPOSITORY / "studies" / "medgemma_kvasir_vqa.yaml"
    code, said = hpsearch(
        "run",
        str(file),
        "--trials",
        "2",
        "--set",
        "model.base=tiny:gemma3",
        "--set",
        f"data.source={kvasir(workplace)}",
    )
    assert code == 0, said
    assert '20 × answer is "nan"' in said
    trials = finished_trials("medgemma_kvasir_vqa")
    assert [result.outcome for _, result in trials] == [Outcome.COMPLETE] * 2
    first = trials[0][0]
    assert first.rows.image_size == (896, 896)
    assert first.lora.target_modules == ["up_proj", "down_proj", "gate_proj"]
    assert first.training.learning_rate == 2e-5, "the first trial has the file's own values"
    assert first.training.gradient_checkpointing


@pytest.mark.slow
def test_qwen_on_medical_questions_runs_on_its_tiny_twin(workplace: Path) -> None:
    file = REPOSITORY / "studies" / "qwen2.5_medical_qa.yaml"
    source = f"data.source={flashcards(workplace)}"
    code, said = hpsearch("run", str(file), "--trials", "2", "--set", "model.base=tiny:qwen2", "--set", source)
    assert code == 0, said
    assert [result.outcome for _, result in finished_trials("qwen2.5_medical_qa")] == [Outcome.COMPLETE] * 2


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_breast_cancer_runs_as_shipped() -> None:
    code, said = hpsearch("run", str(REPOSITORY / "studies" / "breast_cancer_qa.yaml"), "--trials", "2")
    assert code == 0, said
    for _, result in finished_trials("breast_cancer_qa"):
        first, *_, last = [report.loss for report in result.reports]
        assert last < 0.6 * first, "it learns to say malignant and benign"


MEDQUAD = """\
study: medquad
task: text-sft
model: {base: "tiny:qwen2"}
data:
  source: SOURCE
  columns: {question: question, answer: answer, group: doc, id: id}
  max_tokens: 200
training: {batch_size: 8, gradient_accumulation_steps: 1, gradient_checkpointing: false}
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
training: {batch_size: 8, gradient_accumulation_steps: 1, gradient_checkpointing: false}
budget: {max_steps: 4, reports: 2, validation_fraction: 0.2}
search:
  trials: 2
  space: {training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""


@pytest.mark.slow
@pytest.mark.needs_shared_data
@pytest.mark.parametrize(
    ("text", "data", "words"),
    [
        (MEDQUAD, "medquad/medquad.jsonl", ["48 × duplicate of another row", "× longer than 200 tokens", "careful:"]),
        (BCCD, "bccd/bccd_vqa.jsonl", ["rows: train 820, test 288, validation 348"]),
    ],
)
def test_real_data_runs_from_a_study_file_alone(workplace: Path, text: str, data: str, words: list[str]) -> None:
    source = SHARED_DATA / data
    if not source.exists():
        pytest.skip(f"{source} is not there")
    file = workplace / "study.yaml"
    file.write_text(text.replace("SOURCE", str(source)))
    code, said = hpsearch("run", str(file))
    assert code == 0, said
    for word in words:
        assert word in said
    assert "2 complete" in said
