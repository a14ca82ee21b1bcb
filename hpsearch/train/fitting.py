"""The micro-batch: how many rows go through the model at once. Predicted from the model itself, tried once, remembered.

Two forward and backward passes, of the longest row and of the longest two, tell the memory of a row and the memory
without rows; it grows by the same amount with each further row of that length. The largest micro-batch that should fit
is tried once if it would take more than half of the memory. Gradient checkpointing recomputes activations instead of
keeping them: `auto` turns it on only if otherwise few rows would fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from datasets import Dataset

from hpsearch.train.encoding import Encoded, Row
from hpsearch.train.failure import unless_out_of_memory
from hpsearch.train.memory import device_name
from hpsearch.train.peak import peak_bytes, room_bytes
from hpsearch.trial import Fit, TrialConfig

ENOUGH_ROWS = 4
"""From this many rows per forward on, recomputing every activation for more rows is not worth it."""
_CANDIDATES = 64
"""Number of rows with the longest text, and of rows with the most images; the longest of these in tokens are used."""
_OPTIMIZER_BYTES = {"adamw_torch": 8, "adamw_8bit": 2, "lion_8bit": 1}
"""Bytes per trained parameter on the device; paged optimizers keep their state in managed memory, the others use almost
none.
"""

Probe = Callable[[list[Encoded], bool], None]
"""Forward and backward of rows, with or without gradient checkpointing; frees everything afterwards."""


def shape_of(config: TrialConfig) -> str:
    """Everything that affects the memory of a forward besides the device."""
    training = config.training
    parts = [
        config.task,
        config.model.model_dump_json(),
        config.lora.model_dump_json(exclude={"alpha", "dropout"}) + str(config.lora.dropout > 0),
        config.rows.model_dump_json(),
        config.answers.model_dump_json(exclude={"preference"}) + config.answers.preference.loss,
        config.train_rows.name,
        f"{training.batch_size} {training.micro_batch} {training.gradient_checkpointing} {training.optimizer}",
        str(config.budget.memory_gib),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def known_fit(config: TrialConfig) -> Fit | None:
    """The result of an earlier trial on such a device; the fewest rows where results differ."""
    device, shape = device_name(), shape_of(config)
    found = [fit for fit in config.fits if (fit.device, fit.shape) == (device, shape)]
    return min(found, key=lambda fit: fit.rows, default=None)


def longest_rows(rows: Dataset, num_tokens: Callable[[Row], int], count: int) -> list[Row]:
    """`count` rows, the longest first; repeated where there are fewer."""
    lengths = [0] * len(rows)
    for column in {"messages", "examples"} & set(rows.column_names):
        for position, turns in enumerate(rows[column]):
            lengths[position] += sum(len(turn["content"]) for turn in turns)
    for position, other in enumerate(rows["rejected"] if "rejected" in rows.column_names else []):
        lengths[position] += len(other)
    by_length = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    num_images = list(map(len, rows["images"])) if "images" in rows.column_names else [0] * len(rows)
    by_images = sorted(by_length, key=num_images.__getitem__, reverse=True)
    most = max(_CANDIDATES, count)
    positions = dict.fromkeys(by_length[:most] + by_images[:most])
    longest = sorted((rows[position] for position in positions), key=num_tokens, reverse=True)
    return [longest[number % len(longest)] for number in range(count)]


@dataclass(frozen=True)
class _Line:
    """Bytes as a linear function of the rows per forward."""

    fixed: int
    per_row: int

    def of(self, num_rows: int) -> int:
        return self.fixed + self.per_row * num_rows

    def most(self, room: int) -> int:
        return max(0, room - self.fixed) // max(1, self.per_row)


def find_fit(config: TrialConfig, read: Callable[[], list[Encoded]], trainable: int, probe: Probe) -> Fit:
    """`read` returns the rows of one step, the longest of the data; it is called only if something must be measured.
    `trainable` parameters have an optimizer state.

    Raises: torch.OutOfMemoryError: one row does not fit.
    """
    training = config.training
    if training.micro_batch != "auto" and training.gradient_checkpointing != "auto":
        return _fit(config, min(training.micro_batch, training.batch_size), training.gradient_checkpointing)
    rows = read()
    state = _OPTIMIZER_BYTES.get(training.optimizer, 0) * trainable
    room = room_bytes(config.budget.memory_gib) - state
    is_given = training.micro_batch != "auto"
    wanted = len(rows) if training.micro_batch == "auto" else min(training.micro_batch, len(rows))
    enough = wanted if is_given else min(wanted, ENOUGH_ROWS)
    choices = [False, True] if training.gradient_checkpointing == "auto" else [training.gradient_checkpointing]
    best: tuple[int, bool, int] | None = None
    """Rows per forward, whether it recomputes, and the predicted bytes."""
    for recomputes in choices:
        line = _measured(rows, recomputes, probe, may_fail=recomputes is not choices[-1] or best is not None)
        if line is None:
            continue
        most = min(wanted, max(1, line.most(room)))
        if best is None or most > best[0]:
            best = (most, recomputes, line.of(most))
        if most >= enough:
            break
    assert best is not None
    most, recomputes, predicted = best
    if predicted > room / 2 and not is_given:
        most = _tried(rows, most, recomputes, probe)
    return _fit(config, wanted if is_given else most, recomputes, predicted + state, room + state)


def _fit(
    config: TrialConfig, rows: int, recomputes: bool, predicted: int | None = None, room: int | None = None
) -> Fit:
    return Fit(
        device=device_name(),
        shape=shape_of(config),
        rows=rows,
        gradient_checkpointing=recomputes,
        predicted_bytes=predicted,
        room_bytes=room,
    )


def _measured(rows: list[Encoded], recomputes: bool, probe: Probe, *, may_fail: bool) -> _Line | None:
    """From the peaks of one row and of two: their difference is the memory of a row, and the rest of the first does not
    depend on rows. None: not even one row fits, if `may_fail`.
    """
    one = unless_out_of_memory(lambda: peak_bytes(lambda: probe(rows[:1], recomputes)), may_fail=may_fail)
    if one is None:
        return None
    if len(rows) == 1:
        return _Line(one[0], 0)
    two = unless_out_of_memory(lambda: peak_bytes(lambda: probe(rows[:2], recomputes)))
    if two is None:  # so the whole peak of one row counts as the row's own
        return _Line(0, one[0])
    return _Line(2 * one[0] - two[0], two[0] - one[0])


def _tried(rows: list[Encoded], most: int, recomputes: bool, probe: Probe) -> int:
    """`most`, or half of it and so on, until it really fits."""
    while most > 1 and unless_out_of_memory(partial(probe, rows[:most], recomputes)) is None:
        most //= 2
    return most
