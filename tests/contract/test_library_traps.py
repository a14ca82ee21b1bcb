"""What we work around in our libraries. A test that fails here says that a workaround may go."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import optuna._gp.batched_lbfgsb
import pytest
from contract_parts import opened
from optuna._transform import _SearchSpaceTransform
from optuna.exceptions import StorageInternalError
from optuna.samplers import CmaEsSampler, GPSampler, GridSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState
from sqlalchemy import event, make_url
from sqlalchemy.exc import OperationalError

import hpsearch.store.engine as engine_module
from hpsearch.search.samplers import PlainCmaEsSampler
from hpsearch.store import Store


@pytest.fixture
def file(tmp_path: Path) -> str:
    """An SQLite database with one study that has one waiting trial, made with stock Optuna."""
    url = f"sqlite:///{tmp_path / 'trap.db'}"
    storage = RDBStorage(url)
    optuna.create_study(study_name="demo", storage=storage).enqueue_trial({})
    storage.engine.dispose()
    return url


@pytest.fixture
def two_stock(file: str) -> Iterator[list[RDBStorage]]:
    storages = [RDBStorage(file, engine_kwargs={"connect_args": {"timeout": 0}}) for _ in range(2)]
    yield storages
    for storage in storages:
        storage.engine.dispose()


@pytest.fixture
def two_ours(file: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Store]]:
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_S", 0)
    with opened(file) as one, opened(file) as two:
        yield [one, two]


def both_claim(one: RDBStorage, two: RDBStorage) -> list[bool | str]:
    """What each gets for the waiting trial when the second asks between the first one's reading and writing."""
    got: list[bool | str] = []

    @event.listens_for(one.engine, "before_cursor_execute")
    def meanwhile(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("UPDATE trials") and not got:
            try:
                got.append(two.set_trial_state_values(1, TrialState.RUNNING))
            except StorageInternalError as error:
                got.append(str(getattr(error.__cause__, "orig", error)))

    return [one.set_trial_state_values(1, TrialState.RUNNING), *got]


def test_stock_sqlite_gives_one_waiting_trial_to_two_workers(two_stock: list[RDBStorage]) -> None:
    """Optuna's SELECT … FOR UPDATE does not lock. When it does, `_make_sqlite_safe` may go."""
    assert both_claim(*two_stock) == [True, True]


def test_our_sqlite_lets_the_second_worker_wait(two_ours: list[Store]) -> None:
    assert both_claim(two_ours[0].optuna, two_ours[1].optuna) == [True, "database is locked"]
    assert two_ours[1].optuna.set_trial_state_values(1, TrialState.RUNNING) is False


def test_stock_sqlite_reads_for_update_beside_another_transaction(two_stock: list[RDBStorage]) -> None:
    with two_stock[0].engine.connect() as one, two_stock[1].engine.connect() as two:
        for connection in (one, two):
            assert connection.exec_driver_sql("SELECT state FROM trials").scalar_one() == "WAITING"


def test_our_sqlite_has_one_transaction_at_a_time(two_ours: list[Store]) -> None:
    engines = [store.optuna.engine for store in two_ours]
    with engines[0].connect() as one:
        assert one.exec_driver_sql("SELECT state FROM trials").scalar_one() == "WAITING"
        with engines[1].connect() as two, pytest.raises(OperationalError, match="database is locked"):
            two.begin()


def finish_grid(study: Study) -> None:
    for _ in range(2):
        trial = study.ask()
        trial.suggest_categorical("x", [1, 2])
        study.tell(trial, 1.0)


def test_the_stock_grid_raises_when_it_is_used_up() -> None:
    """`study.stop()` outside of `Study.optimize`. When it doesn't raise, `QuietGridSampler` may go."""
    study = optuna.create_study(sampler=GridSampler({"x": [1, 2]}))
    with pytest.raises(RuntimeError, match=r"`Study\.stop` is supposed to be invoked inside"):
        finish_grid(study)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_stock_gp_wants_a_constraint_of_all_trials_or_of_none() -> None:
    """When it doesn't, `memory_violation` may leave out what was not measured."""
    study = optuna.create_study(sampler=GPSampler(n_startup_trials=2))
    for violation in (None, -0.5):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        if violation is not None:
            trial.set_constraint("memory", violation)
        study.tell(trial, 1.0)
    with pytest.raises(ValueError, match="number of constraints must be the same"):
        study.ask().suggest_float("x", 0, 1)


def test_the_stock_cmaes_warns_of_every_constraint() -> None:
    """When it doesn't, `PlainCmaEsSampler.after_trial` may go."""
    study = optuna.create_study(sampler=CmaEsSampler())
    trial = study.ask()
    trial.set_constraint("memory", -0.5)
    with pytest.warns(UserWarning, match="Constraints have been set, but CmaEsSampler"):
        study.tell(trial, 1.0)


class Planted:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def with_a_pickle(sampler: CmaEsSampler, file: Path) -> Study:
    """A study in whose store somebody put a pickle where CMA-ES keeps its own."""
    study = optuna.create_study(sampler=sampler)
    for number in range(2):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_float("y", 0, 1)
        attributes = {"cma:optimizer:0": pickle.dumps(Planted(file)).hex(), "cma:generation": 0}
        for name, value in attributes.items() if number == 0 else ():
            study._storage.set_trial_system_attr(trial._trial_id, name, value)
        study.tell(trial, 1.0)
    return study


def test_the_stock_cmaes_runs_what_it_finds_in_the_store(tmp_path: Path) -> None:
    """When it doesn't, `PlainCmaEsSampler` may go."""
    study = with_a_pickle(CmaEsSampler(n_startup_trials=1), tmp_path / "was here")
    study.ask().suggest_float("x", 0, 1)
    assert (tmp_path / "was here").exists()


def test_our_cmaes_runs_nothing(tmp_path: Path) -> None:
    study = with_a_pickle(PlainCmaEsSampler(n_startup_trials=1), tmp_path / "was here")
    study.ask().suggest_float("x", 0, 1)
    assert not (tmp_path / "was here").exists()


def lowest_after(sampler: CmaEsSampler, trials: int) -> tuple[float, Study]:
    study = optuna.create_study(sampler=sampler)
    for _ in range(trials):
        trial = study.ask()
        x, y = trial.suggest_float("x", -5, 5), trial.suggest_float("y", -5, 5)
        study.tell(trial, (x - 1) ** 2 + 3 * (y + 2) ** 2)
    return study.best_value, study


def test_our_cmaes_learns_as_the_stock_one_and_stores_no_pickle() -> None:
    stock, with_pickles = lowest_after(CmaEsSampler(seed=0), 120)
    ours, without = lowest_after(PlainCmaEsSampler(seed=0), 120)
    assert max(stock, ours) < 1e-3
    keys = [{key for trial in study.trials for key in trial.system_attrs} for study in (with_pickles, without)]
    assert "cma:optimizer:0" in keys[0]
    assert keys[1] == {"cma:generation"}


def test_our_cmaes_knows_what_the_stock_one_had_pickled() -> None:
    """After the same trials it has the state that the stock optimizer had."""
    stock, ours = CmaEsSampler(seed=0), PlainCmaEsSampler(seed=1)
    study = lowest_after(stock, 62)[1]
    pickled = stock._restore_optimizer(study.trials)
    ours._restore_optimizer(study.trials)
    space = _SearchSpaceTransform(study.trials[-1].distributions, transform_0_1=True)
    replayed = ours._init_optimizer(space, study.direction)
    assert pickled is not None
    assert replayed.generation == pickled.generation >= 9
    for name in ("_mean", "_sigma", "_C"):
        assert np.allclose(getattr(replayed, name), getattr(pickled, name), rtol=1e-9), name


def test_the_gp_finds_what_makes_it_faster() -> None:
    """Without greenlet it computes one point at a time, and warns the user."""
    assert optuna._gp.batched_lbfgsb._greenlet_imports.is_successful()


def test_optuna_s_cache_does_not_know_a_trial_made_beside_it(file: str) -> None:
    """When it does, `Search.start` needs not read all trials before it suggests."""
    storage = RDBStorage(file)
    study = optuna.load_study(study_name="demo", storage=storage, sampler=RandomSampler())
    trial_id = storage.create_new_trial(study._study_id)
    with pytest.raises(KeyError, match=str(trial_id)):
        Trial(study, trial_id).suggest_float("x", 0, 1)
    study.get_trials(deepcopy=False)
    Trial(study, trial_id).suggest_float("x", 0, 1)
    storage.engine.dispose()


def test_automatic_halving_takes_its_first_rung_from_the_first_complete_trial() -> None:
    """When it doesn't, `make_pruner` may leave `min_resource` to Optuna."""

    def stopped_at(pruner: optuna.pruners.BasePruner) -> int:
        study = optuna.create_study(pruner=pruner)
        first = study.ask()
        first.report(1.0, 400)
        study.tell(first, 1.0)
        for loss in (1.0, 2.0):
            trial = study.ask()
            for step in range(1, 9):
                trial.report(loss, step)
                if trial.should_prune():
                    break
        return step

    assert stopped_at(optuna.pruners.SuccessiveHalvingPruner("auto", 2)) == 4
    assert stopped_at(optuna.pruners.SuccessiveHalvingPruner(1, 2)) == 1


def test_sqlalchemy_s_own_mask_shows_what_follows_an_at_sign() -> None:
    """`shown` must not rely on it."""
    assert "s3cret" in str(make_url("postgresql+psycopg://u:p@s3cret@host/trials"))
