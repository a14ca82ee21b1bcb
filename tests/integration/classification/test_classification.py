"""Classification in training: what is learned from, and that adapter and head survive together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file

from hpsearch.spec.training import BudgetSpec
from hpsearch.train.bases import Base
from hpsearch.train.steps import MicroBatch
from hpsearch.train.trainer import ReportingTrainer
from hpsearch.train.validation import Validation
from hpsearch.trial import AnswersConfig, Outcome, TrialConfig, TrialResult
from tests.integration.class_fixtures import CLASSES, FLOAT32, HEAD, Rows, collate, config_of, losses, skill_of, tuned
from tests.integration.conftest import changed
from tests.integration.inside import Inside


class TestLearning:
    def test_the_loss_reaches_adapter_and_head_and_nothing_else(self, base: Base, rows: Rows) -> None:
        model, method = tuned(base, rows)
        batch = collate(method, [Dataset.load_from_disk(str(rows[0]))[0]])
        method.training_loss(model.train(), batch, 1).backward()
        moved = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
        assert {name for name in moved if "classification_head" in name} == {
            f"classification_head.{layer}.{kind}" for layer in (1, 4) for kind in ("weight", "bias")
        }
        language = {name for name in moved if "lora_B" in name}  # lora_A moves once lora_B is no longer 0
        assert any("q_proj" in name for name in language)
        assert any("down_proj" in name for name in language)
        assert all("lora_" in name or "classification_head" in name for name in moved)

    def test_it_learns_and_gives_everything_back(self, rows: Rows, inside: Inside, tmp_path: Path) -> None:
        config = config_of(
            rows,
            budget=BudgetSpec(max_steps=30, reports=3),
            objectives=["balanced_accuracy", "loss"],
            training__learning_rate=5e-3,
            lora__vision=True,
        )
        result = inside.run(tmp_path / "trial", config)
        assert result.outcome is Outcome.COMPLETE
        assert result.reports[-1].metrics["balanced_accuracy"] > 0.8
        assert set(result.reports[0].metrics) == {"balanced_accuracy"}
        assert result.ledger is not None
        assert result.ledger.closes, result.ledger.not_given_back

    @pytest.mark.parametrize(
        ("batch_size", "steps"), [(2, 4), (10, 3), (1, 8)], ids=["equal parts", "a smaller last part", "single rows"]
    )
    def test_a_step_is_the_same_in_one_batch_or_several(
        self,
        rows: Rows,
        inside: Inside,
        tmp_path: Path,
        whole_batch: Callable[[int], tuple[list[float], dict[str, torch.Tensor]]],
        batch_size: int,
        steps: int,
    ) -> None:
        """Of 24 rows, ten at a time are 10, 10 and 4 in one step."""
        config = accumulating(rows, batch_size, steps)
        parts = inside.run(tmp_path / "parts", config)
        expected_losses, expected_head = whole_batch(batch_size * steps)
        assert losses(parts) == pytest.approx(expected_losses, rel=1e-4)
        head = load_file(tmp_path / "parts" / "adapter" / "head.safetensors")
        for name, value in head.items():
            torch.testing.assert_close(value, expected_head[name], rtol=1e-3, atol=1e-5)

    @pytest.fixture(scope="class")
    def whole_batch(
        self, rows: Rows, inside: Inside, tmp_path_factory: pytest.TempPathFactory
    ) -> Callable[[int], tuple[list[float], dict[str, torch.Tensor]]]:
        """Losses and head of a run whose steps are one batch each."""
        known: dict[int, tuple[list[float], dict[str, torch.Tensor]]] = {}

        def run(size: int) -> tuple[list[float], dict[str, torch.Tensor]]:
            if size not in known:
                folder = tmp_path_factory.mktemp("whole")
                result = inside.run(folder, accumulating(rows, size, 1))
                known[size] = losses(result), load_file(folder / "adapter" / "head.safetensors")
            return known[size]

        return run

    def test_gradient_checkpointing_changes_nothing(self, rows: Rows, inside: Inside, tmp_path: Path) -> None:
        config = config_of(rows, budget=BudgetSpec(max_steps=2, reports=2))
        plain = inside.run(tmp_path / "plain", config)
        saving = inside.run(tmp_path / "saving", changed(config, training__gradient_checkpointing=True))
        assert losses(saving) == pytest.approx(losses(plain), rel=1e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_it_trains_in_the_precision_in_which_it_is_judged(self, dtype: torch.dtype) -> None:
        """accelerate's autocast does not reach a loss that is not computed in the model's own forward."""
        seen: list[bool] = []

        def training_loss(_model: Any, _batch: Any, num_rows: int) -> torch.Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return torch.tensor(float(num_rows))

        method = SimpleNamespace(has_own_loss=True, training_loss=training_loss)
        trainer = SimpleNamespace(validation=SimpleNamespace(method=method, dtype=dtype))
        model = SimpleNamespace(device=torch.device("cpu"))
        assert float(ReportingTrainer.compute_loss(trainer, model, {}, num_items_in_batch=3)) == 3.0  # type: ignore[arg-type]
        assert seen == [dtype is torch.bfloat16]


def accumulating(rows: Rows, batch_size: int, steps: int) -> TrialConfig:
    """An epoch without dropout, whose adapter and head are kept."""
    config = config_of(rows, is_final=True, budget=BudgetSpec(epochs=1, reports=1), lora__dropout=0.0)
    return changed(
        config,
        training__batch_size=batch_size * steps,
        training__micro_batch=batch_size,
        answers=AnswersConfig(head=HEAD.model_copy(update={"dropout": 0.0}), classes=CLASSES),
    )


class TestKeeping:
    @pytest.fixture(scope="class")
    def run(self, rows: Rows, inside: Inside, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrialResult]:
        """A final run whose last report is its best."""
        folder = tmp_path_factory.mktemp("final")
        result = inside.run(folder, final_config(rows))
        assert losses(result)[-1] == min(losses(result))
        return folder, result

    def test_adapter_and_head_lie_apart_and_give_the_same_loss_when_loaded(
        self, run: tuple[Path, TrialResult], base: Base, rows: Rows
    ) -> None:
        folder, result = run
        adapter = folder / "adapter"
        head = load_file(adapter / "head.safetensors")
        assert {name: tuple(value.shape) for name, value in head.items()} == {
            "1.weight": (16, base.model.get_input_embeddings().weight.shape[1]),
            "1.bias": (16,),
            "4.weight": (3, 16),
            "4.bias": (3,),
        }
        assert not [name for name in load_file(adapter / "adapter_model.safetensors") if "lora_" not in name]
        method = skill_of(base.fresh_processor())
        model = PeftModel.from_pretrained(base.fresh_model(), str(adapter))
        method.extend(model)
        method.load(model, adapter)
        validation = Validation(Dataset.load_from_disk(str(rows[1])), MicroBatch(8), method, FLOAT32, ["accuracy"])
        values = validation.of(model)
        assert values is not None
        assert values["loss"] == pytest.approx(losses(result)[-1], rel=1e-6)

    def test_a_checkpoint_in_the_middle_continues_bit_for_bit(
        self, run: tuple[Path, TrialResult], rows: Rows, inside: Inside, tmp_path: Path
    ) -> None:
        folder, result = run
        stopped = inside.run(tmp_path / "trial", final_config(rows), stops_after=1)
        assert (stopped.outcome, stopped.num_steps) == (Outcome.STOPPED, 2)
        continued = inside.run(tmp_path / "trial", final_config(rows))
        assert losses(continued) == losses(result)
        for file in ("head.safetensors", "adapter_model.safetensors"):
            one, other = load_file(folder / "adapter" / file), load_file(tmp_path / "trial" / "adapter" / file)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one), file

    def test_a_checkpoint_has_its_head_before_it_counts_as_whole(
        self, rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A kill between the two must not leave a checkpoint that can't be continued."""
        from transformers import TrainerState

        there: list[bool] = []
        save_to_json = TrainerState.save_to_json

        def spy(state: TrainerState, json_path: str) -> None:
            there.append(Path(json_path).with_name("head.safetensors").exists())
            save_to_json(state, json_path)

        monkeypatch.setattr(TrainerState, "save_to_json", spy)
        inside.run(tmp_path / "trial", config_of(rows))
        assert there == [True, True], "a checkpoint before each of two reports"


def final_config(rows: Rows) -> TrialConfig:
    return config_of(rows, is_final=True, budget=BudgetSpec(max_steps=6, reports=3), training__learning_rate=3e-3)
