"""StudyView: all that is shown of one study, read from the store at one moment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpsearch.store import Store, StoredStudy, StoredWorker
from hpsearch.store.leases import Slots

SECONDS_UNTIL_SILENT = 60


@dataclass(frozen=True)
class TrialView:
    number: int
    outcome: str
    """complete, pruned, diverged, out of memory, failed, running, or waiting."""
    loss: float | None
    reports: dict[int, float]
    params: dict[str, Any]
    seconds: float | None
    facts: dict[str, Any]
    is_feasible: bool

    @property
    def is_finished(self) -> bool:
        return self.outcome not in ("running", "waiting")


@dataclass(frozen=True)
class StudyView:
    study: StoredStudy
    slots: Slots
    trials: list[TrialView]
    workers: list[StoredWorker]

    @property
    def best(self) -> TrialView | None:
        """The complete trial with the lowest loss, among those that keep to the memory."""
        complete = [t for t in self.trials if t.outcome == "complete" and t.is_feasible and t.loss is not None]
        return min(complete, key=lambda trial: trial.loss or math.inf, default=None)

    @property
    def live_workers(self) -> list[StoredWorker]:
        return [w for w in self.workers if not w.gone and w.seconds_since_beat < SECONDS_UNTIL_SILENT]

    @property
    def is_finished(self) -> bool:
        return self.slots.all_finished

    def seconds_left(self) -> float | None:
        """An estimate from the trials so far; None before the first one has ended."""
        times = [trial.seconds for trial in self.trials if trial.is_finished and trial.seconds]
        if not times or not self.live_workers:
            return None
        mean = sum(times) / len(times)
        return mean * (self.slots.wanted - self.slots.finished) / len(self.live_workers)


def read_view(store: Store, study: StoredStudy) -> StudyView:
    with store.reaching():
        trials = store.optuna.get_all_trials(study.study_id, deepcopy=False)
        slots = store.leases.slots(study.study_id)
        workers = store.workers.of(study.study_id)
    return StudyView(study, slots, [_trial_view(trial) for trial in trials], workers)


_OUTCOMES = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def _trial_view(trial: FrozenTrial) -> TrialView:
    reports = dict(sorted(trial.intermediate_values.items()))
    last = list(reports.values())[-1] if reports else None
    outcome = trial.user_attrs.get("outcome") if trial.state.is_finished() else None
    return TrialView(
        number=trial.number,
        outcome=outcome or _OUTCOMES[trial.state],
        loss=trial.value if trial.state is TrialState.COMPLETE else last,
        reports=reports,
        params=trial.params,
        seconds=trial.duration.total_seconds() if trial.duration else None,
        facts=trial.user_attrs,
        is_feasible=all(violation <= 0 for violation in trial.constraints.values()),
    )
