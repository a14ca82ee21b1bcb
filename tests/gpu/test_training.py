"""4-bit training on CUDA: it learns, in the compute type that the card has, with a paged optimizer too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.spec.model import ModelSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import Outcome, TrialResult
from tests.integration.conftest import Driver, changed, text_config
from tests.integration.preference_fixtures import CHAT, config_of, labelled, polite_pairs, written

pytestmark = pytest.mark.needs_gpu

Rows = tuple[Path, Path]
StartDriver = Callable[[], Driver]
LEARNING: dict[str, Any] = {"budget": BudgetSpec(max_steps=16, reports=4), "training__learning_rate": 5e-3}
RANK_OF_PAGED_STATES = 512
"""bitsandbytes pages the states of tensors with 100,000 elements or more: 512 × 256 in tiny:qwen2's MLP."""


def assert_learned(result: TrialResult) -> None:
    assert result.outcome is Outcome.COMPLETE, result.reason
    first, *_, last = [report.loss for report in result.reports]
    assert last < 0.8 * first


def test_a_text_trial_learns(start_driver: StartDriver, text_rows: Rows, tmp_path: Path) -> None:
    driver = start_driver()
    result = driver.run(tmp_path / "trial", text_config(text_rows, **LEARNING))
    assert_learned(result)
    assert not driver.process.device.startswith("CPU")
    assert driver.was_clean, result.ledger
    assert result.ledger is not None
    assert result.ledger.peak_device_bytes > result.ledger.after.device_allocated_bytes > 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_vision_trial_learns(
    start_driver: StartDriver, image_rows: Rows, tmp_path: Path, checkpointing: bool
) -> None:
    config = changed(text_config(image_rows, **LEARNING), task="vlm-sft", model__base="tiny:gemma3", lora__vision=True)
    driver = start_driver()
    assert_learned(driver.run(tmp_path / "trial", changed(config, training__gradient_checkpointing=checkpointing)))
    assert driver.was_clean


@pytest.mark.parametrize("loss", ["sigmoid", "orpo", "kto"])
def test_preferences_are_learned(start_driver: StartDriver, tmp_path: Path, loss: str) -> None:
    """With trl's fused head as a kernel, under autocast, and on from an adapter with a copy of that for reference."""
    rows, rows_config = polite_pairs(32), CHAT
    if loss == "kto":
        rows = [labelled(n, f"Is {n} a number?", "no" if n % 2 else "yes", n % 2 == 0) for n in range(32)]
        rows_config = CHAT.model_copy(update={"row_format": "labelled"})
    config = config_of(written(tmp_path / "rows", rows, 24), rows_config, {"loss": loss}, **LEARNING)
    driver = start_driver()
    result = driver.run(tmp_path / "first", config)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert result.reports[-1].loss < result.reports[0].loss
    start = next((tmp_path / "first").rglob("checkpoint-16"))
    further = changed(config, model__adapter=str(start), training__gradient_checkpointing=True)
    again = driver.run(tmp_path / "again", further)
    assert again.outcome is Outcome.COMPLETE, again.reason
    assert driver.was_clean, again.ledger


@pytest.mark.parametrize("optimizer", ["paged_adamw_8bit", "paged_adamw_32bit", "adamw_8bit"])
def test_an_optimizer_of_bitsandbytes_learns(
    start_driver: StartDriver, text_rows: Rows, tmp_path: Path, optimizer: str
) -> None:
    config = text_config(text_rows, **LEARNING, training__optimizer=optimizer, lora__r=RANK_OF_PAGED_STATES)
    config = changed(config, lora__alpha=RANK_OF_PAGED_STATES, training__learning_rate=5e-4)
    assert config.taints_process == optimizer.startswith("paged")
    assert_learned(start_driver().run(tmp_path / "trial", config))


def test_it_computes_in_bfloat16_where_the_card_has_it() -> None:
    import torch
    from bitsandbytes.nn import Linear4bit

    from hpsearch.train.bases import compute_dtype, load_base
    from hpsearch.train.loss import mixed_precision
    from hpsearch.train.tasks import TASKS

    has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    wanted = torch.bfloat16 if has_it else torch.float16
    spec = ModelSpec(base="tiny:qwen2")
    assert compute_dtype(spec) is wanted
    model = load_base(TASKS["text-sft"], spec, lambda *_: None).fresh_model()
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers
    assert {layer.weight.device.type for layer in layers} == {"cuda"}
    assert {layer.compute_dtype for layer in layers} == {wanted}
    computed = set()
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: computed.add(output.dtype))
    with torch.no_grad(), mixed_precision(model.device, wanted):
        model(input_ids=torch.zeros((1, 8), dtype=torch.long, device="cuda"))
    assert computed == {wanted}


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_base_in_the_card_s_own_type_says_what_one_in_float32_says(quantization: str) -> None:
    """Nothing but float16's embeddings and norms is float32, and its loss is finite and near."""
    import torch

    from hpsearch.train.bases import compute_dtype, load_base
    from hpsearch.train.loss import token_losses
    from hpsearch.train.tasks import TASKS

    own = compute_dtype(ModelSpec(base="tiny:gemma3"))
    losses = {}
    for dtype in (torch.float32, own):
        name = str(dtype).removeprefix("torch.")
        spec = ModelSpec(base="tiny:gemma3", dtype=name, quantization=quantization)  # type: ignore[arg-type]
        model = load_base(TASKS["vlm-sft"], spec, lambda *_: None).fresh_model()
        kinds = {weight.dtype for weight in model.parameters()} - {torch.uint8}
        assert kinds == ({own, torch.float32} if dtype is torch.float16 else {dtype})
        ids = torch.arange(5, 101).reshape(2, 48)
        labels = torch.where(torch.arange(48) < 8, -100, ids)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        totals, counts = token_losses(model, batch, dtype)
        losses[dtype] = float(totals.sum() / counts.sum())
    assert losses[own] == pytest.approx(losses[torch.float32], rel=5e-3)


@pytest.mark.parametrize("dtype", ["auto", "float16"])
def test_a_base_read_from_its_copy_is_the_one_that_was_quantized_here(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpsearch.train import quantized
    from hpsearch.train.bases import load_base
    from hpsearch.train.tasks import TASKS

    monkeypatch.setattr(quantized, "quantized_bases", lambda: tmp_path)
    spec = ModelSpec(base="tiny:gemma3", dtype=dtype)  # type: ignore[arg-type]
    anew, read = (load_base(TASKS["vlm-sft"], spec, lambda *_: None) for _ in range(2))
    assert [base.model.hf_quantizer.pre_quantized for base in (anew, read)] == [False, True]  # type: ignore[union-attr]
    assert {weight.device.type for weight in read.model.parameters()} == {"cuda"}
    assert anew.fingerprint() == read.fingerprint()
