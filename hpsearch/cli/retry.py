"""`hpsearch retry`: trials that failed are run again, under their own numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import StoreOption, StudyArgument
from hpsearch.opening.places import change_store, find_study

if TYPE_CHECKING:
    from hpsearch.search.view import StudyView, TrialView
    from hpsearch.store import Store


def retry(
    study: StudyArgument,
    trials: Annotated[
        list[int] | None, typer.Argument(metavar="[TRIAL]...", help="trial numbers; default: all failed trials")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Run failed trials again from their last checkpoint; a paused study resumes."""
    from hpsearch.search.view import read_view
    from hpsearch.watch.console import open_console

    console = open_console()
    with change_store(store) as opened:
        found = find_study(opened, study)
        view = read_view(opened, found)
        chosen = {_id(opened, found.study_id, trial.number): trial.number for trial in _chosen(view, trials)}
        if not chosen:
            console.print(f"{study} has no trial that failed", soft_wrap=True)
            return
        with opened.reaching():
            given_back = opened.orders.reopen(found.study_id, list(chosen))
            paused = opened.orders.resume(found.study_id, len(view.failed) - len(given_back))
    for trial_id, number in chosen.items():
        if trial_id not in given_back:
            console.print(f"trial {number} is running right now: try again", soft_wrap=True)
    if given_back:
        numbers = ", ".join(str(chosen[trial_id]) for trial_id in given_back)
        console.print(f"to be run again: trial{'' if len(given_back) == 1 else 's'} {numbers}", soft_wrap=True)
    if paused:
        console.print(f"{study} was paused ({paused}); its trials may start again", soft_wrap=True)
    console.print("start workers with hpsearch run, worker or launch", soft_wrap=True)


def _id(store: Store, study_id: int, number: int) -> int:
    with store.reaching():
        return store.optuna.get_trial_id_from_study_id_trial_number(study_id, number)


def _chosen(view: StudyView, numbers: list[int] | None) -> list[TrialView]:
    """Raises InputError for a trial that does not exist, or did not fail."""
    from hpsearch.errors import InputError

    failed = {trial.number: trial for trial in view.failed}
    if not numbers:
        return list(failed.values())
    outcomes = {trial.number: trial.outcome for trial in view.trials}
    for number in numbers:
        if number not in failed:
            what = f"is {outcomes[number]}" if number in outcomes else "does not exist"
            known = f"those that failed: {', '.join(map(str, failed))}" if failed else "no trial failed"
            raise InputError(f"trial {number} of {view.study.name} {what}; {known}")
    return [failed[number] for number in dict.fromkeys(numbers)]
