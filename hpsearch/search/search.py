"""Search: how hpsearch uses Optuna for one study.

A trial is one Optuna trial through all of its attempts. Its sampler and pruner work on a draft of it, and the changes
are written in one transaction, which checks the lease first: a worker killed at any moment leaves either all of a step
or nothing, and every step can be repeated. The draft belongs to the trial that `start` returns, so one Search can run
several trials at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from hpsearch.errors import LeaseLost, TrialEnded
from hpsearch.search.draft import Draft
from hpsearch.search.facts import FIT, facts, memory_violation
from hpsearch.search.history import bring_attributes, bring_values
from hpsearch.search.pruners import make_pruner, sees_others, sees_running
from hpsearch.search.samplers import make_sampler
from hpsearch.search.slots import SlotTrials
from hpsearch.search.space import from_optuna, suggest_all
from hpsearch.spec.study import StudySpec, Values
from hpsearch.store import Lease, Store, attempts
from hpsearch.store.changes import Changes, write
from hpsearch.store.fence import change, fenced, hold, hold_slot
from hpsearch.store.memory import StudyMemory
from hpsearch.trial import Fit, Outcome, Report, TrialResult, best_report

_MEMORY = "device memory"


@dataclass(frozen=True)
class ActiveTrial:
    """A trial for which a worker holds a lease. `Search.start` makes it; the other methods take it."""

    lease: Lease
    number: int
    values: Values
    draft: Draft = field(repr=False, compare=False)
    """The trial as the store will have it, with the changes that are not written yet."""
    study: optuna.Study = field(repr=False, compare=False)
    """The study as the trial's sampler and pruner see it: `draft` is its storage."""
    is_ended: bool = False
    """Whether the trial has ended in Optuna already: by a worker that was killed before it closed the slot, or by
    somebody else, perhaps before all values were stored.
    """


class Search:
    """Ask and tell for one study. The caller wraps calls in the store's `reaching`."""

    def __init__(self, store: Store, spec: StudySpec) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._store = store
        self._spec = spec
        store.studies.forget_deleted()  # before their ids are reused
        self._study = optuna.create_study(
            storage=store.optuna,
            study_name=spec.study,
            directions=[objective.direction for objective in spec.objectives],
            load_if_exists=True,
        )
        self.study_id = store.optuna.get_study_id_from_name(spec.study)
        self._memory = StudyMemory(self.study_id)
        self._slots = SlotTrials(store, spec, self.study_id, self._memory)

    def describe(self) -> None:
        """Writes what the dashboard shows of the study as a whole."""
        facts = {
            "description": self._spec.description,
            "task": self._spec.task,
            "base": self._spec.model.base,
        }
        for name, value in facts.items():
            self._study.set_user_attr(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.set_metric_names([objective.title for objective in self._spec.objectives])

    def start(self, lease: Lease) -> ActiveTrial:
        """The slot's trial: found again, taken from the enqueued ones, or new. Then every parameter gets a value.

        The sampler draws between two transactions: one finds or makes the trial and reads the others, one writes
        everything that was drawn.
        """
        lease, own = self._slots.trial_of(lease)
        draft = Draft(self.study_id, self._spec.study, self._study.directions, self._memory.trials, own)
        study = self._study_on(draft, lease.slot)
        state = own.state
        with suppress(UpdateFinishedTrialError):  # somebody ended it at this moment
            if state is TrialState.WAITING:
                with fenced(lease):
                    self._store.optuna.set_trial_state_values(own._trial_id, TrialState.RUNNING)
                own.state = TrialState.RUNNING
            if not state.is_finished():
                suggest_all(Trial(study, own._trial_id), self._spec.searched.space)
                state = self._write(lease, draft)
        space = self._spec.searched.space
        values = from_optuna(space, own.params) if space.keys() <= own.params.keys() else {}
        return ActiveTrial(lease, own.number, values, draft, study, is_ended=state.is_finished())

    def _study_on(self, draft: Draft, slot: int) -> optuna.Study:
        """The study as the slot's sampler and the pruner see it."""
        search = self._spec.searched
        return optuna.load_study(
            study_name=self._spec.study,
            storage=draft,
            sampler=make_sampler(search.sampler, search.space, search.seed, slot),
            pruner=make_pruner(search.pruner, self._spec.budget.reports),
        )

    def _write(self, lease: Lease, draft: Draft, *, look: bool = False) -> TrialState:
        """Writes the draft's changes, unless somebody has ended the trial; returns its state. `look`: reads the other
        trials too.

        Changes that could not be written stay in the draft for the next call.
        """
        pruner = self._spec.searched.pruner
        with self._store.optuna.engine.begin() as connection:
            state = hold(connection, lease)
            if not state.is_finished():
                write(connection, draft.own._trial_id, draft.changes)
            if look:
                self._memory.look(connection, (TrialState.RUNNING,) if sees_running(pruner) else ())
        draft.changes = Changes()
        if look:
            draft.trials = self._memory.trials
        return state

    def bring(self, trial: ActiveTrial, reports: Sequence[Report]) -> bool:
        """Sets the trial's history to `reports`; True: the pruner lets the trial continue.

        Later reports are removed: an earlier attempt got further than the checkpoint that this one continues from, and
        its reports would count against this one (`Trial.should_prune` looks at the last step). Optuna accepts no
        intermediate values in studies with several objectives and prunes none of their trials (`Trial.report`): their
        reports are stored as attributes.

        Raises:
            TrialEnded: somebody ended the trial from outside.
        """
        draft = trial.draft
        self._bring_history(draft, reports)
        is_judged = bool(reports) and len(self._spec.objectives) == 1
        state = self._write(trial.lease, draft, look=is_judged and sees_others(self._spec.searched.pruner))
        if state.is_finished():
            raise TrialEnded(f"trial {trial.number} was ended by another program, as {state.name}")
        if not is_judged:
            return True
        # Not `Trial.should_prune`: it reads the values that this object reported itself (5.0.0, trial/_trial.py).
        goes_on = not trial.study.pruner.prune(trial.study, draft.own)
        if draft.changes:  # the rungs that it has reached
            self._write(trial.lease, draft)
        return goes_on

    def _bring_history(self, draft: Draft, reports: Sequence[Report]) -> None:
        objectives = self._spec.objectives
        if len(objectives) > 1:
            bring_attributes(draft.changes, draft.own, reports, objectives)
        else:
            bring_values(draft.changes, draft.own, reports, objectives[0])

    def note(self, trial: ActiveTrial, name: str, fact: str) -> None:
        """Stores a fact about a trial before its end, for a person to read."""
        with fenced(trial.lease), suppress(UpdateFinishedTrialError):
            assert trial.lease.trial_id is not None
            self._store.optuna.set_trial_user_attr(trial.lease.trial_id, name, fact)

    def fits(self) -> list[Fit]:
        """How many rows fitted in a forward in the trials that had ended at the last look, once per shape and
        device.
        """
        fits = {trial.user_attrs[FIT] for trial in self._memory.trials if FIT in trial.user_attrs}
        return [Fit.model_validate_json(text) for text in sorted(fits)]

    def failures_so_far(self) -> list[str] | None:
        """Why each trial failed, in the order in which they ended; None where any ended in another way."""
        with self._store.optuna.engine.begin() as connection:
            self._memory.look(connection, ())
        finished = [trial for trial in self._memory.trials if trial.state.is_finished()]
        if any(trial.state is not TrialState.FAIL for trial in finished):
            return None
        own = [trial for trial in finished if "attempts" in trial.user_attrs]
        own.sort(key=lambda trial: str(trial.datetime_complete))
        return [str(trial.user_attrs.get("reason")) for trial in own]

    def put_aside(self, lease: Lease, result: TrialResult) -> None:
        """Ends the trial of a slot at which workers fail by a bug, without reading it further; creates the trial if
        there is none.
        """
        attrs = facts(result, self._spec.objectives[0]) | {"attempts": lease.attempt}
        with self._store.optuna.engine.begin() as connection:
            if (trial_id := hold_slot(connection, lease)) is None:
                bound, _trial = self._slots.new(connection, lease, [])
                trial_id = bound.trial_id
            assert trial_id is not None
            if not hold(connection, lease).is_finished():
                write(connection, trial_id, Changes(facts=attrs, end=(TrialState.FAIL, None)))
            change(connection, lease, finished=True)
            attempts.end(connection, lease, result.outcome)

    def tell(self, trial: ActiveTrial, result: TrialResult) -> None:
        """Ends the trial and its slot in one transaction: history, facts, values, state, result, lease.

        If somebody ends the trial from outside, even at this moment, their state stays; the slot is closed all the
        same. A complete trial's values are those of its best report by the first objective. For a pruned trial Optuna
        itself takes the last report's (`Study.tell`).
        """
        draft, text = trial.draft, result.model_dump_json()
        if not trial.is_ended:
            self._draft_end(trial, result)
        try:
            with self._store.optuna.engine.begin() as connection:
                if not hold(connection, trial.lease).is_finished():
                    write(connection, draft.own._trial_id, draft.changes)
                change(connection, trial.lease, result=text, finished=True)
                attempts.end(connection, trial.lease, result.outcome)
        except LeaseLost:  # or this is a repeat, as the store's answer was lost
            if not self._store.leases.is_closed_with(trial.lease, text):
                raise

    def _draft_end(self, trial: ActiveTrial, result: TrialResult) -> None:
        self._bring_history(trial.draft, result.reports)
        own = trial.draft.own
        live = Trial(trial.study, own._trial_id)
        for name, fact in (facts(result, self._spec.objectives[0]) | {"attempts": trial.lease.attempt}).items():
            live.set_user_attr(name, fact)
        violation = memory_violation(result, self._spec.budget.memory_gib)
        if violation is not None and _MEMORY not in own.constraints:
            live.set_constraint(_MEMORY, violation)
        state, values = _STATES[result.outcome], None
        if state is TrialState.COMPLETE:
            best = best_report(result.reports, self._spec.objectives[0])
            values = [best.value(objective) for objective in self._spec.objectives]
        trial.study.tell(trial.number, values, state=state)


_STATES = {
    Outcome.COMPLETE: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.OUT_OF_MEMORY: TrialState.PRUNED,
    Outcome.FAILED: TrialState.FAIL,
}
