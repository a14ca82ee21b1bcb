"""Failures have causes, and causes have consequences. `FAILURES` is the one table.

When every device of every worker is set aside, or the first three trials of a study all fail the same way, the study
pauses. Out of memory and a diverging loss are results, not failures.

A trial that died on a device is tried there again after all others: the next trial shows whose fault it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from hpsearch.errors import TrainerDied
from hpsearch.store import Lease
from hpsearch.trial import Outcome, TrialResult

MAX_STRIKES = 3
MAX_STUMBLES = 2
ALIKE = 3
_MAX_STARTS = 5
_MAX_BARREN = 3

_MACHINE = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Stale file handle|Input/output error"
    r"|Failed to find C compiler|Python\.h: No such file|'-shared', '-fPIC'.*returned non-zero exit status"
    r"|CUDA driver version is insufficient|no CUDA-capable device|CUDA initialization|Found no NVIDIA driver"
    r"|uncorrectable ECC error|GPU is lost|fallen off the bus|device(s)? is/are busy or unavailable"
)
"""Errors of a machine that can't train, whatever the trial: from the kernel, Triton, CUDA and NVML."""
_CUDA = re.compile(r"CUDA error|CUDNN_STATUS|CUBLAS_STATUS|NCCL")


class Consequence(Enum):
    TELL = "the result is stored"
    AGAIN = "the trial is released, with a strike if it trained without progress"
    SET_ASIDE = "the trial is released unchanged, and the device set aside"


@dataclass(frozen=True)
class Failure:
    """A row of the table, for people; `Doctor` acts on it."""

    what: str
    cause: str
    consequence: str


_AGAIN = "runs again, from its last checkpoint"
_ASIDE = "the device is set aside with its reason; the trial is released without a strike"
_BARREN = f"failed after {MAX_STRIKES} strikes in a row"
FAILURES = (
    Failure("an exception in the training", "the trial", "failed, once, with its traceback"),
    Failure("a worker, or a trainer that had trained, was killed or hung", "a kill", f"{_AGAIN}; {_BARREN}"),
    Failure("a trainer that had trained ended with an exit code", "a kill", f"{_AGAIN}; {_BARREN}"),
    Failure("the same exit code twice in a row, on different trials", "the machine", _ASIDE),
    Failure(f"{_MAX_BARREN} trials on one device without progress, and none that finished", "the machine", _ASIDE),
    Failure("a trainer ended before it trained", "a kill", f"{_AGAIN}, without a strike"),
    Failure(f"{_MAX_STARTS} such starts in a row", "the machine", _ASIDE),
    Failure("no space, no compiler, a device that CUDA can't use", "the machine", _ASIDE),
    Failure("the same CUDA error twice in a row, on different trials", "the machine", _ASIDE),
    Failure("a bug in hpsearch itself", "the worker", f"released; failed after {MAX_STUMBLES}, with the traceback"),
    Failure("the same bug twice in a row, on different trials", "the machine", _ASIDE),
    Failure(f"every device is set aside, or the first {ALIKE} trials fail alike", "the study", "the study pauses"),
    Failure("somebody ended a running trial with Optuna or the dashboard", "a person", "its slot is closed"),
)


@dataclass(frozen=True)
class Verdict:
    consequence: Consequence
    reason: str = ""


class Doctor:
    """Remembers how the last trials on one device ended, and judges the next."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None
        self._starts = 0
        self._barren: set[int] = set()
        self.suspects: set[int] = set()
        """Slots whose trials died here since the last trial that ended normally."""

    def of_result(self, slot: int, result: TrialResult) -> Verdict:
        self._starts = 0
        reason = result.reason or ""
        if is_machines(result):
            return Verdict(Consequence.SET_ASIDE, reason)
        if result.outcome is not Outcome.FAILED or not _CUDA.search(reason):
            self._last = None
            self._barren.clear()
            self.suspects.clear()
            return Verdict(Consequence.TELL)
        if self._is_repeated(alike(reason), slot):
            return Verdict(Consequence.SET_ASIDE, f"the second trial in a row ended with {reason}")
        return Verdict(Consequence.TELL)

    def of_death(self, slot: int, death: TrainerDied, *, began: bool, got_further: bool = False) -> Verdict:
        """`began`: the trial had begun to train; `got_further`: it passed the furthest step of all earlier attempts."""
        if _MACHINE.search(str(death)):
            return Verdict(Consequence.SET_ASIDE, str(death))
        self._starts = 0 if began else self._starts + 1
        if self._starts >= _MAX_STARTS:
            return Verdict(Consequence.SET_ASIDE, f"{_MAX_STARTS} times in a row the trainer died at once; {death}")
        if not death.is_kill and self._is_repeated(death.how, slot):
            return Verdict(Consequence.SET_ASIDE, f"the second trial in a row ended like this: {death}")
        if began and not got_further:
            self._barren.add(slot)
        if len(self._barren) >= _MAX_BARREN:
            return Verdict(Consequence.SET_ASIDE, f"{_MAX_BARREN} trials in a row got no further; {death}")
        if began and not (got_further and (death.is_kill or death.is_hang)):
            self.suspects.add(slot)
        return Verdict(Consequence.AGAIN, str(death))

    def of_stumble(self, slot: int, mistake: str) -> Verdict:
        """`mistake`: the last line of its traceback."""
        if _MACHINE.search(mistake):
            return Verdict(Consequence.SET_ASIDE, mistake)
        if self._is_repeated(alike(mistake), slot):
            return Verdict(Consequence.SET_ASIDE, f"the worker failed twice in a row with {mistake}")
        return Verdict(Consequence.AGAIN, mistake)

    def _is_repeated(self, how: str, slot: int) -> bool:
        last, self._last = self._last, (how, slot)
        return last is not None and last[0] == how and last[1] != slot


def is_machines(result: TrialResult) -> bool:
    """Whether the machine, not the trial, caused the failure."""
    return result.outcome is Outcome.FAILED and _MACHINE.search(result.reason or "") is not None


def struck(lease: Lease, reason: str, step: int) -> Lease:
    """The lease after an attempt that trained and was killed at optimizer step `step`."""
    strikes = 0 if step > lease.progress else lease.strikes + 1
    return replace(lease, strikes=strikes, progress=max(step, lease.progress), reasons=(*lease.reasons, reason))


def given_up(lease: Lease) -> TrialResult:
    """The result of a trial that made no progress in three attempts, with all of their reasons."""
    reasons = "; ".join(f"{number}. {reason}" for number, reason in enumerate(lease.reasons[-MAX_STRIKES:], start=1))
    reason = f"{lease.strikes} attempts in a row got no further than step {lease.progress}: {reasons}"
    return TrialResult(outcome=Outcome.FAILED, reason=reason, num_steps=lease.progress)


def alike(reason: str) -> str:
    """The failure's text without numbers, addresses and paths, so that equal failures compare equal."""
    return re.sub(r"0x[0-9a-f]+|\d+|/\S+", "…", reason)
