"""Classification: what the head sees, what it learns from, and that adapter and head survive together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.folders import TrialFolder
from hpsearch.spec.model import HeadSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.adapters import attach
from hpsearch.train.bases import Base
from hpsearch.train.encoding import IGNORED, Encoder, collate
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.vlm_classify import Classifying, class_weights, logits_of
from hpsearch.train.tiny.architectures import ARCHITECTURES
from hpsearch.train.trainer import Trainer, Validation
from hpsearch.trial import AnswersConfig, Outcome, RowsConfig, TrialConfig, TrialResult
from tests.integration.conftest import changed, text_config
from tests.integration.inside import Inside

Rows = tuple[Path, Path]
CLASSES = ["dark blue", "green", "red"]
COLOURS = {"dark blue": (10, 20, 120), "green": (40, 200, 60), "red": (230, 30, 20)}
HEAD = HeadSpec(hidden=16, dropout=0.1, balance_beta=0.9)
ROWS = RowsConfig(row_format="question-answer", image_size=(28, 28), system_prompt=None, max_tokens=128)
FLOAT32 = torch.float32


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """(24 training rows: 12 red, 8 green, 4 dark blue; 9 validation rows), questions of different lengths."""
    folder = tmp_path_factory.mktemp("colours")
    labels = ["red", "green", "red", "green", "red", "dark blue"] * 4 + CLASSES * 3
    made = [_row(folder, number, label) for number, label in enumerate(labels)]
    write_rows(made[:24], folder / "train")
    write_rows(made[24:], folder / "validation")
    return folder / "train", folder / "validation"


def _row(folder: Path, number: int, label: str) -> Row:
    file = folder / f"{number}.png"
    Image.new("RGB", (28, 28), tuple(min(255, part + number) for part in COLOURS[label])).save(file)  # type: ignore[arg-type]
    messages = [
        {"role": "user", "content": "Which colour is it" + " and why" * (number % 3) + "?"},
        {"role": "assistant", "content": label},
    ]
    return Row(str(number), messages, str(file), None, None, label, None)


def config_of(rows: Rows, **changes: Any) -> TrialConfig:
    config = text_config(rows, task="vlm-classify", model__base="tiny:qwen2.5-vl")
    return changed(config, **{"rows": ROWS, "answers": AnswersConfig(head=HEAD, classes=CLASSES), **changes})


@pytest.fixture(scope="module")
def inside() -> Inside:
    return Inside()


@pytest.fixture(scope="module")
def base(rows: Rows, inside: Inside) -> Base:
    return inside.bases.get(TASKS["vlm-classify"], config_of(rows).model)


@pytest.fixture
def validation_rows(rows: Rows) -> list[dict[str, Any]]:
    return list(Dataset.load_from_disk(str(rows[1])))


def skill_of(processor: Any, train: Dataset | None = None, head: HeadSpec = HEAD) -> Classifying:
    encoder = Encoder(processor, ROWS, has_images=True)
    return Classifying(encoder, AnswersConfig(head=head, classes=CLASSES), train)


def tuned(base: Base, rows: Rows, head: HeadSpec = HEAD) -> tuple[Any, Classifying]:
    """A new adapter and a new head on the base, in evaluation mode."""
    torch.manual_seed(0)
    skill = skill_of(base.fresh_processor(), Dataset.load_from_disk(str(rows[0])), head)
    model = attach(base.fresh_model(), config_of(rows).lora)
    skill.extend(model)
    return model.eval(), skill


def losses(result: TrialResult) -> list[float]:
    return [report.loss for report in result.reports]


class TestPooling:
    @pytest.mark.parametrize("name", ["tiny:gemma3", "tiny:qwen2-vl", "tiny:qwen2.5-vl"])
    def test_a_row_s_logits_do_not_depend_on_its_neighbours(
        self, rows: Rows, validation_rows: list[dict[str, Any]], name: str
    ) -> None:
        torch.manual_seed(0)
        model, processor = ARCHITECTURES[name]()
        skill = skill_of(processor)
        adapted = attach(model, config_of(rows).lora)
        skill.extend(adapted)
        adapted.eval()
        batch = skill.collate(validation_rows)
        assert not batch["attention_mask"].bool().all(), "no row is padded"
        with torch.no_grad():
            together = logits_of(adapted, batch)
            alone = torch.cat([logits_of(adapted, skill.collate([row])) for row in validation_rows])
        assert together.shape == (9, 3)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        assert (alone.max(dim=0).values - alone.min(dim=0).values).min() > 1e-3, "all rows look the same to it"

    def test_it_is_the_mean_over_the_row_s_own_tokens(self, base: Base, rows: Rows) -> None:
        model, skill = tuned(base, rows)
        row = Dataset.load_from_disk(str(rows[1]))[0]
        batch = skill.collate([row])
        with torch.no_grad():
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            hidden = model(**inputs, output_hidden_states=True).hidden_states[-1]
            expected = model.classification_head(hidden[0].float().mean(dim=0))
            torch.testing.assert_close(logits_of(model, batch)[0], expected, rtol=1e-4, atol=1e-5)

    def test_the_head_never_sees_the_label(self, base: Base, rows: Rows) -> None:
        _, skill = tuned(base, rows)
        row = Dataset.load_from_disk(str(rows[1]))[0]
        other = {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": "something else"}]}
        assert torch.equal(skill.collate([row])["input_ids"], skill.collate([other])["input_ids"])


class TestClassWeights:
    def test_they_are_those_of_cui_et_al(self) -> None:
        labels = ["red"] * 12 + ["green"] * 8 + ["dark blue"] * 4
        weights = class_weights(labels, CLASSES, HeadSpec(balance_beta=0.9))
        # (1 - beta) / (1 - beta^n) for n = 4, 8, 12
        raw = [0.1 / (1 - 0.6561), 0.1 / (1 - 0.43046721), 0.1 / (1 - 0.282429536481)]
        expected = [weight * 3 / sum(raw) for weight in raw]
        assert weights is not None
        assert weights.tolist() == pytest.approx(expected)
        assert float(weights.mean()) == pytest.approx(1.0)

    @pytest.mark.parametrize(("beta", "expected"), [(0.0, [1.0, 1.0, 1.0]), (0.999999, [1.5, 0.9, 0.6])])
    def test_from_none_to_the_inverse_of_the_frequency(self, beta: float, expected: list[float]) -> None:
        labels = ["dark blue"] * 2 * 3 + ["green"] * 2 * 5 + ["red"] * 5 * 3
        weights = class_weights(labels, CLASSES, HeadSpec(balance_beta=beta))
        assert weights is not None
        assert weights.tolist() == pytest.approx(expected, rel=1e-4)  # 1/6, 1/10 and 1/15 over their mean, 1/9

    def test_none_is_no_weights(self) -> None:
        assert class_weights(["red"], CLASSES, HeadSpec(balance_beta=None)) is None

    def test_a_class_without_training_rows_takes_no_weight_from_the_others(self) -> None:
        weights = class_weights(["red", "green"], CLASSES, HeadSpec(balance_beta=0.9))
        assert weights is not None
        assert weights.tolist() == pytest.approx([0.0, 1.0, 1.0])

    def test_they_count_in_a_batch_of_one_row_too(self, base: Base, rows: Rows) -> None:
        train = Dataset.load_from_disk(str(rows[0]))
        model, skill = tuned(base, rows)
        weights = class_weights(train["label"], CLASSES, HEAD)
        assert weights is not None
        for row in (train[0], train[1], train[5]):
            batch = skill.collate([row])
            with torch.no_grad():
                plain = cross_entropy(logits_of(model, batch), batch["labels"])
                weighted = skill.training_loss(model, batch, 1)
            assert float(weighted) == pytest.approx(float(plain * weights[CLASSES.index(row["label"])]), rel=1e-5)

    def test_validation_is_unweighted(self, base: Base, rows: Rows, validation_rows: list[dict[str, Any]]) -> None:
        by_head = []
        for head in (HEAD, HEAD.model_copy(update={"balance_beta": None})):
            model, skill = tuned(base, rows, head)
            by_head.append([loss.total for loss in skill.losses(model, validation_rows, FLOAT32)])
        assert by_head[0] == by_head[1]


class TestLearning:
    def test_the_loss_reaches_adapter_and_head_and_nothing_else(self, base: Base, rows: Rows) -> None:
        model, skill = tuned(base, rows)
        batch = skill.collate([Dataset.load_from_disk(str(rows[0]))[0]])
        skill.training_loss(model.train(), batch, 1).backward()
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

        skill = SimpleNamespace(has_own_loss=True, training_loss=training_loss)
        trainer = SimpleNamespace(validation=SimpleNamespace(skill=skill, dtype=dtype))
        model = SimpleNamespace(device=torch.device("cpu"))
        assert float(Trainer.compute_loss(trainer, model, {}, num_items_in_batch=3)) == 3.0  # type: ignore[arg-type]
        assert seen == [dtype is torch.bfloat16]


def accumulating(rows: Rows, batch_size: int, steps: int) -> TrialConfig:
    """An epoch without dropout, whose adapter and head are kept."""
    config = config_of(rows, is_final=True, budget=BudgetSpec(epochs=1, reports=1), lora__dropout=0.0)
    return changed(
        config,
        training__batch_size=batch_size,
        training__gradient_accumulation_steps=steps,
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
        skill = skill_of(base.fresh_processor())
        model = PeftModel.from_pretrained(base.fresh_model(), str(adapter))
        skill.extend(model)
        skill.load(model, adapter)
        validation = Validation(Dataset.load_from_disk(str(rows[1])), 8, skill, FLOAT32, ["accuracy"])
        assert validation.of(model)["loss"] == pytest.approx(losses(result)[-1], rel=1e-6)

    def test_a_checkpoint_in_the_middle_continues_bit_for_bit(
        self, run: tuple[Path, TrialResult], rows: Rows, inside: Inside, tmp_path: Path
    ) -> None:
        folder, result = run
        stopped = inside.run(tmp_path / "trial", final_config(rows), stops_after=1)
        assert (stopped.outcome, stopped.num_steps) == (Outcome.STOPPED, 3)
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
        assert there == [True], "one checkpoint, at the first of two reports"
        assert not TrialFolder(tmp_path / "trial").checkpoints.exists()


def final_config(rows: Rows) -> TrialConfig:
    return config_of(rows, is_final=True, budget=BudgetSpec(max_steps=6, reports=3), training__learning_rate=3e-3)


class TestJudging:
    def test_the_validation_loss_does_not_depend_on_the_batch_size(self, base: Base, rows: Rows) -> None:
        model, skill = tuned(base, rows)
        data = Dataset.load_from_disk(str(rows[1]))
        found = [Validation(data, size, skill, FLOAT32, ["accuracy", "macro_f1"]).of(model) for size in (1, 4, 9)]
        assert set(found[0]) == {"loss", "accuracy", "macro_f1"}
        for other in found[1:]:
            assert other == pytest.approx(found[0], rel=1e-5)

    def test_the_tuned_model_says_the_class_of_the_highest_logit(
        self, base: Base, rows: Rows, validation_rows: list[dict[str, Any]]
    ) -> None:
        model, skill = tuned(base, rows)
        with torch.no_grad():
            wanted = logits_of(model, skill.collate(validation_rows)).argmax(dim=1).tolist()
        said = skill.answers(model, validation_rows, FLOAT32, is_tuned=True)
        assert [answer.text for answer in said] == [CLASSES[position] for position in wanted]

    def test_the_base_says_the_likeliest_name(self, base: Base, validation_rows: list[dict[str, Any]]) -> None:
        processor = base.fresh_processor()
        skill, encoder = skill_of(processor), Encoder(processor, ROWS, has_images=True)
        model = base.fresh_model().eval()
        wanted = [min(CLASSES, key=lambda name: mean_loss_of(model, encoder, row, name)) for row in validation_rows]
        said = skill.answers(model, validation_rows, FLOAT32, is_tuned=False)
        assert [answer.text for answer in said] == wanted

    def test_a_long_name_is_not_at_a_disadvantage(self, base: Base, validation_rows: list[dict[str, Any]]) -> None:
        """By the sum over its tokens it could never be chosen."""
        processor = base.fresh_processor()
        encoder = Encoder(processor, ROWS, has_images=True)
        model, row = base.fresh_model().eval(), validation_rows[0]
        names = ["red", "red" + " and dark blue" * 4]
        answers = AnswersConfig(head=HEAD, classes=names)
        said = Classifying(encoder, answers, None).answers(model, [row], FLOAT32, is_tuned=False)
        assert said[0].text == min(names, key=lambda name: mean_loss_of(model, encoder, row, name))


def mean_loss_of(model: Any, encoder: Encoder, row: dict[str, Any], name: str) -> float:
    """Nats per token of `name` as the answer to the row, computed one token after the other."""
    named = {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": name}]}
    batch = collate([encoder.encode(named)], encoder.tokenizer.pad_token_id, side="right")
    labels = batch.pop("labels")[0]
    with torch.no_grad():
        logits = model(**batch).logits[0].float().log_softmax(dim=-1)
    learned = (labels != IGNORED).nonzero().flatten().tolist()
    return -sum(float(logits[position - 1, labels[position]]) for position in learned) / len(learned)
