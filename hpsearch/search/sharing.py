"""How many workers could share a card, by the memory that was predicted for the trials so far."""

from __future__ import annotations

from hpsearch.search.facts import FIT
from hpsearch.search.view import StudyView
from hpsearch.trial import GIB, MOST_PER_DEVICE, Fit

_CONTEXT_BYTES = GIB // 2
"""Approximate memory that each further process takes of a card besides its tensors."""


def sharing(view: StudyView) -> str | None:
    """A line for a person about several workers per card; None: nothing is known yet of a whole card, or a trial needs
    most of it.

    Once a forward holds a whole optimizer step, more memory makes it no faster, so another worker can use the rest. The
    trial with the highest memory counts.
    """
    fits = [Fit.model_validate_json(str(trial.facts[FIT])) for trial in view.trials if FIT in trial.facts]
    whole = [fit for fit in fits if not fit.device.startswith("CPU") and "parts" not in fit.device]
    known = [(fit.predicted_bytes, fit.room_bytes, fit) for fit in whole if fit.predicted_bytes and fit.room_bytes]
    if not known:
        return None
    taken, room, fit = max(known, key=lambda each: each[0] / each[1])
    number = min(MOST_PER_DEVICE, room // (taken + _CONTEXT_BYTES))
    if number < 2:
        return None
    return (
        f"a trial takes up to {taken / GIB:.1f} of {room / GIB:.1f} GiB on a {fit.device}: "
        f"hpsearch run --workers-per-device {number} would fit"
    )
