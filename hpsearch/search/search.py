"""Search: one study's conversation with Optuna.

One logical trial is one Optuna trial through all of its attempts. The trial of a slot is created with the slot's
number in its system attributes, so that a worker killed in the middle of asking leaves nothing behind that the
next one doesn't find: every step can be done again.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hpsearch.search.pruners import make_pruner
from hpsearch.search.samplers import make_sampler
from hpsearch.search.space import from_optuna, suggest_all, to_optuna
from hpsearch.spec.study import StudySpec, Values
from hpsearch.store import Lease, Store
from hpsearch.store.leases import fenced
from hpsearch.trial import GIB, MIB, Outcome, TrialResult

_SLOT = "hpsearch:slot"
_MEMORY = "device memory"
_TRACEBACK_CHARACTERS = 8000


@dataclass(frozen=True)
class ActiveTrial:
    """A trial that a worker holds a lease for."""

    lease: Lease
    number: int
    values: Values


class Search:
    """Asks and tells for one study. `reaching` of the store is the caller's business."""

    def __init__(self, store: Store, spec: StudySpec) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._store = store
        self._spec = spec
        self._study = optuna.create_study(
            storage=store.optuna,
            study_name=spec.study,
            direction="minimize",
            pruner=make_pruner(spec.searched.pruner, spec.budget.reports),
            load_if_exists=True,
        )
        self._live: Trial | None = None
        self._reported: set[int] = set()

    @property
    def study_id(self) -> int:
        return self._store.optuna.get_study_id_from_name(self._spec.study)

    def describe(self) -> None:
        """What the dashboard shows of the study as a whole."""
        facts = {
            "description": self._spec.description,
            "task": self._spec.task,
            "base": self._spec.model.base,
        }
        for name, value in facts.items():
            self._study.set_user_attr(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.set_metric_names(["validation loss"])

    def enqueue_defaults(self) -> None:
        """The study file's own values are the first trial, where they lie in the space: the bar to beat."""
        spec = self._spec
        params = to_optuna(spec.searched.space, spec.defaults())
        if params is not None and spec.searched.sampler.name != "grid":
            self._study.enqueue_trial(params, user_attrs={"defaults": True}, skip_if_exists=True)

    def start(self, lease: Lease) -> ActiveTrial:
        """The slot's trial: found again, taken from the waiting ones, or new. Then every parameter has a value."""
        search = self._spec.searched
        self._study.sampler = make_sampler(search.sampler, search.space, search.seed, lease.slot)
        lease = self._with_trial(lease)
        assert lease.trial_id is not None
        with fenced(lease):
            if self._frozen(lease).state is TrialState.WAITING:
                self._store.optuna.set_trial_state_values(lease.trial_id, TrialState.RUNNING)
            # Optuna's study sees the database through a cache that does not know trials made beside it.
            self._study.get_trials(deepcopy=False)
            frozen = self._frozen(lease)
            if not frozen.state.is_finished():
                self._live = Trial(self._study, lease.trial_id)
                suggest_all(self._live, search.space)
                frozen = self._frozen(lease)
            self._reported = set(frozen.intermediate_values)
        return ActiveTrial(
            lease=lease,
            number=frozen.number,
            values=from_optuna(search.space, frozen.params),
        )

    def _frozen(self, lease: Lease) -> FrozenTrial:
        assert lease.trial_id is not None
        return self._store.optuna.get_trial(lease.trial_id)

    def _with_trial(self, lease: Lease) -> Lease:
        """The lease, bound to a trial."""
        if lease.trial_id is not None:
            return lease
        trials = self._store.optuna.get_all_trials(self.study_id, deepcopy=False)
        begun = [t for t in trials if t.system_attrs.get(_SLOT) == lease.slot]
        waiting = [t for t in trials if t.state is TrialState.WAITING]
        for trial in (*begun, *waiting):
            trial_id = self._store.optuna.get_trial_id_from_study_id_trial_number(self.study_id, trial.number)
            if bound := self._store.leases.bind(lease, trial_id):
                return bound
        template = create_trial(state=TrialState.RUNNING, system_attrs={_SLOT: lease.slot})
        bound = self._store.leases.bind(lease, self._store.optuna.create_new_trial(self.study_id, template))
        assert bound is not None, "a trial that was just created belongs to nobody else"
        return bound

    def report(self, trial: ActiveTrial, step: int, loss: float) -> bool:
        """Stores a validation loss; True: the pruner lets the trial go on."""
        assert self._live is not None
        with fenced(trial.lease):
            if step not in self._reported:
                self._live.report(loss, step)
                self._reported.add(step)
            return not self._live.should_prune()

    def tell(self, trial: ActiveTrial, result: TrialResult) -> None:
        """Ends the trial in Optuna; again and again without harm."""
        with fenced(trial.lease):
            if self._frozen(trial.lease).state.is_finished():
                return
            self._tell_facts(trial, result)
            state = _STATES[result.outcome]
            value = result.loss if state is TrialState.COMPLETE else None
            self._study.tell(trial.number, value, state=state, skip_if_finished=True)

    def _tell_facts(self, trial: ActiveTrial, result: TrialResult) -> None:
        assert self._live is not None
        for name, fact in facts(result).items():
            self._live.set_user_attr(name, fact)
        self._live.set_user_attr("attempts", trial.lease.attempt)
        violation = memory_violation(result, self._spec.budget.memory_gib)
        if violation is not None and _MEMORY not in self._frozen(trial.lease).constraints:
            self._live.set_constraint(_MEMORY, violation)


_STATES = {
    Outcome.COMPLETE: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.OUT_OF_MEMORY: TrialState.PRUNED,
    Outcome.FAILED: TrialState.FAIL,
}


def memory_violation(result: TrialResult, memory_gib: float | None) -> float | None:
    """How far a trial is beyond the memory that it may need: above 0 is too much, None says nothing.

    Held against the memory that the study declares, not against this card's: a 24 GiB trial that ran on an 80 GiB
    card is still no use to someone with 16. Optuna's samplers stay away from trials that violate a constraint;
    a FAILed trial they would simply forget.
    """
    out_of_memory = result.outcome is Outcome.OUT_OF_MEMORY
    if memory_gib is None:
        return 1.0 if out_of_memory else None
    used = result.bytes_needed if out_of_memory else result.ledger and result.ledger.peak_device_bytes
    if not used:
        return 1.0 if out_of_memory else None
    violation = used / (memory_gib * GIB) - 1
    return max(violation, 1e-3) if out_of_memory else violation


def facts(result: TrialResult) -> dict[str, str | float | int | bool]:
    """What the dashboard shows of a trial besides its loss and parameters."""
    shown: dict[str, str | float | int | bool | None] = {
        "outcome": result.outcome.value,
        "reason": result.reason,
        "seconds": round(result.train_seconds, 1),
        "optimizer_steps": result.num_steps,
        "trainable_percent": round(result.trainable_percent, 4),
        "bytes_needed": result.bytes_needed,
        "traceback": result.traceback and result.traceback[-_TRACEBACK_CHARACTERS:],
    }
    if ledger := result.ledger:
        shown |= {
            "ledger.closes": ledger.closes,
            "ledger.not_given_back": ", ".join(ledger.not_given_back) or None,
            "ledger.peak_device_gib": round(ledger.peak_device_bytes / GIB, 3),
            "ledger.peak_host_gib": round(ledger.peak_host_bytes / GIB, 3),
            "ledger.host_mib_after": round(ledger.after.host_rss_bytes / MIB, 2),
            "ledger.device_mib_after": round(ledger.after.device_allocated_bytes / MIB, 2),
            "ledger.live_tensors_after": ledger.after.live_tensors,
            "ledger.base_fingerprint": ledger.after.base_fingerprint,
        }
        if ledger.witnessed_device_bytes is not None:
            shown["ledger.witnessed_device_mib"] = round(ledger.witnessed_device_bytes / MIB, 1)
    return {name: fact for name, fact in shown.items() if fact is not None}
