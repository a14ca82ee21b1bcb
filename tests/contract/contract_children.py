"""What the processes of these tests do. Each opens the store for itself; some kill themselves, as `kill -9` would."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import optuna
from contract_parts import LEASE_S, created, opened, result_of, seconds_left, toy, worked
from sqlalchemy import event

import hpsearch.search.search as search_module
import hpsearch.search.slots as slots_module
from hpsearch.search import Search
from hpsearch.spec import StudySpec
from hpsearch.store.changes import write
from hpsearch.store.workers import DEAD_WORKERS, own_worker_id


def die(*_ignored: Any, **_also: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process runs on")


def open_and_close(url: str, spec: str) -> None:
    """As the first workers of a new study do, all at the same moment."""
    with opened(url) as store:
        created(store, StudySpec.model_validate_json(spec))


def claim_until_finished(url: str, study_id: int, diary: Path, dies_at: str | None) -> None:
    """Claims and finishes slots until the study has all; writes down every claim and every accepted end."""
    with opened(url) as store, diary.open("w") as notes:
        while True:
            if dies_at == "commit" and notes.tell():
                event.listen(store.optuna.engine, "commit", die)
            lease = store.leases.claim(study_id, own_worker_id(), LEASE_S, DEAD_WORKERS)
            if lease is None:
                if store.leases.slots(study_id).all_finished:
                    return
                time.sleep(0.005)
                continue
            print("claimed", lease.slot, lease.attempt, file=notes, flush=True)
            if dies_at == "claimed":
                die()
            store.leases.store_result(lease, "result")
            if dies_at == "stored":
                die()
            store.leases.close(lease)
            print("closed", lease.slot, lease.attempt, file=notes, flush=True)


def claim_and_end(url: str, spec: str) -> None:
    """A worker that works until the study has all its trials."""
    with opened(url) as store:
        search = Search(store, StudySpec.model_validate_json(spec))
        while not store.leases.slots(search.study_id).all_finished:
            worked(store, search, own_worker_id())


def take_over(url: str, study_id: int) -> None:
    """Takes a slot from its owner, and leaves it without one."""
    with opened(url) as store:
        assert store.leases.claim(study_id, own_worker_id(), LEASE_S, [*seconds_left(store, study_id)])


def die_in_trial(url: str, spec: str, moment: str) -> None:
    """Claims a slot, works on it and dies at the moment of that name."""
    with opened(url) as store:
        search = Search(store, StudySpec.model_validate_json(spec))
        lease = store.leases.claim(search.study_id, own_worker_id(), LEASE_S)
        assert lease is not None
        _prepare_to_die(moment)
        trial = search.start(lease)
        losses = toy(trial.values)
        reports = result_of(losses).reports
        search.bring(trial, reports[:1])
        if moment == "between two reports":
            die()
        search.bring(trial, reports)
        result = result_of(losses, reason="told by the first worker")
        if moment == "in the middle of telling":
            search_module.write = _write_and_die
        if moment == "where telling went wrong":
            store.leases.store_result(trial.lease, result.model_dump_json())
            die()
        search.tell(trial, result)
        assert moment == "after it was told", f"it did not die {moment}"
        die()


def _write_and_die(*arguments: Any) -> NoReturn:
    write(*arguments)
    die()


def _prepare_to_die(moment: str) -> None:
    suggest_all = search_module.suggest_all

    def suggest_some(trial: optuna.Trial, space: dict[str, Any]) -> None:
        suggest_all(trial, dict(list(space.items())[:2]))
        die()

    match moment:
        case "between claim and bind":
            slots_module.create = die  # type: ignore[assignment]
        case "between the trial's creation and bind":
            slots_module.change = die  # type: ignore[assignment]
        case "between bind and suggesting":
            search_module.suggest_all = die  # type: ignore[assignment]
        case "in the middle of suggesting":
            search_module.suggest_all = suggest_some
        case "in the middle of writing what was suggested":
            search_module.write = _write_and_die
