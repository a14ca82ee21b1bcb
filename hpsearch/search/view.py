"""StudyView: everything that is shown of one study, read from the store at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpsearch.errors import HpsearchError
from hpsearch.search.former import in_todays_terms
from hpsearch.search.history import kept_reports
from hpsearch.search.times import seconds_of_trials
from hpsearch.search.usage import Usage, reached, seconds_for
from hpsearch.spec.metrics import Metric
from hpsearch.spec.study import StudySpec
from hpsearch.store import Store, StoredStudy, StoredWorker
from hpsearch.store.leases import Slots
from hpsearch.store.workers import SECONDS_UNTIL_SILENT, is_dead


@dataclass(frozen=True)
class TrialView:
    number: int
    outcome: str
    """complete, pruned, diverged, out of memory, failed, running, or waiting (no worker has it; it may have begun)."""
    value: float | None
    """Of the study's first objective: for a complete trial its stored value (`trial.best_report`), else the last
    report's.
    """
    reports: dict[int, float]
    params: dict[str, Any]
    seconds: float | None
    """Of its attempts together; None before it has ended."""
    facts: dict[str, Any]
    is_feasible: bool
    values: tuple[float, ...] = ()
    """All objectives, once complete."""

    @property
    def is_finished(self) -> bool:
        return self.outcome not in ("running", "waiting")

    @property
    def has_begun(self) -> bool:
        return self.outcome != "waiting" or bool(self.params)


@dataclass(frozen=True)
class StudyView:
    study: StoredStudy
    slots: Slots
    trials: list[TrialView]
    workers: list[StoredWorker]

    @property
    def objective(self) -> Metric:
        """The first objective: the best trial is chosen by it."""
        return self.study.spec.objectives[0]

    @property
    def best(self) -> TrialView | None:
        """The complete trial that is best by the first objective, among those within the memory budget."""
        return min(self._eligible, key=lambda trial: self._costs(trial)[0], default=None)

    @property
    def is_a_tie(self) -> bool:
        """Whether several trials could be the best and all have the same values: the search has found nothing."""
        return len(self._eligible) > 1 and len({trial.values for trial in self._eligible}) == 1

    @property
    def front(self) -> list[TrialView]:
        """The trials on the Pareto front, which no other trial dominates; sorted by the first objective, best first."""
        costs = {trial.number: self._costs(trial) for trial in self._eligible}
        front = [
            trial
            for trial in self._eligible
            if not any(_dominates(other, costs[trial.number]) for other in costs.values())
        ]
        return sorted(front, key=lambda trial: costs[trial.number])

    @property
    def _eligible(self) -> list[TrialView]:
        return [t for t in self.trials if t.outcome == "complete" and t.is_feasible and t.values]

    def _costs(self, trial: TrialView) -> tuple[float, ...]:
        """One number per objective, lower is better."""
        pairs = zip(self.study.spec.objectives, trial.values, strict=True)
        return tuple(objective.cost(value) for objective, value in pairs)

    @property
    def failed(self) -> list[TrialView]:
        """Failed trials that a worker ran; not those that were refused or that somebody else ended."""
        return [trial for trial in self.trials if trial.outcome == "failed" and "attempts" in trial.facts]

    @property
    def live_workers(self) -> list[StoredWorker]:
        return live(self.workers)

    @property
    def is_finished(self) -> bool:
        return self.slots.all_finished

    @property
    def usage(self) -> Usage:
        return Usage.of(self.workers)

    @property
    def reached_limit(self) -> str | None:
        """Why no more trials begin although the budget has more; None: they do."""
        limits = self.study.spec.searched.limits
        return None if self.is_finished else reached(limits, self.usage, datetime.now(UTC))

    def seconds_left(self, workers: int | None = None) -> float | None:
        """An estimate from the trials so far; None before the first one has ended, and while the study is paused.
        `workers`: by default the live ones.
        """
        workers = len(self.live_workers) if workers is None else workers
        times = [trial.seconds for trial in self.trials if trial.is_finished and trial.seconds]
        if not times or not workers or self.study.paused is not None:
            return None
        return seconds_for(self.slots.wanted - self.slots.finished, sum(times) / len(times), workers)


def curve(view: StudyView, trial: TrialView, objective: Metric) -> dict[int, float]:
    """The objective at each report; with several objectives it is read from the trial's facts (see `Search.report`)."""
    if len(view.study.spec.objectives) == 1:
        return trial.reports
    reports = {name: values for name, values in trial.facts.items() if name.startswith("report ")}
    return dict(sorted((int(name.removeprefix("report ")), values[objective.name]) for name, values in reports.items()))


def live(workers: list[StoredWorker]) -> list[StoredWorker]:
    """Workers whose last sign of life is less than a minute old, without those that were killed on this machine
    since.
    """
    there = [w for w in workers if not w.gone and w.seconds_since_beat < SECONDS_UNTIL_SILENT]
    return [w for w in there if not is_dead(w.worker_id)]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def read_view(store: Store, study: StoredStudy) -> StudyView:
    """Raises HpsearchError where the study was deleted meanwhile."""
    with store.reaching():
        try:
            trials = store.optuna.get_all_trials(study.study_id, deepcopy=False)
        except KeyError:
            raise HpsearchError(f"study {study.name} is no longer in the store: it was deleted") from None
        slots = store.leases.slots(study.study_id)
        given_back = store.leases.given_back(study.study_id)
        workers = store.workers.of(study.study_id)
        attempts, now = store.leases.attempts(study.study_id)
    worked = seconds_of_trials(attempts, workers, {worker.worker_id for worker in live(workers)}, now)
    views = [
        _trial_view(trial, study.spec, is_left=trial._trial_id in given_back, worked_s=worked.get(trial.number))
        for trial in trials
    ]
    return StudyView(study, slots, views, workers)


_OUTCOMES = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def _trial_view(trial: FrozenTrial, spec: StudySpec, *, is_left: bool, worked_s: float | None) -> TrialView:
    """`worked_s`: None where the attempts are not known; then it is the time from its beginning to its end."""
    reports = dict(sorted(trial.intermediate_values.items())) or kept_reports(trial)
    last = list(reports.values())[-1] if reports else None
    values = tuple(trial.values or ()) if trial.state is TrialState.COMPLETE else ()
    outcome = trial.user_attrs.get("outcome") if trial.state.is_finished() else "waiting" if is_left else None
    return TrialView(
        number=trial.number,
        outcome=outcome or _OUTCOMES[trial.state],
        value=values[0] if values else last,
        values=values,
        reports=reports,
        params=in_todays_terms(trial.params, spec),
        seconds=_seconds(trial, worked_s),
        facts=trial.user_attrs,
        is_feasible=all(violation <= 0 for violation in trial.constraints.values()),
    )


def _seconds(trial: FrozenTrial, worked_s: float | None) -> float | None:
    if not trial.state.is_finished():
        return None
    return trial.duration.total_seconds() if worked_s is None and trial.duration else worked_s
