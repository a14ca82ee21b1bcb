"""An optimizer step is the same in whatever parts its rows go through the model, and continues if they don't fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.folders import JobFolder
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.adapters import attach, to_float32
from hpsearch.train.encoding import Encoded, Encoder
from hpsearch.train.steps import micro_batches
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.generation import Generation
from hpsearch.trial import Outcome, TrialConfig, TrialResult
from tests.integration.conftest import changed, text_config
from tests.integration.gradient_fixtures import Gradients
from tests.integration.inside import Answering, Inside

Rows = tuple[Path, Path]
ROWS_PER_STEP = 8


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Eight rows of one to eight words to learn, and as much to ask: no two have the same length."""
    folder = tmp_path_factory.mktemp("rows")
    written = [
        Row(
            id=str(number),
            messages=[
                {"role": "user", "content": " ".join(["why?"] * (1 + number * 5 % 8))},
                {"role": "assistant", "content": " ".join(["so"] * (number + 1))},
            ],
            images=(),
            group=None,
            label=None,
            split=None,
        )
        for number in range(ROWS_PER_STEP)
    ]
    write_rows(written, folder / "train")
    write_rows(written[:2], folder / "validation")
    return folder / "train", folder / "validation"


def one_step(rows: Rows, micro_batch: int, **changes: Any) -> TrialConfig:
    return text_config(
        rows,
        training__batch_size=ROWS_PER_STEP,
        training__micro_batch=micro_batch,
        budget=BudgetSpec(max_steps=1, reports=1),
        **changes,
    )


@pytest.mark.parametrize(
    ("task", "base", "sizes"),
    [
        ("text-sft", "tiny:qwen2", range(1, ROWS_PER_STEP + 1)),
        ("vlm-sft", "tiny:gemma3", (1, 3, ROWS_PER_STEP)),
        ("vlm-sft", "tiny:qwen2.5-vl", (1, 3, ROWS_PER_STEP)),
    ],
)
def test_the_gradients_of_a_step_do_not_depend_on_its_parts(
    rows: Rows,
    image_rows: Rows,
    inside: Inside,
    tmp_path: Path,
    gradients: list[Gradients],
    task: str,
    base: str,
    sizes: Sequence[int],
) -> None:
    taken = rows if task == "text-sft" else image_rows
    for size in sizes:
        config = one_step(taken, size, task=task, model__base=base, lora__dropout=0.0)
        result = inside.run(tmp_path / str(size), config)
        assert result.fit is not None
        assert (result.fit.rows, result.halvings) == (size, [])
    whole = gradients.pop()
    assert len(gradients) == len(sizes) - 1
    assert any(gradient.abs().max() > 1e-3 for gradient in whole.values())
    for parts in gradients:
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_in_one_part_it_is_the_stock_trainer_bit_for_bit(rows: Rows, inside: Inside, tmp_path: Path) -> None:
    config = changed(one_step(rows, ROWS_PER_STEP), budget=BudgetSpec(max_steps=3, reports=1))
    inside.run(tmp_path / "own", config)
    own = JobFolder(tmp_path / "own").read_history()
    assert [(point.loss, point.learning_rate) for point in own] == stock(config, inside, tmp_path / "stock")


def stock(config: TrialConfig, inside: Inside, folder: Path) -> list[tuple[float, float]]:
    """(loss, learning rate) of each step of trl's own trainer on the same rows."""
    training = config.training
    task = TASKS[config.task]
    base = inside.bases.get(task, config.model)
    encoder = Encoder(base.fresh_processor(), config.rows, has_images=False)
    torch.manual_seed(training.seed)
    model = attach(base.fresh_model(), config.lora)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=config.budget.max_steps or 0,
            learning_rate=training.learning_rate,
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=1,
            lr_scheduler_type=training.lr_scheduler,
            warmup_steps=training.warmup_ratio,
            gradient_checkpointing=False,
            loss_type="nll",
            seed=training.seed,
            data_seed=training.seed,
            bf16=False,
            use_cpu=True,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            max_length=None,
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.load_from_disk(str(config.train_rows)),
        processing_class=encoder.processor,
        data_collator=encoder.collate,
    )
    to_float32(model)
    trainer.train()
    return [(log["loss"], log["learning_rate"]) for log in trainer.state.log_history if "loss" in log]


class TestOutOfMemory:
    """The border that is faked is the allocator: after `large` forwards it says no to more than `most` rows."""

    def make_small(self, monkeypatch: pytest.MonkeyPatch, most: int, large: int) -> None:
        batch = Generation.batch
        met: list[int] = []

        def too_large(method: Generation, rows: list[Encoded]) -> Any:
            met.append(len(rows))
            if len(rows) > most and len(met) > large:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return batch(method, rows)

        monkeypatch.setattr(Generation, "batch", too_large)

    def test_the_step_is_done_again_in_smaller_parts(
        self, rows: Rows, inside: Inside, tmp_path: Path, gradients: list[Gradients], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the middle of it, and the same as if it had begun with them, dropout and all."""
        self.make_small(monkeypatch, most=1, large=1)
        result = inside.run(tmp_path / "halved", one_step(rows, 4))
        assert result.outcome is Outcome.COMPLETE
        assert result.fit is not None
        assert (result.fit.rows, result.halvings) == (1, [4, 2])
        assert inside.run(tmp_path / "small", one_step(rows, 1)).halvings == []
        halved, small = gradients
        torch.testing.assert_close(halved, small, rtol=0, atol=0)

    def test_one_row_that_does_not_fit_is_an_answer(
        self, rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.make_small(monkeypatch, most=0, large=0)
        folder = JobFolder(tmp_path / "trial")
        config = one_step(rows, ROWS_PER_STEP)
        folder.prepare(config)
        result: TrialResult = inside.attempt(Answering(), folder, config)
        assert result.outcome is Outcome.OUT_OF_MEMORY
        assert result.bytes_needed is not None
        assert result.bytes_needed > 2 * 2**30
        assert str(result.reason).startswith("while training: OutOfMemoryError: CUDA out of memory")

    def test_an_optimizer_without_room_for_its_state_is_told_as_such(
        self, rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Smaller parts would not help: by then their memory is free."""

        def step(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        monkeypatch.setattr(torch.optim.AdamW, "step", step)
        folder, config = JobFolder(tmp_path / "trial"), one_step(rows, ROWS_PER_STEP)
        folder.prepare(config)
        result = inside.attempt(Answering(), folder, config)
        assert (result.outcome, result.halvings) == (Outcome.OUT_OF_MEMORY, [])
        assert str(result.reason).startswith("while updating the weights: OutOfMemoryError")


def test_parts_are_as_equal_as_can_be_with_little_padding() -> None:
    lengths = [3, 9, 4, 8, 5, 7, 6]
    rows = [Encoded({"input_ids": torch.zeros(length)}, {}, torch.zeros(length)) for length in lengths]
    assert [[len(row) for row in part] for part in micro_batches(rows, 3)] == [[9, 8], [7, 6], [5, 4, 3]]
    assert [len(row) for row in micro_batches(rows, 7)[0]] == lengths, "one part keeps the order of the data"


def test_what_parts_share_is_asked_of_a_model_that_learns(
    rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also directly after a validation, as in a run that continues from a checkpoint there."""
    modes: list[bool] = []

    def shared(method: Generation, model: Any, rows: list[Encoded], size: int) -> dict[str, Any]:
        del method, rows, size
        modes.append(model.training)
        return {}

    monkeypatch.setattr(Generation, "shared", shared)
    inside.run(tmp_path / "trial", changed(one_step(rows, ROWS_PER_STEP), budget=BudgetSpec(max_steps=2, reports=2)))
    assert modes == [True, True]
