"""Search: one study's conversation with Optuna.

One logical trial is one Optuna trial through all of its attempts. The trial of a slot is created with the slot's
number in its system attributes, so that a worker killed in the middle of asking leaves nothing behind that the
next one doesn't find: every step can be done again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hpsearch.errors import TrialEnded
from hpsearch.search.facts import FIT, facts, memory_violation
from hpsearch.search.history import bring_attributes, bring_values
from hpsearch.search.pruners import make_pruner
from hpsearch.search.samplers import make_sampler
from hpsearch.search.space import from_optuna, misfit, suggest_all, to_optuna
from hpsearch.spec.evaluation import objective_title
from hpsearch.spec.study import StudySpec, Values
from hpsearch.store import Lease, Store
from hpsearch.store.fence import fenced
from hpsearch.trial import Fit, Outcome, Report, TrialResult, best_report

_SLOT = "hpsearch:slot"
_MEMORY = "device memory"


@dataclass(frozen=True)
class ActiveTrial:
    """A trial that a worker holds a lease for."""

    lease: Lease
    number: int
    values: Values
    is_ended: bool = False
    """Whether Optuna knows its end already: told by a worker that was killed then, or by somebody else, who need not
    have waited for all values."""


class Search:
    """Asks and tells for one study. `reaching` of the store is the caller's business."""

    def __init__(self, store: Store, spec: StudySpec) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._store = store
        self._spec = spec
        store.studies.forget_deleted()  # before their ids are given out again
        self._study = optuna.create_study(
            storage=store.optuna,
            study_name=spec.study,
            directions=["minimize" if name == "loss" else "maximize" for name in spec.objectives],
            load_if_exists=True,
        )
        self._live: Trial | None = None

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
            self._study.set_metric_names([objective_title(name) for name in self._spec.objectives])

    def start(self, lease: Lease) -> ActiveTrial:
        """The slot's trial: found again, taken from the waiting ones, or new. Then every parameter has a value."""
        space = self._spec.searched.space
        with fenced(lease):
            lease = self._with_trial(lease)
            assert lease.trial_id is not None
            with suppress(UpdateFinishedTrialError):  # somebody ends it this very moment
                self._begin(lease.trial_id, lease)
            frozen = self._frozen(lease)
        values = from_optuna(space, frozen.params) if space.keys() <= frozen.params.keys() else {}
        return ActiveTrial(lease=lease, number=frozen.number, values=values, is_ended=frozen.state.is_finished())

    def _begin(self, trial_id: int, lease: Lease) -> None:
        """Every parameter has a value afterwards, unless the trial was ended."""
        if self._frozen(lease).state is TrialState.WAITING:
            self._store.optuna.set_trial_state_values(trial_id, TrialState.RUNNING)
        self._study = self._study_for(lease)
        if not self._frozen(lease).state.is_finished():
            self._live = Trial(self._study, trial_id)
            suggest_all(self._live, self._spec.searched.space)

    def _study_for(self, lease: Lease) -> optuna.Study:
        """The study as it is now, with the slot's sampler.

        Optuna's study remembers the trials that it saw until it is told of one's end, so one that lives longer than
        a trial shows the sampler old news after a lease was lost.
        """
        search = self._spec.searched
        study = optuna.load_study(
            study_name=self._spec.study,
            storage=self._store.optuna,
            sampler=make_sampler(search.sampler, search.space, search.seed, lease.slot),
            pruner=make_pruner(search.pruner, self._spec.budget.reports),
        )
        study.get_trials(deepcopy=False)  # its cache does not know trials that were made beside it
        return study

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
            if trial.state is TrialState.WAITING and self._refuses(trial_id, trial):
                continue
            if bound := self._store.leases.bind(lease, trial_id):
                return bound
        template = self._template(lease.slot, trials)
        bound = self._store.leases.bind(lease, self._store.optuna.create_new_trial(self.study_id, template))
        assert bound is not None, "a trial that was just created belongs to nobody else"
        return bound

    def _template(self, slot: int, trials: list[FrozenTrial]) -> FrozenTrial:
        """A new trial of a slot. The first one has the study file's own values, where they lie in the space: the bar
        to beat. They are part of the trial from the moment that it exists, so no kill comes between."""
        search = self._spec.searched
        own = to_optuna(search.space, self._spec.defaults()) if slot == 0 and search.sampler.name != "grid" else None
        if own is None or any(trial.user_attrs.get("defaults") for trial in trials):
            return create_trial(state=TrialState.RUNNING, system_attrs={_SLOT: slot})
        fixed = {_SLOT: slot, "fixed_params": own}
        return create_trial(state=TrialState.RUNNING, user_attrs={"defaults": True}, system_attrs=fixed)

    def _refuses(self, trial_id: int, waiting: FrozenTrial) -> bool:
        """Ends a trial that someone enqueued and nobody can run. It takes no slot of the budget."""
        search = self._spec.searched
        params = waiting.system_attrs.get("fixed_params", {})
        reason = misfit(search.space, params)
        if search.sampler.name == "grid" and len(params) < len(search.space):
            reason = reason or "a trial beside a grid needs a value for every searched field"
        if reason is None:
            return False
        with suppress(UpdateFinishedTrialError):  # another worker was first
            for name, fact in {"outcome": Outcome.FAILED.value, "reason": reason}.items():
                self._store.optuna.set_trial_user_attr(trial_id, name, fact)
            self._store.optuna.set_trial_state_values(trial_id, TrialState.FAIL)
        return True

    def bring(self, trial: ActiveTrial, reports: Sequence[Report]) -> bool:
        """Brings the trial's history to `reports`; True: the pruner lets the trial go on.

        What else stands there is taken away: an earlier attempt got further than the checkpoint that the present one
        continues from, and its later reports would be held against this one (`Trial.should_prune` looks at the last
        step). Optuna takes no intermediate values of studies with several objectives, and prunes none of their trials
        (`Trial.report`): they are stored as attributes.

        Raises:
            TrialEnded: somebody ended the trial from outside.
        """
        assert self._live is not None
        objectives = self._spec.objectives
        with fenced(trial.lease):
            frozen = self._frozen(trial.lease)
            if frozen.state.is_finished():
                raise TrialEnded(f"trial {trial.number} was ended from outside, as {frozen.state.name}")
            try:
                if len(objectives) > 1:
                    bring_attributes(self._store.optuna, frozen, reports, objectives)
                    return True
                bring_values(self._store.optuna, frozen, reports, objectives[0])
                # Not `Trial.should_prune`: it looks at the values that this object was told (5.0.0, trial/_trial.py).
                return not reports or not self._study.pruner.prune(self._study, self._frozen(trial.lease))
            except UpdateFinishedTrialError as error:
                raise TrialEnded(f"trial {trial.number} was ended from outside") from error

    def note(self, trial: ActiveTrial, name: str, fact: str) -> None:
        """What a person should know of a trial before its end."""
        with fenced(trial.lease), suppress(UpdateFinishedTrialError):
            assert trial.lease.trial_id is not None
            self._store.optuna.set_trial_user_attr(trial.lease.trial_id, name, fact)

    def fits(self) -> list[Fit]:
        """How many rows a forward took in earlier trials, each shape and device once."""
        told = {trial.user_attrs[FIT] for trial in self._study.get_trials(deepcopy=False) if FIT in trial.user_attrs}
        return [Fit.model_validate_json(text) for text in sorted(told)]

    def failures_so_far(self) -> list[str] | None:
        """Why each trial failed, in the order in which they ended; None where one ended in another way."""
        finished = [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]
        if any(trial.state is not TrialState.FAIL for trial in finished):
            return None
        own = [trial for trial in finished if "attempts" in trial.user_attrs]
        own.sort(key=lambda trial: str(trial.datetime_complete))
        return [str(trial.user_attrs.get("reason")) for trial in own]

    def put_aside(self, lease: Lease, result: TrialResult) -> None:
        """Ends a slot's trial at which workers stumble, without looking further into it; there is one afterwards."""
        with fenced(lease):
            trial_id = self._store.leases.trial_of(lease)
            if trial_id is None:
                template = create_trial(state=TrialState.RUNNING, system_attrs={_SLOT: lease.slot})
                trial_id = self._store.optuna.create_new_trial(self.study_id, template)
                self._store.leases.bind(lease, trial_id)
            with suppress(UpdateFinishedTrialError):  # it has an end already
                for name, fact in (facts(result, self._spec.objectives[0]) | {"attempts": lease.attempt}).items():
                    self._store.optuna.set_trial_user_attr(trial_id, name, fact)
                self._store.optuna.set_trial_state_values(trial_id, TrialState.FAIL)

    def tell(self, trial: ActiveTrial, result: TrialResult) -> None:
        """Ends the trial in Optuna; again and again without harm, also where somebody ends it this very moment.

        A complete trial's values are those of its best report by the first objective. Of one that was pruned Optuna
        itself takes the last report's (`Study.tell`).
        """
        with fenced(trial.lease), suppress(UpdateFinishedTrialError):
            if self._frozen(trial.lease).state.is_finished():
                return
            self._tell_facts(trial, result)
            state = _STATES[result.outcome]
            values = None
            if state is TrialState.COMPLETE:
                best = best_report(result.reports, self._spec.objectives[0])
                values = [best.value(name) for name in self._spec.objectives]
            self._study.tell(trial.number, values, state=state, skip_if_finished=True)

    def _tell_facts(self, trial: ActiveTrial, result: TrialResult) -> None:
        assert self._live is not None
        for name, fact in facts(result, self._spec.objectives[0]).items():
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
