"""The search space proposed around the values of a foreign file: small, with a reason for each range."""

from __future__ import annotations

from typing import Any

from hpsearch.convert.draft import Draft

FACTOR = 5


def propose(draft: Draft) -> list[tuple[str, Any, str]]:
    """(parameter, range or choices, why), for each parameter worth searching."""
    rate, batch = draft.get("training.learning_rate"), draft.get("training.batch_size")
    return [
        (
            "training.learning_rate",
            {"low": _rounded(rate / FACTOR), "high": _rounded(rate * FACTOR), "log": True},
            f"the file's value ×/÷ {FACTOR}: it matters most",
        ),
        *(_of_a_new_adapter(draft) if "r" in draft.values["lora"] else []),
        *(_of_dropout(draft.get("lora.dropout")) if "dropout" in draft.values["lora"] else []),
        (
            "training.batch_size",
            _neighbours(batch),
            f"rows per optimizer step, half and twice {batch}; how many go through the model at once is the machine's",
        ),
    ]


def _of_a_new_adapter(draft: Draft) -> list[tuple[str, Any, str]]:
    rank, alpha = draft.get("lora.r"), draft.get("lora.alpha")
    return [
        ("lora.r", _neighbours(rank), f"half and twice {rank}"),
        (
            "lora.alpha",
            _neighbours(alpha),
            f"the update is scaled by alpha / r, {alpha / rank:g} in the file; this stays within 4 times of it",
        ),
    ]


def _of_dropout(dropout: float) -> list[tuple[str, Any, str]]:
    return [("lora.dropout", sorted({0.0, 0.05, 0.1, dropout}), "0 where data is plenty, more where it is scarce")]


def _neighbours(value: int) -> list[int]:
    """Half, the same, twice; at least 1."""
    return [1, 2, 4] if value == 1 else sorted({value // 2, value, value * 2})


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
