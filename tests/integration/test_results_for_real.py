"""From a trained run to its uses: evaluated, asked, compared and merged, by real models on a real 4-bit base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import InputError
from hpsearch.evaluation import Evaluation
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.jobs import ExportResult
from hpsearch.results.compare import compare_runs
from hpsearch.results.evaluate import EvaluationOptions, evaluate_run
from hpsearch.results.export import Export, ExportOptions
from hpsearch.results.export_folder import export_in
from hpsearch.results.final import RunFolder, train_final
from hpsearch.results.predict import PredictionOptions, ask, predict_file
from hpsearch.results.scoring import read_answers
from hpsearch.spec import load_study
from hpsearch.spec.metrics import METRICS
from hpsearch.train.bases import compute_dtype, find_base
from hpsearch.trial import TrialConfig
from hpsearch.watch.evaluation import evaluation_words
from tests.integration.conftest import ends_as_qwen2_5
from tests.integration.one_trainer import Trainers
from tests.unit.answer_fixtures import read_jsonl, write_jsonl

pytestmark = pytest.mark.slow

STUDY = """\
study: parity
task: text-sft
model: {base: ./base}
data: {source: rows.jsonl, max_tokens: 64, system_prompt: Answer with one word.}
training: {batch_size: 4, gradient_checkpointing: false, learning_rate: 1e-2}
final: {max_steps: 12, reports: 1}
evaluation: {max_new_tokens: 8, metrics: [exact_match, token_f1]}
"""
Messages = list[dict[str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    questions = [(f"Is {number} even or odd?", "odd" if number % 2 else "even") for number in range(80)]
    write_jsonl(folder / "rows.jsonl", [{"question": question, "answer": answer} for question, answer in questions])
    (folder / "study.yaml").write_text(STUDY)
    ends_as_qwen2_5(folder / "base")
    return folder


@pytest.fixture(scope="module")
def storage(place: Path) -> StorageFolder:
    return StorageFolder(place / "storage")


@pytest.fixture(scope="module")
def trainers(place: Path) -> Iterator[Trainers]:
    made = Trainers(place / "trainer.txt")
    yield made
    made.end()


def tell(name: str, done: int, total: int) -> None:
    del name, done, total


def trained(place: Path, storage: StorageFolder, trainers: Trainers, name: str, *overrides: str) -> RunFolder:
    file, folder = load_study(place / "study.yaml", list(overrides)), RunFolder(storage.runs / name)
    flags: dict[str, Any] = {"resume": False, "restart": False}
    train_final(file, folder, storage, trainers.start, StopFlag(), tell, lambda _: None, **flags)
    return folder


@pytest.fixture(scope="module")
def run(place: Path, storage: StorageFolder, trainers: Trainers) -> RunFolder:
    return trained(place, storage, trainers, "parity")


@pytest.fixture(scope="module")
def evaluation(run: RunFolder, storage: StorageFolder, trainers: Trainers) -> Evaluation:
    return evaluate_run(run, EvaluationOptions(limit=8), storage, trainers.start, tell)


def test_base_and_tuned_model_are_scored_on_the_test_rows(run: RunFolder, evaluation: Evaluation) -> None:
    assert [cell.name for cell in evaluation.variants] == ["most frequent answer", "base", "tuned"]
    base, tuned = evaluation.variant("base"), evaluation.variant("tuned")
    assert base.loss is not None
    assert tuned.loss is not None
    assert tuned.loss < base.loss, "a few steps teach the form of an answer"
    assert tuned.num_cut == 0, "answers end where they were taught to end"
    rows = read_answers(run.scores / "tuned.jsonl")
    assert len(rows) == evaluation.num_rows == 8
    said = sum(row.prediction == row.reference for row in rows) / 8
    assert tuned.scores["exact_match"].value >= said


def test_a_question_gets_the_answer_that_the_evaluation_got(
    run: RunFolder, evaluation: Evaluation, storage: StorageFolder, trainers: Trainers
) -> None:
    del evaluation
    base, tuned = (read_answers(run.scores / f"{name}.jsonl")[0] for name in ("base", "tuned"))
    options = PredictionOptions(with_base=True)
    (said,) = ask(run, [], [tuned.question], options, storage, trainers.start, tell)
    assert (said.question, said.answer, said.base) == (tuned.question, tuned.prediction, base.prediction)


@pytest.mark.storm
def test_an_interrupted_file_goes_on_and_comes_out_as_if_it_had_not_been(
    run: RunFolder, place: Path, storage: StorageFolder, trainers: Trainers
) -> None:
    rows = [{"question": f"Is {number} even or odd?"} for number in range(100, 140)]
    source = write_jsonl(place / "in.jsonl", [*rows, {"question": ""}])
    whole, output = place / "whole.jsonl", place / "out.jsonl"
    settings = {"storage": storage, "tell": tell, "force": False}
    with pytest.raises(KeyboardInterrupt):
        predict_file(
            run,
            source,
            output,
            PredictionOptions(batch_size=3),
            start_trainer=trainers.start_and_interrupt,
            **settings,
        )
    assert not output.exists()
    answers = max(run.predictions.glob("*/answers/tuned.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    before = answers.read_bytes()
    assert 3 <= before.count(b"\n") < 40
    done = predict_file(run, source, output, PredictionOptions(batch_size=3), start_trainer=trainers.start, **settings)
    assert answers.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert (done.num_answers, done.errors) == (40, {"empty question": [41]})
    found = read_jsonl(output)
    assert [row["question"] for row in found] == [row["question"] for row in read_jsonl(source)]
    assert any(row["prediction"] for row in found[:40])
    longer = PredictionOptions(batch_size=20, max_new_tokens=9)  # other settings, so all rows are asked again
    predict_file(run, source, whole, longer, start_trainer=trainers.start, **settings)
    assert [row.get("prediction") for row in read_jsonl(whole)] == [row.get("prediction") for row in found]


def test_two_runs_are_compared_on_the_same_rows(
    run: RunFolder, evaluation: Evaluation, place: Path, storage: StorageFolder, trainers: Trainers
) -> None:
    other = trained(place, storage, trainers, "other", "training.learning_rate=1e-6")
    second = evaluate_run(other, EvaluationOptions(limit=8), storage, trainers.start, tell)
    assert second.rows_sha256 == evaluation.rows_sha256
    found = compare_runs([run, other], "none", tell, common=False)
    assert (found.num_rows, [each.leaked for each in found.runs]) == (8, [0, 0])
    gap = found.gap("other", METRICS["exact_match"])
    assert gap is not None
    values = [each.scores["exact_match"].value for each in found.runs]
    assert gap.difference == pytest.approx(values[1] - values[0])


@pytest.fixture(scope="module")
def merged(run: RunFolder, storage: StorageFolder, trainers: Trainers) -> Path:
    Export(run, ExportOptions(to="merged"), storage, trainers.start, tell).run()
    return run.exports / "merged-bfloat16"


def result_of(merged: Path) -> ExportResult:
    record = export_in(merged)
    assert record is not None
    return record.result


def logits(model: Any, tokenizer: Any, config: TrialConfig) -> torch.Tensor:
    """At every token of a prompt, with the libraries' own means."""
    messages: Messages = [
        {"role": "system", "content": str(config.rows.system_prompt)},
        {"role": "user", "content": "Is 7 even or odd?"},
        {"role": "assistant", "content": "odd"},
    ]
    ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        found: torch.Tensor = model(**ids).logits[0]
    return found


def test_the_merged_model_is_base_and_adapter_in_one(run: RunFolder, merged: Path) -> None:
    config = run.load()[2]
    base = find_base(config.model, tell)
    untuned = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).float().eval()
    before = logits(untuned, AutoTokenizer.from_pretrained(base), config)
    tuned = PeftModel.from_pretrained(untuned, str(run.adapter)).eval()
    wanted = logits(tuned, AutoTokenizer.from_pretrained(base), config)
    model = AutoModelForCausalLM.from_pretrained(merged)
    assert model.dtype == torch.bfloat16
    found = logits(model.float().eval(), AutoTokenizer.from_pretrained(merged), config)
    result = result_of(merged)
    assert float((found - wanted).abs().max()) < result.tolerance
    assert float((before - wanted).abs().max()) > 2 * result.tolerance, "the check would notice a lost adapter"
    assert result.share_lost < 0.05
    assert result.reads_alike
    assert result.quantized_agreement is not None


def test_the_merged_folder_is_complete(run: RunFolder, merged: Path) -> None:
    base = Path(find_base(run.load()[2].model, tell))
    names = {file.name for file in base.iterdir()}
    assert names | {"README.md", "hpsearch_export.json"} == {file.name for file in merged.iterdir()}
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (merged / name).read_bytes() == (base / name).read_bytes()
    for folder in (merged, run.adapter):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
        assert GenerationConfig.from_pretrained(folder).eos_token_id == ends, "the base's own, and what was taught"
        assert tokenizer.eos_token == "<|im_end|>", "the one end that llama.cpp's converter reads"
    said = json.loads((merged / "tokenizer_config.json").read_text())
    assert isinstance(said["additional_special_tokens"], list), "as transformers 4 reads it too"
    assert "extra_special_tokens" not in said
    assert "| lora.r | 16 |" in (merged / "README.md").read_text()


def test_ollamas_template_says_what_the_chat_template_says(run: RunFolder, merged: Path) -> None:
    tokenizer, chat = AutoTokenizer.from_pretrained(merged), result_of(merged).chat
    turns = [("Be short.", "one?", "1"), ("", "two?", "2")]
    messages: Messages = [{"role": "system", "content": "Be short."}]
    for _, prompt, answer in turns:
        messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    wanted = tokenizer.apply_chat_template(messages, tokenize=False)
    assert "".join(_as_ollama(chat.template, *turn) for turn in turns) == wanted
    assert chat.stop == ["<|endoftext|>", "<|im_end|>"]
    del run


def _as_ollama(template: str, system: str, prompt: str, response: str) -> str:
    """One turn as Ollama renders it: with one `if .System`."""
    start, rest = template.split("{{ if .System }}")
    with_system, rest = rest.split("{{ else }}")
    without, end = rest.split("{{ end }}")
    text = start + (with_system if system else without) + end
    texts = {".System": system, ".Prompt": prompt, ".Response": response}
    for name, value in texts.items():
        text = text.replace(f"{{{{ {name} }}}}", value)
    return text


def test_the_jobs_used_the_4_bit_base(run: RunFolder, evaluation: Evaluation) -> None:
    del evaluation
    config = JobFolder(run.evaluation.path).job()
    assert config.model.quantization == "nf4"  # type: ignore[union-attr]
    assert compute_dtype(run.load()[2].model) in (torch.float32, torch.bfloat16, torch.float16)


def test_plain_text_is_learned_evaluated_by_its_loss_and_continued(
    place: Path, storage: StorageFolder, trainers: Trainers
) -> None:
    overrides = ("data.columns={text: question}", "evaluation={max_new_tokens: 8}", "final.max_steps=6")
    run = trained(place, storage, trainers, "plain", *overrides)
    found = evaluate_run(run, EvaluationOptions(limit=8), storage, trainers.start, tell)
    assert [(metric.name, metric.direction) for metric in found.metrics] == [("text_loss", "minimize")]
    base, tuned = found.variant("base"), found.variant("tuned")
    assert base.loss is not None
    assert tuned.loss is not None
    assert tuned.loss < base.loss
    assert tuned.scores["text_loss"].value < base.scores["text_loss"].value
    (gap,) = found.gaps
    assert gap.metric.is_better(gap.difference, 0)
    assert "tuned against base: " in evaluation_words(found, run.scores)
    with pytest.raises(InputError, match="text rows have no answers to measure"):
        evaluate_run(run, EvaluationOptions(metrics=["rouge1"]), storage, trainers.start, tell)
    (said,) = ask(run, [], ["Is 7 even"], PredictionOptions(), storage, trainers.start, tell)
    assert said.question == "Is 7 even"
    assert said.answer.startswith("or"), "it goes on as the texts do"
