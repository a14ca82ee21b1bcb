"""Numbers and times in words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hpsearch.errors import cut
from hpsearch.spec.metrics import Metric
from hpsearch.trial import GIB, MIB

_MILLION = 1_000_000
_LONGEST_REASON = 160


def format_time(seconds: float) -> str:
    """2 h 05 min, 3 min 10 s or 42 s."""
    total = int(timedelta(seconds=round(seconds)).total_seconds())
    hours, rest = divmod(total, 3600)
    minutes, seconds_left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds_left:02d} s" if minutes else f"{seconds_left} s"


def format_bytes(number: float) -> str:
    """In GiB from 0.1 GiB on, below that in MiB."""
    return f"{number / GIB:.1f} GiB" if number >= 0.1 * GIB else f"{number / MIB:.1f} MiB"


def format_count(number: int) -> str:
    """12,345, or 1.2 million."""
    return f"{number / _MILLION:,.1f} million" if number >= _MILLION else f"{number:,}"


def format_trials(number: int) -> str:
    return f"{format_count(number)} trial{'' if number == 1 else 's'}"


def format_loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"


def format_metric(metric: Metric, value: float | None) -> str:
    """A share in percent; no value as ''."""
    if value is None:
        return ""
    return f"{value:.1%}" if metric.unit == "share" else f"{value:.4f}"


def format_num_steps(number: int) -> str:
    return f"{format_count(number)} step{'' if number == 1 else 's'}"


def format_epochs(epochs: float) -> str:
    return f"{epochs:g} epoch{'' if epochs == 1 else 's'}"


def format_value(value: Any) -> str:
    """As a study file has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_params(params: dict[str, Any]) -> str:
    """Every searched parameter with its value, without its section's name."""
    return ", ".join(f"{knob.partition('.')[2]} {format_value(value)}" for knob, value in params.items())


def format_reason(facts: dict[str, Any]) -> str:
    """Why a trial ended early, in one line; '' where nothing says so."""
    return cut(" ".join(str(facts.get("reason") or "").split()), _LONGEST_REASON)


def format_steps(steps: dict[str, str], line_width: int | None = None) -> str:
    """Next steps: commands, and what each is for, below it where a line has no room for both."""
    width = max(map(len, steps))
    if line_width is not None and width + max(map(len, steps.values())) + 5 > line_width:
        return "\n".join(["Next:", *(f"  {command}\n      {what}" for command, what in steps.items())])
    return "\n".join(["Next:", *(f"  {command:<{width}}   {what}" for command, what in steps.items())])
