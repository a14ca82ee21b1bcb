"""Claims: of several processes that see the same event, one sends the message."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from contract_parts import created, spec_of

from hpsearch.store import Store


def test_of_several_one_has_it_until_it_is_given_up(store: Store) -> None:
    study_id = created(store, spec_of(trials=1)).study_id
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda _: store.claims.take(study_id, "finished"), range(8))) == [False] * 7 + [True]
    assert store.claims.take(study_id, "paused")
    store.claims.give_up(study_id)
    assert store.claims.take(study_id, "finished")


def test_it_goes_with_the_study_and_hides_nothing_of_optunas(store: Store) -> None:
    study_id = created(store, spec_of(trials=1)).study_id
    before = store.optuna.get_study_system_attrs(study_id)
    store.claims.take(study_id, "finished")
    assert store.optuna.get_study_system_attrs(study_id) == before | {"hpsearch:claim:finished": True}
    store.claims.give_up(study_id)
    assert store.optuna.get_study_system_attrs(study_id) == before
    store.claims.take(study_id, "finished")
    store.optuna.delete_study(study_id)
