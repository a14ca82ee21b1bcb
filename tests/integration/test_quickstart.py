"""The quickstart, as `make run` runs it: the tuned model must beat its base where nobody has looked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from hpsearch.evaluation import Evaluation
from hpsearch.jobs import AnsweredRow
from hpsearch.spec import load_study
from tests.conftest import REPOSITORY
from tests.integration.conftest import hpsearch

NUM_TRIALS = 2


def make_run_commands() -> list[list[str]]:
    """The Makefile's hpsearch commands in `run`, word by word."""
    recipe = re.search(r"^run: .*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    lines = [line.split() for line in recipe.group(1).strip().splitlines()]
    return [words for first, *words in lines if first == "$(HPSEARCH)"]


@pytest.mark.storm
def test_make_run_finds_trains_and_tests_a_better_model(workplace: Path) -> None:
    (workplace / "studies").symlink_to(REPOSITORY / "studies")
    search, best, train, evaluate = make_run_commands()
    search = [*search, "--trials", str(NUM_TRIALS)]
    for command in (search, best, train, evaluate):
        code, said = hpsearch(*command)
        assert code == 0, said

    run_folder = Path(evaluate[1])
    result = Evaluation.model_validate_json((run_folder / "scores" / "scores.json").read_text())
    assert result.num_rows == 359
    base, tuned = result.variant("base"), result.variant("tuned")
    assert tuned.scores["exact_match_raw"].value >= 0.80
    assert tuned.scores["exact_match_raw"].value >= base.scores["exact_match_raw"].value + 0.30
    assert tuned.loss is not None
    assert base.loss is not None
    assert tuned.loss < base.loss
    assert f"{tuned.scores['exact_match'].value:.1%}" in said

    _the_test_rows_were_nowhere_before(run_folder)
    _the_adapter_loads_in_stock_peft(run_folder)
    _again_nothing_is_left_to_do(search, train, evaluate)


def _the_test_rows_were_nowhere_before(run_folder: Path) -> None:
    """No trial's config, nor the final run's, names the folder of test rows."""
    configs = [*Path("storage/trials").glob("quickstart-*/*/attempt-1/config.json"), run_folder / "config.json"]
    assert len(configs) == NUM_TRIALS + 1
    for file in configs:
        config = json.loads(file.read_text())
        assert "test" not in {Path(config["train_rows"]).name, Path(config["validation_rows"]).name}
    assert "test" in json.loads((run_folder / "evaluation" / "config.json").read_text())["test_rows"]


def _the_adapter_loads_in_stock_peft(run_folder: Path) -> None:
    """Without a line of hpsearch: transformers loads the base, PEFT the adapter, and the answers are the same."""
    adapter = json.loads((run_folder / "adapter" / "adapter_config.json").read_text())
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForImageTextToText.from_pretrained(adapter["base_model_name_or_path"], quantization_config=nf4)
    model = PeftModel.from_pretrained(base, str(run_folder / "adapter")).eval()
    processor = AutoProcessor.from_pretrained(str(run_folder / "adapter"))
    from sklearn.datasets import load_digits

    from hpsearch.data.bundled import digits

    images = digits()["image"]
    lines = (run_folder / "evaluation" / "tuned.jsonl").read_text().splitlines()
    rows = [AnsweredRow.model_validate_json(line) for line in lines[:20]]
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": rows[0].question}]}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    small = [[images[int(row.id)].resize((28, 28), 1)] for row in rows]
    inputs = processor(text=[text] * len(rows), images=small, return_tensors="pt", add_special_tokens=False)
    generated = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    said = processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    agree = sum(text.strip() == row.prediction for text, row in zip(said, rows, strict=True))
    assert agree == len(rows)
    assert load_digits().target[int(rows[0].id)] == int(rows[0].reference or -1)


def _again_nothing_is_left_to_do(search: list[str], train: list[str], evaluate: list[str]) -> None:
    code, said = hpsearch(*search)
    assert code == 0
    assert "quickstart is finished" in said
    assert "starting the trainer" not in said
    code, said = hpsearch(*train)
    assert code == 0
    assert said.startswith("already trained")
    code, said = hpsearch(*evaluate)
    assert code == 0
    assert "starting the trainer" not in said


def test_the_quickstart_needs_no_gpu_no_hub_and_no_server() -> None:
    spec = load_study(REPOSITORY / "studies" / "quickstart.yaml").spec
    assert spec.searched.trials == 16
    assert (spec.model.base, spec.model.quantization, spec.data.source) == ("tiny:gemma3", "nf4", "sklearn:digits")
