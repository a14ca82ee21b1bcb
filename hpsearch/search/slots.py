"""The trial of a slot: the one bound to it before, a waiting one, or a new one. A slot keeps its trial for ever.

A trial is created and bound in one transaction: a worker that is killed in the middle leaves nothing behind.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Connection

from hpsearch.search.pruners import sees_running as pruner_sees_running
from hpsearch.search.samplers import sees_running as sampler_sees_running
from hpsearch.search.space import misfit, to_optuna
from hpsearch.spec.study import StudySpec
from hpsearch.store import Lease, Store
from hpsearch.store.changes import create
from hpsearch.store.fence import change, fenced, hold_slot
from hpsearch.store.memory import StudyMemory
from hpsearch.trial import Outcome

SLOT = "hpsearch:slot"
_OPEN = (TrialState.WAITING, TrialState.RUNNING)


class SlotTrials:
    """Finds or makes the one trial of a slot. `memory` belongs to the caller, and is refreshed here."""

    def __init__(self, store: Store, spec: StudySpec, study_id: int, memory: StudyMemory) -> None:
        self._store = store
        self._spec = spec
        self._study_id = study_id
        self._memory = memory

    def trial_of(self, lease: Lease) -> tuple[Lease, FrozenTrial]:
        """The lease, bound to its trial, and a copy of the trial for the caller. Refreshes the memory."""
        with self._store.optuna.engine.begin() as connection:
            trial_id = hold_slot(connection, lease)
            self._memory.look(connection, self._inside(lease), trial_id)
            trials = self._memory.trials
            candidates = [] if trial_id is not None else self._candidates(lease.slot, trials)
            if trial_id is None and not candidates:
                return self.new(connection, lease, trials)
        if trial_id is not None:
            return replace(lease, trial_id=trial_id), copy.deepcopy(self._memory.trial(trial_id))
        for trial in candidates:
            if trial.state is TrialState.WAITING and self._refuses(lease, trial):
                continue
            if bound := self._store.leases.bind(lease, trial._trial_id):
                return bound, copy.deepcopy(trial)
        with self._store.optuna.engine.begin() as connection:
            hold_slot(connection, lease)
            return self.new(connection, lease, trials)

    def new(self, connection: Connection, lease: Lease, trials: list[FrozenTrial]) -> tuple[Lease, FrozenTrial]:
        """Makes the trial within a transaction that holds the slot, which has none yet."""
        trial = create(connection, self._study_id, self._template(lease.slot, trials))
        change(connection, lease, trial_id=trial._trial_id)
        return replace(lease, trial_id=trial._trial_id), trial

    def _inside(self, lease: Lease) -> tuple[TrialState, ...]:
        """The states of unfinished trials that are read in full. An older hpsearch bound a trial after creating it: if
        its worker was killed in between, the slot's next worker finds the trial among the running ones.
        """
        search = self._spec.searched
        is_bound_later = lease.attempt > 1 or lease.slot == 0
        sees_running = sampler_sees_running(search.sampler) or pruner_sees_running(search.pruner)
        return _OPEN if is_bound_later or sees_running else (TrialState.WAITING,)

    @staticmethod
    def _candidates(slot: int, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        begun = [trial for trial in trials if trial.system_attrs.get(SLOT) == slot]
        return begun + [trial for trial in trials if trial.state is TrialState.WAITING]

    def _template(self, slot: int, trials: list[FrozenTrial]) -> FrozenTrial:
        """A new trial of a slot. The first one has the study file's own values, where they lie in the space: the
        baseline. They are set when the trial is created, so a kill can't come in between.
        """
        search = self._spec.searched
        own = to_optuna(search.space, self._spec.defaults()) if slot == 0 and search.sampler.name != "grid" else None
        if own is None or any(trial.user_attrs.get("defaults") for trial in trials):
            return create_trial(state=TrialState.RUNNING, system_attrs={SLOT: slot})
        fixed = {SLOT: slot, "fixed_params": own}
        return create_trial(state=TrialState.RUNNING, user_attrs={"defaults": True}, system_attrs=fixed)

    def _refuses(self, lease: Lease, waiting: FrozenTrial) -> bool:
        """Ends an enqueued trial that can't be run. It takes no slot of the budget."""
        search = self._spec.searched
        params = waiting.system_attrs.get("fixed_params", {})
        reason = misfit(search.space, params)
        if search.sampler.name == "grid" and len(params) < len(search.space):
            reason = reason or "a trial beside a grid needs a value for every searched field"
        if reason is None:
            return False
        with fenced(lease), suppress(UpdateFinishedTrialError):  # another worker was first
            for name, fact in {"outcome": Outcome.FAILED.value, "reason": reason}.items():
                self._store.optuna.set_trial_user_attr(waiting._trial_id, name, fact)
            self._store.optuna.set_trial_state_values(waiting._trial_id, TrialState.FAIL)
        return True
