"""What a result becomes in the store: its facts with their units, and how far it is beyond the memory budget."""

from __future__ import annotations

import pytest
from contract_parts import ledger_of

from hpsearch.search.facts import facts, memory_violation
from hpsearch.spec.metrics import LOSS
from hpsearch.trial import GIB, Fit, Outcome, TrialResult

CUDA = {"peak_allocated_bytes": 2 * GIB, "is_context_estimated": True}
OOM, RAN = Outcome.OUT_OF_MEMORY, Outcome.COMPLETE


class TestFacts:
    @pytest.mark.parametrize(
        ("outcome", "bytes_needed", "peak", "memory_gib", "violation"),
        [
            (OOM, 32 * GIB, None, None, 1.0),
            (RAN, None, 32 * GIB, None, None),
            (OOM, None, None, 16, 1.0),
            (OOM, 24 * GIB, None, 16, 0.5),
            (OOM, 8 * GIB, None, 16, 1e-3),  # a small card ran out of what the budget allows: too much all the same
            (OOM, 24 * GIB, 8 * GIB, 16, 0.5),
            (RAN, None, 24 * GIB, 16, 0.5),
            (RAN, None, 16 * GIB, 16, 0.0),
            (RAN, None, 8 * GIB, 16, -0.5),
            (RAN, None, 0, 16, -1.0),
            (RAN, None, None, 16, -1.0),
            (Outcome.DIVERGED, None, 24 * GIB, 16, 0.5),
            (Outcome.FAILED, None, None, None, None),
        ],
    )
    def test_the_violation_of_a_memory_budget(
        self,
        outcome: Outcome,
        bytes_needed: int | None,
        peak: int | None,
        memory_gib: float | None,
        violation: float | None,
    ) -> None:
        ledger = None if peak is None else ledger_of(peak)
        result = TrialResult(outcome=outcome, bytes_needed=bytes_needed, ledger=ledger)
        assert memory_violation(result, memory_gib) == violation

    def test_what_the_driver_saw_counts_where_it_is_more(self) -> None:
        """Managed memory is not torch's; a short peak is not seen from outside."""
        for peak, witnessed, gib in ((8, 24, 24), (24, 8, 24), (8, None, 8)):
            seen = None if witnessed is None else witnessed * GIB
            result = TrialResult(outcome=RAN, ledger=ledger_of(peak * GIB, witnessed_peak_bytes=seen))
            assert memory_violation(result, 16) == gib / 16 - 1
            assert facts(result, LOSS)["ledger.peak_device_gib"] == gib

    def test_the_prediction_is_compared_with_the_real_peak(self) -> None:
        fit = Fit(device="card", shape="s", rows=4, gradient_checkpointing=False, predicted_bytes=9 * GIB)
        ledgers = ledger_of(12 * GIB, peak_allocated_bytes=10 * GIB)
        told = facts(TrialResult(outcome=RAN, fit=fit, ledger=ledgers), LOSS)
        assert (told["micro_batch"], told["memory_predicted_to_real"]) == (4, 0.9)
        assert Fit.model_validate_json(str(told["fit"])) == fit
        halved = facts(TrialResult(outcome=RAN, fit=fit, ledger=ledgers, halvings=[8]), LOSS)
        assert "memory_predicted_to_real" not in halved

    def test_what_is_unknown_is_left_out(self) -> None:
        assert facts(TrialResult(outcome=Outcome.PRUNED), LOSS) == {
            "outcome": "pruned",
            "seconds": 0.0,
            "optimizer_steps": 0,
            "trainable_percent": 0.0,
        }

    def test_a_result_s_facts_with_their_units(self) -> None:
        leak = ledger_of(3 * GIB, not_given_back=["threads", "hooks"], witnessed_device_bytes=5 * 2**20, **CUDA)
        result = TrialResult(
            outcome=Outcome.FAILED,
            reason="it crashed",
            train_seconds=12.345,
            num_steps=70,
            trainable_parameters=1,
            total_parameters=300,
            traceback="first" + "x" * 9000 + "last",
            bytes_needed=7,
            ledger=leak,
        )
        found = facts(result, LOSS)
        assert str(found.pop("traceback")) == "x" * 7996 + "last"
        assert found == {
            "outcome": "failed",
            "reason": "it crashed",
            "seconds": 12.3,
            "optimizer_steps": 70,
            "trainable_percent": 0.3333,
            "bytes_needed": 7,
            "ledger.closes": False,
            "ledger.not_given_back": "threads, hooks",
            "ledger.peak_device_gib": 3.0,
            "ledger.peak_allocated_gib": 2.0,
            "ledger.context_is_estimated": True,
            "ledger.peak_host_gib": 2.0,
            "ledger.host_mib_after": 3.0,
            "ledger.device_mib_after": 0.5,
            "ledger.live_tensors_after": 7,
            "ledger.base_fingerprint": "f00d",
            "ledger.witnessed_device_mib": 5.0,
        }
