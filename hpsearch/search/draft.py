"""The Optuna storage that one trial's sampler and pruner see: the other trials from memory, and this trial. Its changes
are kept here until all of them are written in one transaction.

So Optuna samples and prunes as usual, and only `Search` talks to the database. However long a sampler computes, no
transaction is open meanwhile.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpsearch.store.changes import Changes


class Draft(BaseStorage):
    """`trials` are the study's, in the order of their numbers, with an older copy of `own` unless it is new. `own` is
    always the trial as the store will have it once `changes` are written.
    """

    def __init__(
        self,
        study_id: int,
        name: str,
        directions: Sequence[StudyDirection],
        trials: list[FrozenTrial],
        own: FrozenTrial,
    ) -> None:
        self.own = own
        self.trials = trials
        self.changes = Changes()
        self._study_id = study_id
        self._name = name
        self._directions = list(directions)

    def get_study_id_from_name(self, _study_name: str) -> int:
        return self._study_id

    def get_study_name_from_id(self, _study_id: int) -> str:
        return self._name

    def get_study_directions(self, _study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_trial_id_from_study_id_trial_number(self, _study_id: int, trial_number: int) -> int:
        assert trial_number == self.own.number, "a sampler or pruner asks for its own trial alone"
        return self.own._trial_id

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id == self.own._trial_id:
            return self.own
        return next(trial for trial in self.trials if trial._trial_id == trial_id)

    def get_all_trials(
        self, _study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        own = self.own
        trials = [own if trial.number == own.number else trial for trial in self.trials]
        if not any(trial is own for trial in reversed(trials)):
            trials.append(own)  # it is the newest trial
        chosen = trials if states is None else [trial for trial in trials if trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._check(trial_id)
        former = (trial.distributions[param_name] for trial in self.trials if param_name in trial.distributions)
        if (known := next(former, None)) is not None:
            check_distribution_compatibility(known, distribution)
        self.changes.params[param_name] = (param_value_internal, distribution)
        self.own.distributions[param_name] = distribution
        self.own.params[param_name] = distribution.to_external_repr(param_value_internal)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._check(trial_id)
        self.changes.facts[key] = self.own.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._check(trial_id)
        self.changes.marks[key] = self.own.system_attrs[key] = value

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Records the end only: whether the trial really ends, the store decides."""
        self._check(trial_id)
        self.changes.end = (state, values)
        return True

    def _check(self, trial_id: int) -> None:
        assert trial_id == self.own._trial_id, "a sampler or pruner writes its own trial alone"

    def _is_not_its_business(self, *_arguments: Any, **_also: Any) -> NoReturn:
        raise NotImplementedError("a sampler or pruner neither makes studies and trials nor writes other ones")

    create_new_study = delete_study = create_new_trial = get_all_studies = _is_not_its_business
    set_study_user_attr = set_study_system_attr = set_trial_intermediate_value = _is_not_its_business
    get_study_user_attrs = get_study_system_attrs = _is_not_its_business
