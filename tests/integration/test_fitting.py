"""How many rows a forward takes: predicted from the model, tried once, remembered; and nothing of it is left."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import hpsearch.train.fitting as fitting
import hpsearch.train.loop as loop
import hpsearch.train.peak as peak
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.encoding import Encoded
from hpsearch.train.features import Features
from hpsearch.train.fitting import find_fit, known_fit
from hpsearch.train.peak import keep_within, peak_bytes, room_bytes
from hpsearch.train.tasks.generation import Generation
from hpsearch.train.trainer import ReportingTrainer
from hpsearch.trial import GIB, MIB, Fit, Outcome, TrialConfig, TrialResult
from tests.integration.conftest import text_config
from tests.integration.inside import Inside

Rows = tuple[Path, Path]


def config_of(rows: Rows, **changes: Any) -> TrialConfig:
    usual = {
        "budget": BudgetSpec(max_steps=1, reports=1),
        "training__gradient_checkpointing": "auto",
        "training__batch_size": 16,
    }
    return text_config(rows, **{**usual, **changes})


def fit_of(result: TrialResult) -> Fit:
    assert result.outcome is Outcome.COMPLETE
    assert result.fit is not None
    return result.fit


class TestARealModel:
    def test_the_prediction_is_near_the_real_peak(
        self, text_rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And what fits by it is what fits: the room is faked, and so the smallest that takes seven rows."""
        seen: dict[int, int] = {}
        probe = ReportingTrainer.probe

        def spy(trainer: ReportingTrainer, rows: list[Encoded], recomputes: bool) -> None:
            seen[len(rows)] = peak_bytes(lambda: probe(trainer, rows, recomputes))

        whole = fit_of(inside.run(tmp_path / "roomy", config_of(text_rows)))
        assert (whole.rows, whole.gradient_checkpointing) == (16, False)
        monkeypatch.setattr(ReportingTrainer, "probe", spy)
        small = (whole.predicted_bytes or 0) * 7 // 16 + MIB
        monkeypatch.setattr(fitting, "room_bytes", lambda _: small)
        fit = fit_of(inside.run(tmp_path / "tight", config_of(text_rows)))
        assert 5 <= fit.rows <= 8
        assert fit.predicted_bytes is not None
        assert fit.predicted_bytes <= small
        state = 8 * inside.run(tmp_path / "again", config_of(text_rows)).trainable_parameters
        assert fit.predicted_bytes - state == pytest.approx(seen[fit.rows], rel=0.1)

    def test_activations_are_recomputed_only_where_memory_asks_for_it(
        self, text_rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keeping = fit_of(inside.run(tmp_path / "roomy", config_of(text_rows)))
        told = config_of(text_rows, training__gradient_checkpointing=True, training__batch_size=4)
        four = fit_of(inside.run(tmp_path / "four", told))
        monkeypatch.setattr(fitting, "room_bytes", lambda _: (four.predicted_bytes or 0) + MIB // 2)
        recomputing = fit_of(inside.run(tmp_path / "tight", config_of(text_rows)))
        assert (keeping.gradient_checkpointing, recomputing.gradient_checkpointing) == (False, True)
        told = config_of(text_rows, training__gradient_checkpointing=False)
        assert not fit_of(inside.run(tmp_path / "told", told)).gradient_checkpointing

    def test_looking_leaves_nothing_and_is_done_once(
        self, text_rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The losses are those of a trial that knew: an adapter with dropout, drawn from the same random state."""
        config = config_of(text_rows, budget=BudgetSpec(max_steps=3, reports=3))
        looked = inside.run(tmp_path / "looked", config)
        monkeypatch.setattr(loop, "find_fit", None)
        knew = inside.run(tmp_path / "knew", config.model_copy(update={"fits": [fit_of(looked)]}))
        assert knew.reports == looked.reports
        assert knew.fit == looked.fit

    def test_images_are_read_and_asked_before_anything_is_measured(
        self, image_rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As many as a step has: of a tower's peak in the first measurement, a second row would seem to take little."""
        encoded: list[int] = []
        asked: list[bool] = []
        measuring: list[bool] = []

        def measured(work: Callable[[], None]) -> int:
            measuring.append(True)
            found = peak_bytes(work)
            measuring.pop()
            return found

        encode, answer = Generation.encode, Features._run_tower
        monkeypatch.setattr(Generation, "encode", lambda method, row: encoded.append(1) or encode(method, row))
        monkeypatch.setattr(Features, "_run_tower", lambda *given: asked.append(bool(measuring)) or answer(*given))
        monkeypatch.setattr(fitting, "peak_bytes", measured)
        monkeypatch.setattr(ReportingTrainer, "train", lambda _: None)
        config = config_of(image_rows, task="vlm-sft", model__base="tiny:gemma3", training__batch_size=4)
        fit = inside.run(tmp_path / "images", config).fit
        assert fit is not None
        assert fit.predicted_bytes
        assert len(encoded) == 4
        assert asked
        assert not any(asked)

    def test_another_shape_is_looked_at_again(self, text_rows: Rows, inside: Inside, tmp_path: Path) -> None:
        config = config_of(text_rows)
        fit = fit_of(inside.run(tmp_path / "one", config))
        fewer = fit.model_copy(update={"rows": 3})
        assert known_fit(config.model_copy(update={"fits": [fit, fewer]})) == fewer
        assert known_fit(config_of(text_rows, lora__r=4, fits=[fit])) is None
        assert known_fit(config_of(text_rows, fits=[fit.model_copy(update={"device": "another"})])) is None
        assert known_fit(config_of(text_rows, lora__dropout=0.3, fits=[fit])) == fit


class TestChoosing:
    """On rows of 1 MiB each, beside 10 MiB that are always there; recomputing halves them."""

    def choose(
        self, config: TrialConfig, room: int, monkeypatch: pytest.MonkeyPatch, refuses: int = 10**6
    ) -> tuple[Fit, list[int]]:
        tried: list[int] = []

        def probe(rows: list[Encoded], recomputes: bool) -> None:
            tried.append(len(rows))
            if len(rows) > refuses:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            num_bytes = 10 * MIB + len(rows) * (MIB // 2 if recomputes else MIB)
            torch.zeros(num_bytes, dtype=torch.uint8)

        monkeypatch.setattr(fitting, "room_bytes", lambda _: room * MIB)
        rows = [Encoded({"input_ids": torch.zeros(1)}, {}, torch.zeros(1))] * config.training.batch_size
        return find_fit(config, lambda: rows, 0, probe), tried

    @pytest.mark.parametrize(
        ("room", "micro_batch", "checkpointing", "rows", "recomputes"),
        [
            (100, "auto", "auto", 16, False),
            (20, "auto", "auto", 10, False),  # more than enough, if not all
            (12, "auto", "auto", 4, True),
            (12, "auto", False, 2, False),
            (5, "auto", "auto", 1, False),  # nothing fits by this count: the smallest is left to try
            (20, 12, "auto", 12, True),
            (100, 12, "auto", 12, False),
            (1, 12, False, 12, False),
        ],
    )
    def test_rows_and_recomputing(
        self,
        text_rows: Rows,
        monkeypatch: pytest.MonkeyPatch,
        room: int,
        micro_batch: Any,
        checkpointing: Any,
        rows: int,
        recomputes: bool,
    ) -> None:
        config = config_of(text_rows, training__micro_batch=micro_batch, training__gradient_checkpointing=checkpointing)
        fit, _ = self.choose(config, room, monkeypatch)
        assert (fit.rows, fit.gradient_checkpointing) == (rows, recomputes)

    def test_what_does_not_fit_after_all_is_halved(self, text_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
        fit, tried = self.choose(config_of(text_rows), 30, monkeypatch, refuses=5)
        assert tried == [1, 2, 16, 8, 4]
        assert fit.rows == 4

    def test_one_row_that_does_not_fit_is_raised(self, text_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(torch.OutOfMemoryError):
            self.choose(config_of(text_rows), 30, monkeypatch, refuses=0)


def test_a_peak_counts_what_lives_at_once() -> None:
    def work() -> None:
        kept = torch.zeros(MIB, dtype=torch.uint8)
        for _ in range(3):
            torch.zeros(2 * MIB, dtype=torch.uint8)
        kept.view(-1).add_(1)

    assert peak_bytes(work) == 3 * MIB


class TestTheCard:
    """Of 16 GiB, of which the context has taken 0.2 so far; returns the limit that torch's allocator is given."""

    def told(self, monkeypatch: pytest.MonkeyPatch, *budgets: float | None, as_started: float = 1.0) -> list[float]:
        fraction = [as_started]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=16 * GIB))
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: fraction[-1])
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fraction.append)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (16 * GIB, 16 * GIB))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
        monkeypatch.setattr(peak, "beside_torch", lambda: (GIB // 5, False))
        monkeypatch.setattr(peak, "_pool_as_started", cache(peak._pool_as_started.__wrapped__))
        for memory_gib in budgets:
            keep_within(memory_gib)
        return fraction[1:]

    def test_a_budget_has_room_for_kernels_that_are_loaded_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else a pool that fills its limit would be beyond the budget as soon as they are."""
        assert self.told(monkeypatch, 8.0) == [7.5 / 16]
        assert room_bytes(8.0) == int(7.5 * GIB * 0.92)

    def test_another_budget_is_another_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.told(monkeypatch, 4.0, 8.0, None, 0.1) == [3.5 / 16, 7.5 / 16, 1.0, 1 / (16 * GIB)]

    def test_a_limit_of_the_person_s_own_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.told(monkeypatch, None, 8.0, 2.0, None, as_started=0.25) == [0.25, 0.25, 1.5 / 16, 0.25]
        assert room_bytes(None) == int(4 * GIB * 0.92)
