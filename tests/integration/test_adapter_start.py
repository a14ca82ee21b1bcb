"""Going on from an adapter: a second stage on the 4-bit base begins where the first one ended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from hpsearch.adapter import WEIGHTS, checksum, read_adapter
from hpsearch.errors import FieldError, StudyFileErrors
from hpsearch.folders import JobFolder
from hpsearch.jobs import EvaluationConfig, Variant
from hpsearch.results.card import model_card
from hpsearch.results.evaluate import EvaluationOptions, evaluate_run
from hpsearch.results.final import RunFolder
from hpsearch.spec import load_study
from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.adapters import REFERENCE, attach, begin_again, keep_reference, reopen, save_adapter
from hpsearch.train.bases import load_config
from hpsearch.train.evaluation import evaluate
from hpsearch.train.inspection import _linear_layers
from hpsearch.train.tasks import TASKS
from hpsearch.trial import AnswersConfig, Outcome, TrialConfig, TrialResult
from tests.integration.conftest import changed, text_config
from tests.integration.inside import Answering, Inside, InsideTrainer
from tests.integration.preference_fixtures import CHAT
from tests.integration.workplaces import Workplace

Rows = tuple[Path, Path]
STANDSTILL = 1e-12
"""A learning rate at which no float32 weight moves."""


@pytest.fixture(scope="module")
def first(text_rows: Rows, inside: Inside, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialResult, Path]:
    """A whole fine-tuning of targets of its own, and its adapter."""
    folder = tmp_path_factory.mktemp("first")
    config = text_config(text_rows, is_final=True, lora=LoraSpec(r=4, alpha=12, target_modules=["q_proj", "up_proj"]))
    return inside.run(folder, changed(config, training__learning_rate=2e-2)), folder / "adapter"


def second(rows: Rows, adapter: Path, **changes: object) -> TrialConfig:
    return changed(text_config(rows, lora=LoraSpec(r=4, alpha=12, dropout=0.0)), model__adapter=str(adapter), **changes)


def test_it_begins_at_the_loss_that_the_first_one_ended_with(
    text_rows: Rows, inside: Inside, first: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    """trl rounds the weights that a trainer finds to bfloat16; the adapter's come back after it."""
    ended = min(report.loss for report in first[0].reports)
    still = second(text_rows, first[1], training__learning_rate=STANDSTILL, budget=BudgetSpec(max_steps=1, reports=1))
    result = inside.run(tmp_path / "still", still)
    assert result.reports[0].loss == pytest.approx(ended, rel=1e-7)
    assert result.ledger is not None
    assert result.ledger.closes, result.ledger.not_given_back


def test_it_goes_on_and_keeps_the_adapter_s_own_shape(
    text_rows: Rows, inside: Inside, first: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    config = second(text_rows, first[1], is_final=True, training__learning_rate=1e-2)
    result = inside.run(tmp_path / "second", config)
    assert result.reports[-1].loss < min(report.loss for report in first[0].reports)
    assert result.trainable_parameters == first[0].trainable_parameters
    found = json.loads((tmp_path / "second/adapter/adapter_config.json").read_text())
    assert (found["r"], found["lora_alpha"], found["lora_dropout"]) == (4, 12, 0.0)
    assert sorted(found["target_modules"]) == ["q_proj", "up_proj"]
    assert result.ledger is not None
    assert result.ledger.closes, result.ledger.not_given_back


def test_an_interrupted_second_stage_goes_on_with_its_own_weights(
    text_rows: Rows, inside: Inside, first: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    config = second(text_rows, first[1])
    whole = inside.run(tmp_path / "whole", config)
    assert inside.run(tmp_path / "attempt", config, stops_after=1).outcome is Outcome.STOPPED
    assert inside.run(tmp_path / "attempt", config).reports == whole.reports


def test_the_base_stays_warm_whatever_a_training_goes_on_from(inside: Inside, first: tuple[TrialResult, Path]) -> None:
    alone = ModelSpec(base="tiny:qwen2")
    base = inside.bases.get(TASKS["text-sft"], alone)
    assert inside.bases.get(TASKS["text-sft"], alone.model_copy(update={"adapter": str(first[1])})) is base


class TestReference:
    def test_it_says_what_the_adapter_said_however_that_is_trained(
        self, inside: Inside, first: tuple[TrialResult, Path], tmp_path: Path
    ) -> None:
        spec = ModelSpec(base="tiny:qwen2", adapter=str(first[1]))
        base = inside.bases.get(TASKS["text-sft"], spec)
        before = logits(PeftModel.from_pretrained(base.fresh_model(), str(first[1])).eval())
        model = attach(base.fresh_model(), LoraSpec(dropout=0.5), spec)
        keep_reference(model)
        assert {name for name, value in model.named_parameters() if value.requires_grad and REFERENCE in name} == set()
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad:
                    value += 0.5
        assert not torch.equal(logits(model.eval()), before)
        model.set_adapter(REFERENCE)
        assert torch.equal(logits(model.eval()), before)
        model.set_adapter("default")
        save_adapter(model, tmp_path / "saved")
        assert {path.name for path in (tmp_path / "saved").iterdir()} == {"adapter_config.json", WEIGHTS}
        begin_again(model)
        assert torch.equal(logits(model.eval()), before)

    def test_a_tuned_model_that_is_asked_has_that_of_its_training(
        self, inside: Inside, first: tuple[TrialResult, Path], tmp_path: Path
    ) -> None:
        spec = ModelSpec(base="tiny:qwen2", adapter=str(first[1]))
        base = inside.bases.get(TASKS["text-sft"], spec)
        tuned = tmp_path / "tuned"
        shutil.copytree(first[1], tuned)
        weights = load_file(tuned / WEIGHTS)
        save_file({name: value + 0.5 for name, value in weights.items()}, tuned / WEIGHTS)
        model = reopen(base.fresh_model(), tuned, spec).eval()
        keep_reference(model)
        model.set_adapter(REFERENCE)
        assert torch.equal(logits(model), logits(PeftModel.from_pretrained(base.fresh_model(), str(first[1])).eval()))

    def test_a_new_adapter_has_none(self, inside: Inside) -> None:
        spec = ModelSpec(base="tiny:qwen2")
        model = attach(inside.bases.get(TASKS["text-sft"], spec).fresh_model(), LoraSpec(), spec)
        keep_reference(model)
        assert list(model.peft_config) == ["default"]

    def test_checkpoints_and_the_final_adapter_go_without_it(
        self,
        text_rows: Rows,
        inside: Inside,
        first: tuple[TrialResult, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("hpsearch.train.tasks.generation.Generation.extend", lambda _, model: keep_reference(model))
        config = second(text_rows, first[1], is_final=True)
        with_it = inside.run(tmp_path / "run", config)
        assert list(tmp_path.rglob(REFERENCE)) == []
        assert inside.run(tmp_path / "again", config, stops_after=1).outcome is Outcome.STOPPED
        assert inside.run(tmp_path / "again", config).reports == with_it.reports
        assert with_it.total_parameters == first[0].total_parameters
        assert with_it.ledger is not None
        assert with_it.ledger.closes, with_it.ledger.not_given_back


def logits(model: PeftModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25).unsqueeze(0)).logits  # type: ignore[no-any-return]


class TestWhatDoesNotFit:
    def test_another_base_is_reported_with_both_names_before_anything_is_trained(
        self, first: tuple[TrialResult, Path]
    ) -> None:
        """By the inspection, from the shapes alone."""
        other = ModelSpec(base="tiny:gemma3", adapter=str(first[1]))
        fitting = ModelSpec(base="tiny:qwen2", adapter=str(first[1]))
        tell = Answering().tell
        with pytest.raises(FieldError, match=r"adapter \(an adapter of .*qwen2.*\) does not fit tiny:gemma3: "):
            _linear_layers(TASKS["vlm-sft"].model_class, other, load_config(other, tell))
        assert "q_proj" in _linear_layers(TASKS["text-sft"].model_class, fitting, load_config(fitting, tell))

    @pytest.mark.parametrize("kind", ["a layer less", "a layer more"])
    def test_layers_that_differ(
        self, inside: Inside, first: tuple[TrialResult, Path], tmp_path: Path, kind: str
    ) -> None:
        folder = tmp_path / "adapter"
        shutil.copytree(first[1], folder)
        weights = load_file(folder / WEIGHTS)
        name = next(iter(weights))
        if kind == "a layer less":
            weights.pop(name)
        else:
            weights[name.replace("layers.0", "layers.9")] = weights[name].clone()
        save_file(weights, folder / WEIGHTS)
        spec = ModelSpec(base="tiny:qwen2", adapter=str(folder))
        with pytest.raises(FieldError, match=r"does not fit tiny:qwen2: 1 layers differ, such as base_model"):
            attach(inside.bases.get(TASKS["text-sft"], spec).fresh_model(), LoraSpec(), spec)

    def test_one_that_changed_since_the_study_began_fails_the_trial_in_words(
        self, text_rows: Rows, inside: Inside, first: tuple[TrialResult, Path], tmp_path: Path
    ) -> None:
        folder = tmp_path / "adapter"
        shutil.copytree(first[1], folder)
        config = second(text_rows, folder, model__adapter_sha256=checksum(folder))
        (folder / "adapter_config.json").write_text((folder / "adapter_config.json").read_text() + "\n")
        trial = JobFolder(tmp_path / "trial")
        trial.prepare(config)
        result = inside.attempt(Answering(), trial, config)
        assert result.outcome is Outcome.FAILED
        assert "has changed since the study began" in str(result.reason)
        assert result.ledger is not None
        assert result.ledger.closes, result.ledger.not_given_back


STUDY = """\
study: NAME
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: texts.jsonl, columns: {question: text, answer: kind}, max_tokens: 64}
training: {batch_size: 8, learning_rate: 1e-2}
budget: {max_steps: 2, reports: 1}
final: {max_steps: 4, reports: 1}
search: {trials: 1, space: {training.learning_rate: [1e-3, 1e-2]}}
"""


def test_a_study_goes_on_from_the_run_of_another(inside: Inside, tmp_path: Path) -> None:
    """By its name, from the study file to the final run, with all that is looked at before."""
    place = Workplace(tmp_path, InsideTrainer(inside))
    rows = [{"text": f"Is {number} even or odd?", "kind": "odd" if number % 2 else "even"} for number in range(40)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, adapter in (("first", None), ("second", "first")):
        (tmp_path / f"{name}.yaml").write_text(STUDY.replace("NAME", name))
        file = load_study(tmp_path / f"{name}.yaml", [f"model.adapter={adapter}"] if adapter else ["lora.r=4"])
        place.run(file)
        result = place.train(name)
        assert result.ledger is not None
        assert result.ledger.closes, result.ledger.not_given_back
    first, second = (RunFolder(place.storage.runs / name) for name in ("first", "second"))
    config = second.load()[2]
    assert (config.model.adapter, config.model.adapter_sha256) == (str(first.adapter), checksum(first.adapter))
    assert config.lora == first.load()[2].lora
    assert place.view("second").trials[0].reports[1] < place.view("first").trials[0].reports[1]
    evaluation = evaluate_run(second, EvaluationOptions(limit=4), place.storage, place.start, place.tell)
    assert evaluation.variant("tuned").loss < evaluation.variant("base").loss  # type: ignore[operator]
    assert "from the adapter `first`" in model_card(second, "adapter")
    other = load_study(tmp_path / "second.yaml", ["study=third", "model.adapter=first", "model.base=tiny:gemma3"])
    with pytest.raises(StudyFileErrors, match=r"model.adapter: .* is an adapter of tiny:qwen2, not of tiny:gem"):
        place.open(other)
    place.close()


@pytest.mark.parametrize("vision", [True, False])
def test_an_adapter_of_a_vision_language_model(inside: Inside, image_rows: Rows, tmp_path: Path, vision: bool) -> None:
    lora = LoraSpec(r=4, vision=vision)
    config = text_config(image_rows, task="vlm-sft", model__base="tiny:qwen2.5-vl", lora=lora, is_final=True)
    config = changed(config, budget=BudgetSpec(max_steps=2, reports=1))
    ended = inside.run(tmp_path / "first", config)
    assert read_adapter(tmp_path / "first/adapter").lora == lora
    plain = read_adapter(Path(shutil.copytree(tmp_path / "first/adapter", tmp_path / "plain"))).lora
    assert (plain.r, plain.vision, "q_proj" in plain.target_modules) == (4, vision, True)
    still = changed(
        config,
        model__adapter=str(tmp_path / "first/adapter"),
        training__learning_rate=STANDSTILL,
        budget=BudgetSpec(max_steps=1, reports=1),
    )
    result = inside.run(tmp_path / "second", still)
    assert result.reports[0].loss == pytest.approx(min(report.loss for report in ended.reports), rel=1e-6)
    assert result.trainable_parameters == ended.trainable_parameters


def test_what_is_only_asked_needs_no_reference(inside: Inside, text_rows: Rows, tmp_path: Path) -> None:
    """Predictions of a preference training whose first adapter is gone."""
    base = inside.bases.get(TASKS["text-preference"], ModelSpec(base="tiny:qwen2"))
    save_adapter(attach(base.fresh_model(), LoraSpec()), tmp_path / "adapter")
    job = EvaluationConfig(
        task="text-preference",
        model=ModelSpec(base="tiny:qwen2", adapter=str(tmp_path / "gone")),
        adapter=tmp_path / "adapter",
        rows=CHAT,
        answers=AnswersConfig(max_new_tokens=2),
        variants=[Variant(model="tuned")],
        test_rows=text_rows[1],
        batch_size="auto",
        rules=2,
        has_references=False,
    )
    folder = JobFolder(tmp_path / "asked")
    folder.prepare(job)
    worker = Answering()
    assert evaluate(job, folder, inside.bases, worker).num_rows == 8
    assert not [event for event in worker.sent if "references" in str(event)], "there is none to measure"
    with pytest.raises(FieldError, match="no such folder"):  # rewards are measured from it
        evaluate(job.model_copy(update={"has_references": True}), JobFolder(tmp_path), inside.bases, Answering())
