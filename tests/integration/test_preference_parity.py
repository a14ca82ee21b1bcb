"""Preferences are learned as stock trl learns them: the same losses at each step, and the same adapter at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from hpsearch.folders import JobFolder
from hpsearch.spec.preference import LABELLED_LOSSES, PAIR_LOSSES, PreferenceSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.adapters import attach, to_float32
from hpsearch.train.encoding import Encoded, Encoder
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.preference import Preference
from hpsearch.train.tasks.preference_losses import PAIR_FORMULAS, odds_loss
from hpsearch.trial import AnswersConfig, TrialConfig
from tests.integration.conftest import changed
from tests.integration.inside import Inside
from tests.integration.preference_fixtures import LABELLED, RAW, Rows, config_of, parity_answers, parity_pairs, written

STEPS = 3
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return written(tmp_path_factory.mktemp("pairs"), parity_pairs(), 10)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return written(tmp_path_factory.mktemp("answers"), parity_answers(), 10)


def of_steps(config: TrialConfig) -> TrialConfig:
    budget = BudgetSpec(max_steps=STEPS, reports=1)
    return changed(config, budget=budget, training__micro_batch=4, training__warmup_ratio=0.0)


def own(config: TrialConfig, inside: Inside, folder: Path) -> tuple[list[float], Weights]:
    """(loss of each step, the adapter)"""
    inside.run(folder, config)
    losses = [point.loss for point in JobFolder(folder).read_history()]
    file = next(folder.rglob(f"checkpoint-{STEPS}/adapter_model.safetensors"))
    return losses, load_file(file)


def stock(
    config: TrialConfig, inside: Inside, folder: Path, trainer_class: Any, config_class: Any, rows: Dataset, **more: Any
) -> tuple[list[float], Weights]:
    """The same of trl's own trainer."""
    trainer = stock_trainer(config, inside, folder, trainer_class, config_class, rows, **more)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return losses, get_peft_model_state_dict(trainer.model)


def stock_trainer(
    config: TrialConfig, inside: Inside, folder: Path, trainer_class: Any, config_class: Any, rows: Dataset, **more: Any
) -> Any:
    training, preference = config.training, config.answers.preference
    base = inside.bases.get(TASKS[config.task], config.model)
    trainer = trainer_class(
        model=base.fresh_model(),
        args=config_class(
            output_dir=str(folder),
            max_steps=config.budget.max_steps,
            learning_rate=training.learning_rate,
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=1,
            optim=training.optimizer,
            lr_scheduler_type=training.lr_scheduler,
            warmup_steps=training.warmup_ratio,
            gradient_checkpointing=False,
            seed=training.seed,
            data_seed=training.seed,
            bf16=False,
            use_cpu=True,
            max_length=None if trainer_class is not ORPOTrainer else 512,
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            beta=preference.beta,
            **more,
        ),
        train_dataset=rows,
        processing_class=base.fresh_processor(),
        peft_config=attach(base.fresh_model(), config.lora).peft_config["default"],
    )
    for weight in trainer.model.parameters():  # as every trainer of trl's but ORPO's does at its start
        if weight.requires_grad:
            weight.data = weight.data.bfloat16()
    to_float32(trainer.model)
    return trainer


def as_trl_has_them(rows: Path) -> Dataset:
    found = []
    for row in Dataset.load_from_disk(str(rows)):
        prompt, answer = (message["content"] for message in row["messages"])
        pair = {"chosen": answer, "rejected": row.get("rejected")}
        found.append({"prompt": prompt} | (pair if row.get("rejected") else {"completion": answer}))
        if row.get("desirable") is not None:
            found[-1]["label"] = row["desirable"]
    return Dataset.from_list(found)


def test_dpo_bit_for_bit(pairs: Rows, inside: Inside, tmp_path: Path) -> None:
    config = of_steps(config_of(pairs, preference={"beta": 0.3}))
    losses, weights = own(config, inside, tmp_path / "own")
    rows = as_trl_has_them(pairs[0])
    stock_losses, stock_weights = stock(config, inside, tmp_path / "stock", DPOTrainer, DPOConfig, rows)
    assert losses == stock_losses
    assert len(set(losses)) == STEPS
    torch.testing.assert_close(weights, stock_weights, rtol=0, atol=0)


def test_each_loss_of_pairs_is_trl_s_bit_for_bit(pairs: Rows, inside: Inside, tmp_path: Path) -> None:
    """And so is its gradient, on an adapter that has left the base."""
    config = config_of(pairs)
    rows = as_trl_has_them(pairs[0]).select(range(6))
    trainer = stock_trainer(config, inside, tmp_path / "stock", DPOTrainer, DPOConfig, rows, label_smoothing=0.1)
    model = trainer.model
    torch.manual_seed(1)
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    for weight in learned.values():
        weight.data = torch.randn_like(weight) / 20
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(6)])
    encoder = Encoder(inside.bases.get(TASKS[config.task], config.model).fresh_processor(), RAW, has_images=False)
    seen = set()
    for loss in PAIR_FORMULAS:
        trainer.loss_types = [loss]
        expected = trainer._compute_loss(model, batch, False)
        gradients = torch.autograd.grad(expected, list(learned.values()))
        spec = PreferenceSpec(loss=loss, label_smoothing=0.1)  # type: ignore[arg-type]
        method = Preference(encoder, AnswersConfig(preference=spec), None)
        own_rows = [method.encode(row) for row in Dataset.load_from_disk(str(pairs[0])).select(range(6))]
        found = method.training_loss(model, method.batch(own_rows), len(own_rows))
        assert found.item() == expected.item(), loss
        assert all(map(torch.equal, torch.autograd.grad(found, list(learned.values())), gradients)), loss
        seen.add(found.item())
    assert {*PAIR_FORMULAS, "orpo"} == set(PAIR_LOSSES)
    assert len(seen) == len(PAIR_FORMULAS)


@pytest.mark.parametrize("loss", LABELLED_LOSSES)
def test_kto_and_its_kin(
    loss: str, answers: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """trl takes no shuffled rows for its KL term, so it is given ours in the order in which they were met. It sums the
    losses of desirable answers first, which rounds otherwise."""
    met: list[str] = []
    divergences: list[float] = []
    shared = Preference.shared

    def noted(method: Preference, model: Any, rows: list[Encoded], size: int) -> Any:
        met.extend(row.name for row in rows)  # type: ignore[attr-defined]
        found = shared(method, model, rows, size)
        divergences.extend(float(value) for value in found.values())
        return found

    monkeypatch.setattr(Preference, "shared", noted)
    weights_of = {"desirable_weight": 1.0, "undesirable_weight": 1.5}
    config = of_steps(config_of(answers, LABELLED, {"loss": loss, "beta": 0.3, **weights_of}))
    losses, weights = own(config, inside, tmp_path / "own")
    rows = as_trl_has_them(answers[0]).select([int(name) for name in met])
    more = {"loss_type": loss, "train_sampling_strategy": "sequential", **weights_of}
    stock_losses, stock_weights = stock(config, inside, tmp_path / "stock", KTOTrainer, KTOConfig, rows, **more)
    assert losses == pytest.approx(stock_losses, rel=1e-6)
    assert (max(divergences, default=0.0) > 0.01) == (loss == "kto")
    torch.testing.assert_close(weights, stock_weights, rtol=0, atol=0)


def test_orpo(pairs: Rows, inside: Inside, tmp_path: Path) -> None:
    """trl makes the logits of all tokens for it, ours only those that are asked for: float32 rounds otherwise."""
    config = of_steps(config_of(pairs, preference={"loss": "orpo", "beta": 0.3}))
    losses, weights = own(config, inside, tmp_path / "own")
    rows = as_trl_has_them(pairs[0])
    stock_losses, stock_weights = stock(config, inside, tmp_path / "stock", ORPOTrainer, ORPOConfig, rows)
    assert losses == pytest.approx(stock_losses, rel=1e-5)
    torch.testing.assert_close(weights, stock_weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("log_prob", [0.0, -1e-9, -5e-8])
def test_odds_of_an_answer_learned_by_heart_have_gradients(log_prob: float) -> None:
    """trl's are no number there (1.16, orpo_trainer.py, `log1mexp`), which ends a training that goes well."""
    for chosen, rejected in ((log_prob, -2.0), (-2.0, log_prob)):
        given = [torch.tensor([value], requires_grad=True) for value in (chosen, rejected)]
        loss = odds_loss(given[0], given[1], PreferenceSpec(loss="orpo")).sum()
        loss.backward()
        assert all(value.isfinite() for value in (loss, *(x.grad for x in given if x.grad is not None)))
