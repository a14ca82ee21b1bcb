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
"""So many rows per forward are not worth recomputing every activation for more of them."""
_CANDIDATES = 64
"""Rows whose text is longest, and as many that have the most images, of which the longest in tokens are taken."""
_OPTIMIZER_BYTES = {"adamw_torch": 8, "adamw_8bit": 2, "lion_8bit": 1}
"""Per trained parameter, on the device; paged ones keep their state in managed memory, the others next to none."""

Probe = Callable[[list[Encoded], bool], None]
"""Forward and backward of rows, with gradient checkpointing or without; whatever it left is gone afterwards."""


def shape_of(config: TrialConfig) -> str:
    """What decides on the memory of a forward besides the device."""
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
    """What an earlier trial found on such a device; the fewest rows where trials differ."""
    device, shape = device_name(), shape_of(config)
    found = [fit for fit in config.fits if (fit.device, fit.shape) == (device, shape)]
    return min(found, key=lambda fit: fit.rows, default=None)


def longest_rows(rows: Dataset, num_tokens: Callable[[Row], int], count: int) -> list[Row]:
    """`count` rows, the longest first; one twice where there are fewer."""
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
    """Bytes as they grow with the rows of a forward."""

    fixed: int
    per_row: int

    def of(self, num_rows: int) -> int:
        return self.fixed + self.per_row * num_rows

    def most(self, room: int) -> int:
        return max(0, room - self.fixed) // max(1, self.per_row)


def find_fit(config: TrialConfig, read: Callable[[], list[Encoded]], trainable: int, probe: Probe) -> Fit:
    """`read` gives as many rows as a step has, the longest of the data; it is asked where something is to be measured.
    `trainable` parameters have a state in the optimizer.

    Raises:
        torch.OutOfMemoryError: one row does not fit.
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
    """Rows per forward, whether it recomputes, and the bytes predicted for them."""
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
    """From the peaks of one row and of two: a row takes their difference, and what is left of the first was there
    without rows. None: not even one row fits, where that may be."""
    one = unless_out_of_memory(lambda: peak_bytes(lambda: probe(rows[:1], recomputes)), may_fail=may_fail)
    if one is None:
        return None
    if len(rows) == 1:
        return _Line(one[0], 0)
    two = unless_out_of_memory(lambda: peak_bytes(lambda: probe(rows[:2], recomputes)))
    if two is None:  # so all of one row's peak is taken for the row's own
        return _Line(0, one[0])
    return _Line(2 * one[0] - two[0], two[0] - one[0])


def _tried(rows: list[Encoded], most: int, recomputes: bool, probe: Probe) -> int:
    """`most`, or half of it and so on: what really fits."""
    while most > 1 and unless_out_of_memory(partial(probe, rows[:most], recomputes)) is None:
        most //= 2
    return most
