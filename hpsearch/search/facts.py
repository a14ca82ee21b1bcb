"""What is stored with a trial besides its values: by how much it exceeds its memory, and what the dashboard shows."""

from __future__ import annotations

from hpsearch.spec.metrics import Metric
from hpsearch.trial import GIB, MIB, Outcome, TrialResult

_TRACEBACK_CHARACTERS = 8000
FIT = "fit"
"""The attribute of a trial that later trials read."""
STARTED_OVER = "started_over"
"""Why an attempt did not continue from the checkpoint of the one before."""


def memory_violation(result: TrialResult, memory_gib: float | None) -> float | None:
    """How far a trial exceeds the study's memory budget: above 0 is too much, -1 is none; None: no budget.

    Compared with the memory that the study declares, not with this card's: a 24 GiB trial that ran on an 80 GiB card
    does not help someone with 16. What counts is the memory that the driver sees of the process, including CUDA's
    context and the pool's fragments. Optuna's samplers avoid trials that violate a constraint, while they ignore a
    FAILed trial. With a budget every trial has a number, measured or not: Optuna's GPSampler raises when some trials
    have constraints and some don't (5.0.0, samplers/_gp/sampler.py, `_get_constraint_vals_and_feasibility`).
    """
    out_of_memory = result.outcome is Outcome.OUT_OF_MEMORY
    if memory_gib is None:
        return 1.0 if out_of_memory else None
    used = result.bytes_needed if out_of_memory else result.ledger and result.ledger.used_device_bytes
    if not used:
        return 1.0 if out_of_memory else -1.0
    violation = used / (memory_gib * GIB) - 1
    return max(violation, 1e-3) if out_of_memory else violation


def _fit_facts(result: TrialResult) -> dict[str, str | int | float | bool | None]:
    if (fit := result.fit) is None:
        return {}
    real = result.ledger.peak_allocated_bytes if result.ledger else 0
    is_comparable = fit.predicted_bytes and real and not result.halvings
    return {
        "memory_predicted_to_real": round((fit.predicted_bytes or 0) / real, 3) if is_comparable else None,
        "micro_batch": fit.rows,
        "gradient_checkpointing": fit.gradient_checkpointing,
        "halvings": ", ".join(map(str, result.halvings)) or None,
        FIT: fit.model_dump_json(),
    }


def _pace_facts(result: TrialResult) -> dict[str, str | int | float | bool | None]:
    """Training is what is left."""
    if (pace := result.pace) is None or not pace.whole_s:
        return {}
    loading, validation = sum(pace.base_s) + sum(pace.fit_s), sum(pace.validation_s)
    parts = {"seconds.loading": loading, "seconds.validation": validation, "seconds.whole": pace.whole_s}
    return {name: round(seconds, 2) for name, seconds in parts.items()}


def facts(result: TrialResult, objective: Metric) -> dict[str, str | float | int | bool]:
    """What the dashboard shows of a trial besides its values and parameters; `objective` is the study's first."""
    report = result.report_that_counts(objective)
    shown: dict[str, str | float | int | bool | None] = {
        **({"validation_loss": report.loss, **report.metrics} if report and report.metrics else {}),
        "best_report": report.step if report and result.outcome is Outcome.COMPLETE else None,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "seconds": round(result.train_seconds, 1),
        "optimizer_steps": result.num_steps,
        "trainable_percent": round(result.trainable_percent, 4),
        **_fit_facts(result),
        **_pace_facts(result),
        "bytes_needed": result.bytes_needed,
        "traceback": result.traceback and result.traceback[-_TRACEBACK_CHARACTERS:],
    }
    if ledger := result.ledger:
        shown |= {
            "ledger.closes": ledger.closes,
            "ledger.not_given_back": ", ".join(ledger.not_given_back) or None,
            "ledger.peak_device_gib": round(ledger.used_device_bytes / GIB, 3),
            "ledger.peak_allocated_gib": round(ledger.peak_allocated_bytes / GIB, 3) or None,
            "ledger.context_is_estimated": ledger.is_context_estimated or None,
            "ledger.peak_host_gib": round(ledger.peak_host_bytes / GIB, 3),
            "ledger.host_mib_after": round(ledger.after.host_rss_bytes / MIB, 2),
            "ledger.device_mib_after": round(ledger.after.device_allocated_bytes / MIB, 2),
            "ledger.live_tensors_after": ledger.after.live_tensors,
            "ledger.base_fingerprint": ledger.after.base_fingerprint,
        }
        if ledger.witnessed_device_bytes is not None:
            shown["ledger.witnessed_device_mib"] = round(ledger.witnessed_device_bytes / MIB, 1)
    return {name: fact for name, fact in shown.items() if fact is not None}
