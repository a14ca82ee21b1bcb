"""Preferences are learned for real: on 4-bit bases, in parts, from images, and on from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from hpsearch.errors import FieldError
from hpsearch.folders import JobFolder
from hpsearch.spec.metrics import METRICS
from hpsearch.spec.model import LoraSpec
from hpsearch.spec.preference import PreferenceSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.adapters import attach
from hpsearch.train.encoding import IGNORED, Encoder
from hpsearch.train.features import make_encoder
from hpsearch.train.steps import MicroBatch
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks import preference as preference_room
from hpsearch.train.tasks.preference import Preference
from hpsearch.train.validation import Validation
from hpsearch.trial import AnswersConfig, Outcome, RowsConfig, TrialConfig
from tests.integration.conftest import changed
from tests.integration.gradient_fixtures import Gradients
from tests.integration.inside import Inside
from tests.integration.preference_fixtures import (
    CHAT,
    LABELLED,
    PICTURES,
    RAW,
    Rows,
    config_of,
    parity_answers,
    parity_pairs,
    picture_pairs,
    polite_pairs,
    written,
)

OBJECTIVES = [METRICS[name] for name in ("ranking_accuracy", "reward_accuracy", "reward_margin")]
FLOAT32 = torch.float32


@pytest.fixture(scope="module")
def polite(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return written(tmp_path_factory.mktemp("polite"), polite_pairs(32), 24)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("pictures")
    return written(folder, picture_pairs(folder, 24), 16)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return written(tmp_path_factory.mktemp("pairs"), parity_pairs(), 8)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return written(tmp_path_factory.mktemp("answers"), parity_answers(), 8)


def base_of(inside: Inside, config: TrialConfig) -> Any:
    return inside.bases.get(TASKS[config.task], config.model)


def tuned(inside: Inside, rows: RowsConfig = RAW, **preference: Any) -> tuple[Any, Preference]:
    """An adapter that has left tiny:qwen2, in evaluation mode."""
    base = base_of(inside, config_of((Path(), Path())))
    encoder = Encoder(base.fresh_processor(), rows, has_images=False)
    method = Preference(encoder, AnswersConfig(preference=PreferenceSpec(**preference), max_new_tokens=4), None)
    torch.manual_seed(0)
    model = attach(base.fresh_model(), LoraSpec(dropout=0.0))
    method.extend(model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn_like(weight) / 20
    return model.eval(), method


def untuned_accuracy(inside: Inside, config: TrialConfig) -> float:
    base = base_of(inside, config)
    task = TASKS[config.task]
    encoder = make_encoder(base, base.model, config.rows, None, has_images=task.has_images)
    method = Preference(encoder, config.answers, None)
    rows = [method.encode(row) for row in Dataset.load_from_disk(str(config.validation_rows))]
    said = method.answers(base.fresh_model().eval(), rows, FLOAT32, is_tuned=False)
    assert {tuple(answer.numbers) for answer in said} == {("ranking_accuracy",)}, "there is no reward without a policy"
    return sum(answer.numbers["ranking_accuracy"] for answer in said) / len(said)


@pytest.mark.parametrize(
    ("task", "base", "rows_config"),
    [
        ("text-preference", "tiny:qwen2", CHAT),
        ("vlm-preference", "tiny:gemma3", PICTURES),
    ],
)
def test_what_is_preferred_becomes_likelier(
    inside: Inside, polite: Rows, pictures: Rows, tmp_path: Path, task: str, base: str, rows_config: RowsConfig
) -> None:
    config = config_of(
        polite if rows_config is CHAT else pictures,
        rows_config,
        task=task,
        model__base=base,
        objectives=OBJECTIVES,
        budget=BudgetSpec(max_steps=12, reports=2),
    )
    before = untuned_accuracy(inside, config)
    result = inside.run(tmp_path, config)
    assert result.outcome is Outcome.COMPLETE
    last = result.reports[-1].metrics
    assert before < 0.7
    assert last["ranking_accuracy"] > before + 0.2
    assert last["reward_accuracy"] > 0.9
    assert last["reward_margin"] > result.reports[0].metrics["reward_margin"] > 0
    assert result.reports[-1].loss < result.reports[0].loss < 0.6931
    assert result.ledger is not None
    assert result.ledger.not_given_back == []


def test_a_checkpoint_in_the_middle_continues_bit_for_bit(inside: Inside, polite: Rows, tmp_path: Path) -> None:
    config = config_of(polite, CHAT, objectives=OBJECTIVES, budget=BudgetSpec(max_steps=6, reports=3))
    whole, halted = JobFolder(tmp_path / "whole"), JobFolder(tmp_path / "halted")
    result = inside.run(whole.path, config)
    assert result.ledger is not None
    assert result.ledger.not_given_back == []
    assert inside.run(halted.path, config, stops_after=1).outcome is Outcome.STOPPED
    assert inside.run(halted.path, config).reports == result.reports
    assert halted.read_history() == whole.read_history()


@pytest.mark.parametrize("loss", ["sigmoid", "orpo", "kto"])
def test_a_step_does_not_depend_on_its_parts(
    inside: Inside, pairs: Rows, answers: Rows, tmp_path: Path, gradients: list[Gradients], loss: str
) -> None:
    """The second step's gradients: in the first one the model is the reference, and KTO's distance is nothing."""
    rows, rows_config = (answers, LABELLED) if loss == "kto" else (pairs, RAW)
    config = config_of(rows, rows_config, {"loss": loss}, budget=BudgetSpec(max_steps=2, reports=1))
    config = changed(config, training__batch_size=8, training__warmup_ratio=0.0)
    for size in (8, 3):
        inside.run(tmp_path / str(size), changed(config, training__micro_batch=size))
    whole, parts = gradients[1::2]
    assert any(gradient.abs().max() > 1e-3 for gradient in whole.values())
    torch.testing.assert_close(parts, whole, rtol=2e-3, atol=2e-5)


def test_features_of_images_stand_for_their_pixels(inside: Inside, pictures: Rows) -> None:
    config = config_of(pictures, PICTURES, task="vlm-preference", model__base="tiny:gemma3")
    base = base_of(inside, config)
    rows = Dataset.load_from_disk(str(pictures[0])).select(range(3))
    torch.manual_seed(0)
    model = attach(base.fresh_model(), LoraSpec(dropout=0.0))
    losses, names = [], []
    for encoder in (
        make_encoder(base, model, PICTURES, None, has_images=True),
        Encoder(base.fresh_processor(), PICTURES, has_images=True),
    ):
        method = Preference(encoder, AnswersConfig(preference=PreferenceSpec(loss="orpo")), None)
        if not losses:
            method.extend(model)
        batch = method.batch([method.encode(row) for row in rows])
        names.append("mm_encoder_outputs" in batch)
        losses.append(method.training_loss(model, batch, len(rows)).item())
    assert names == [True, False]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def log_likelihood(model: Any, method: Preference, row: dict[str, Any], answer: str) -> tuple[float, int]:
    """From the logits of the one conversation."""
    messages = [*row["messages"][:-1], {"role": "assistant", "content": answer}]
    encoded = method._encoder.encode({**row, "messages": messages})
    logits = model(input_ids=encoded.tokens["input_ids"].unsqueeze(0)).logits[0, :-1].double().log_softmax(-1)
    wanted = encoded.labels[1:]
    found = [logits[place, token].item() for place, token in enumerate(wanted.tolist()) if token != IGNORED]
    return sum(found), len(found)


@torch.no_grad()
def test_the_numbers_of_a_pair_are_what_they_are_said_to_be(inside: Inside, pairs: Rows) -> None:
    model, method = tuned(inside, beta=0.4)
    rows = list(Dataset.load_from_disk(str(pairs[0])))
    losses, answers = method.measure(model, [method.encode(row) for row in rows], FLOAT32)
    seen = set()
    for row, loss, answer in zip(rows, losses, answers, strict=True):
        texts = row["messages"][-1]["content"], row["rejected"]
        (chosen, _), (rejected, _) = (log_likelihood(model, method, row, text) for text in texts)
        with model.disable_adapter():
            (ref_chosen, _), (ref_rejected, _) = (log_likelihood(model, method, row, text) for text in texts)
        margin = 0.4 * ((chosen - ref_chosen) - (rejected - ref_rejected))
        assert answer.numbers["ranking_accuracy"] == float(chosen > rejected)
        assert answer.numbers["reward_accuracy"] == float(margin > 0)
        assert answer.numbers["reward_margin"] == pytest.approx(margin, abs=1e-4)
        assert loss.total == pytest.approx(-torch.tensor(margin).sigmoid().log().item(), abs=1e-4)
        assert loss.num_tokens == 1
        seen.add((answer.numbers["ranking_accuracy"], answer.numbers["reward_accuracy"]))
    assert len(seen) > 1
    silent = method.measure(model, [method.encode(row) for row in rows], FLOAT32, with_texts=False)
    assert [answer.numbers for answer in silent[1]] == [answer.numbers for answer in answers]
    assert {answer.text for answer in silent[1]} == {""}


@torch.no_grad()
def test_the_reward_of_a_single_answer_shall_have_the_sign_of_what_is_thought_of_it(
    inside: Inside, answers: Rows
) -> None:
    model, method = tuned(inside, LABELLED, loss="kto", beta=0.4)
    rows = list(Dataset.load_from_disk(str(answers[0])))
    _, said = method.measure(model, [method.encode(row) for row in rows], FLOAT32, with_texts=False)
    for row, answer in zip(rows, said, strict=True):
        text = row["messages"][-1]["content"]
        with model.disable_adapter():
            reference, _ = log_likelihood(model, method, row, text)
        reward = 0.4 * (log_likelihood(model, method, row, text)[0] - reference)
        margin = reward if row["desirable"] else -reward
        assert answer.numbers == {
            "reward_accuracy": float(margin > 0),
            "reward_margin": pytest.approx(margin, abs=1e-4),
        }


@torch.no_grad()
def test_orpo_is_judged_by_the_loss_that_it_learns(inside: Inside, pairs: Rows) -> None:
    model, method = tuned(inside, loss="orpo")
    for row in Dataset.load_from_disk(str(pairs[0])):
        encoded = [method.encode(row)]
        expected = method.training_loss(model, method.batch(encoded), 1).item()
        assert method.losses(model, encoded, FLOAT32)[0].total == pytest.approx(expected, rel=1e-5)


def test_the_reference_is_asked_once_per_run(inside: Inside, pairs: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    model, method = tuned(inside)
    asked: list[None] = []
    reference = preference_room._reference

    def noted(model: Any) -> Any:
        asked.append(None)
        return reference(model)

    monkeypatch.setattr(preference_room, "_reference", noted)
    metrics = [metric.name for metric in OBJECTIVES]
    rows = Dataset.load_from_disk(str(pairs[0]))
    validation = Validation(rows, MicroBatch(3), method, FLOAT32, metrics)
    first = validation.of(model)
    assert len(asked) == 3
    assert validation.of(model) == first
    assert len(asked) == 3
    prompted = rows[0] | {
        "messages": [{"role": "user", "content": "x " + rows[0]["messages"][0]["content"]}, rows[0]["messages"][1]]
    }
    method.losses(model, [method.encode(prompted)], FLOAT32)
    assert len(asked) == 4, "under another prompt a row is another one"


def test_what_goes_on_from_an_adapter_has_that_for_its_reference(inside: Inside, pairs: Rows, tmp_path: Path) -> None:
    config = config_of(pairs, RAW, budget=BudgetSpec(max_steps=2, reports=1), training__warmup_ratio=0.0)
    first = inside.run(tmp_path / "first", config)
    start = next((tmp_path / "first").rglob("checkpoint-2"))
    second = inside.run(tmp_path / "second", changed(config, model__adapter=str(start)))
    losses = [JobFolder(tmp_path / name).read_history()[0].loss for name in ("first", "second")]
    assert losses == [pytest.approx(0.693147, abs=1e-6)] * 2, "at its start a model is its reference"
    assert second.reports[0].loss != first.reports[0].loss
    assert second.ledger is not None
    assert second.ledger.not_given_back == []
    assert second.trainable_parameters == first.trainable_parameters


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_an_adapter_on_the_head_is_refused(inside: Inside) -> None:
    base = base_of(inside, config_of((Path(), Path())))
    model = attach(base.fresh_model(), LoraSpec(target_modules=["lm_head"], dropout=0.0))
    with pytest.raises(FieldError, match="adapter on the output layer"):
        tuned(inside)[1].extend(model)


def test_a_row_is_as_long_as_its_longer_answer(inside: Inside) -> None:
    _, method = tuned(inside, CHAT)
    rows = [{"id": "0", "messages": polite_pairs(1)[0].messages, "rejected": text} for text in ("no", "no " * 30)]
    lengths = [method.num_tokens(row) for row in rows]
    assert lengths == [len(method.encode(row)) for row in rows]
    assert lengths[1] > lengths[0] + 25
