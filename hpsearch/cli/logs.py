"""`hpsearch logs`: what a study's workers and trainers said, or a trial's attempts."""

from __future__ import annotations

import sys
from contextlib import closing
from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import StoreOption, StudyArgument, short
from hpsearch.opening.places import find_study, look_at_store, storage_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hpsearch.search.view import TrialView
    from hpsearch.store import Store, StoredStudy
    from hpsearch.watch.logs import Line

_LOOK_EVERY_S = 0.5
_ELSEWHERE = "If machines share no storage folder, ask on that machine"


def logs(
    study: StudyArgument,
    trial: Annotated[int | None, typer.Argument(min=0, help="a trial's number", show_default=False)] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="follow until the study or the trial is over, or Ctrl-C")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Show the logs of a study's workers and trainers; for a trial, the logs of its attempts and why it failed."""
    with look_at_store(store) as opened:
        found = find_study(opened, study)
        if trial is None:
            _show_study(opened, found, follow)
        else:
            _show_trial(opened, found, trial, follow)


def _show_study(store: Store, study: StoredStudy, follow: bool) -> None:
    from hpsearch.watch.logs import name_of

    folder = storage_folder().logs(study.name)

    def find() -> list[Path]:
        return sorted(folder.glob("*.txt"))

    if not find():
        _note(f"{study.name} has no logs in {short(folder)}{' yet' if follow else ''}")
    _note_elsewhere(store, study, folder)
    is_one = len(find()) == 1 and not follow
    for file, line in _lines(store, find, lambda: _is_finished(store, study), follow):
        print(line if is_one else f"{name_of(file)} | {line}", flush=follow)


def _show_trial(store: Store, study: StoredStudy, number: int, follow: bool) -> None:
    folder = storage_folder().trial(study.uid, number)
    trial = _find_trial(store, study, number)

    def find() -> list[Path]:
        return [attempt.log for attempt in folder.attempts]

    shown: list[Path] = []
    for file, line in _lines(store, find, lambda: _find_trial(store, study, number).is_finished, follow):
        if file not in shown:
            _print_headings(find(), shown, file)
        print(line, flush=follow)
    _print_headings(find(), shown)
    _note_missing(store, study, number, {file.parent.name for file in find() if file.exists()})
    if follow:
        trial = _find_trial(store, study, number)
    if trial.outcome == "failed":
        _print_failure(trial)


def _print_headings(files: list[Path], shown: list[Path], file: Path | None = None) -> None:
    """Before the first line of `file`, an attempt's log: its heading, after those of earlier ones that said nothing.
    Without `file`: of all that said nothing.
    """
    silent = [each for each in files[: files.index(file) if file else None] if each not in shown and each.exists()]
    for each in [*silent, *([file] if file else [])]:
        print(f"── {each.parent.name.replace('-', ' ')} ──")
        if each in silent:
            print("(nothing was said)")
        shown.append(each)


def _lines(store: Store, find: Callable[[], list[Path]], is_over: Callable[[], bool], follow: bool) -> Iterator[Line]:
    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.watch.logs import Ending, follow_logs, read_logs
    from hpsearch.worker.relay import Relay

    if not follow:
        yield from read_logs(find())
        return
    with closing(Relay(store, StopFlag())) as relay:
        yield from follow_logs(find, Ending(relay, is_over, _note), lambda: sleep(_LOOK_EVERY_S))


def _is_finished(store: Store, study: StoredStudy) -> bool:
    with store.reaching():
        return store.leases.slots(study.study_id).all_finished


def _find_trial(store: Store, study: StoredStudy, number: int) -> TrialView:
    """Raises InputError with the numbers that exist."""
    from hpsearch.errors import InputError
    from hpsearch.search.view import read_view

    trials = read_view(store, study).trials
    for trial in trials:
        if trial.number == number:
            return trial
    there = f"it has trials 0 to {trials[-1].number}" if trials else "none has begun yet"
    raise InputError(f"study {study.name} has no trial {number}; {there}")


def _note_elsewhere(store: Store, study: StoredStudy, folder: Path) -> None:
    """Names machines whose workers have no log here."""
    import socket

    from hpsearch.store.workers import host_and_pid

    with store.reaching():
        workers = [worker.worker_id for worker in store.workers.of(study.study_id)]
    here = {file.stem.removeprefix("trainer-") for file in folder.glob("trainer-*.txt")}
    hosts = {host_and_pid(worker)[0] for worker in workers if worker.replace(":", "-") not in here}
    if elsewhere := sorted(hosts - {socket.gethostname()}):
        _note(f"no logs of {', '.join(elsewhere)} are here. {_ELSEWHERE}: hpsearch logs {study.name}")


def _note_missing(store: Store, study: StoredStudy, number: int, here: set[str]) -> None:
    """Names attempts without a log here, and the machine of the last one."""
    from hpsearch.store.workers import host_and_pid

    with store.reaching():
        trial_id = store.optuna.get_trial_id_from_study_id_trial_number(study.study_id, number)
        worker, last = store.leases.last_of(trial_id)
    missing = [str(attempt) for attempt in range(1, last + 1) if f"attempt-{attempt}" not in here]
    if not missing:
        return
    which = f"attempt {missing[0]}" if len(missing) == 1 else f"attempts {', '.join(missing)}"
    where = f"; the last one is {host_and_pid(worker)[0]}'s" if worker and str(last) in missing else ""
    _note(f"{which} of trial {number} left no log here{where}. {_ELSEWHERE}: hpsearch logs {study.name} {number}")


def _print_failure(trial: TrialView) -> None:
    from hpsearch.watch.logs import shown

    print(shown(f"── failed: {trial.facts.get('reason', 'no reason was stored')} ──".encode()))
    for line in str(trial.facts.get("traceback") or "").splitlines():
        print(shown(line.encode(errors="replace")))


def _note(words: str) -> None:
    """On standard error, apart from the log lines."""
    from hpsearch.errors import cut

    print(f"hpsearch: {cut(words, 1000)}", file=sys.stderr, flush=True)
