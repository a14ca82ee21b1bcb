"""Classification of real microscopy crops from a study file: cells on photographs that no run has seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import SHARED_DATA
from tests.integration.conftest import hpsearch

STUDY = """\
study: crops
task: vlm-classify
model: {base: "tiny:qwen2.5-vl"}
data:
  source: SOURCE
  columns: {image: image, label: label, group: group}
  prompt: Which kind of blood cell is this?
  image_size: [28, 28]
  split: {train: 0.7, validation: 0.15, test: 0.15}
lora: {r: 16, alpha: 32, dropout: 0.0, vision: true}
head: {hidden: 64, balance_beta: 0.999}
training:
  learning_rate: 1e-3
  batch_size: 16
  gradient_checkpointing: false
objective: balanced_accuracy
final: {max_steps: 80, reports: 1, validation_fraction: 0.2}
search:
  trials: 1
  space: {training.learning_rate: [1e-3]}
"""


@pytest.mark.slow
@pytest.mark.needs_shared_data
@pytest.mark.storm
def test_it_beats_the_most_frequent_cell_by_far_on_unseen_photographs(workplace: Path) -> None:
    """Other seeds reached between 73 and 82 percent after 80 steps; always giving one class has 33."""
    source = SHARED_DATA / "bccd" / "bccd_crops.jsonl"
    if not source.exists():
        pytest.skip(f"{source} is not there")
    file = workplace / "crops.yaml"
    file.write_text(STUDY.replace("SOURCE", str(source)))
    code, said = hpsearch("train", str(file), "--no-search", "--out", "run")
    assert code == 0, said
    code, said = hpsearch("evaluate", "run")
    assert code == 0, said
    scores = json.loads(Path("run/scores/scores.json").read_text())
    cells = {cell["name"]: cell for cell in scores["variants"]}
    accuracy = {name: cell["scores"]["balanced_accuracy"]["value"] for name, cell in cells.items()}
    assert accuracy["most frequent answer"] == pytest.approx(1 / 3)
    assert accuracy["tuned"] >= accuracy["most frequent answer"] + 0.25
    assert accuracy["tuned"] > accuracy["base"]
    assert [len(row) for row in cells["tuned"]["confusion"]["matrix"]] == [4, 4, 4]
    supports = {found["label"]: found["support"] for found in cells["tuned"]["classes"]}
    assert set(supports) == {"red blood cell", "white blood cell", "platelet"}
    assert sum(supports.values()) == scores["num_rows"]
    for cell in ("base", "tuned"):
        rows = [json.loads(line) for line in Path(f"run/scores/{cell}.jsonl").read_text().splitlines()]
        assert {row["prediction"] for row in rows} <= set(supports)
