"""Opening a study: created from its file, or found in the store and compared with the file and the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from hpsearch.bridge.protocol import Event
from hpsearch.errors import InputError, StudyFileErrors
from hpsearch.folders import JobFolder
from hpsearch.results.best import choose
from hpsearch.search.view import read_view
from hpsearch.study.open import OpenStudy
from tests.unit.opening_fixtures import NUM_ROWS, Desk, inspecting
from tests.unit.worker_fixtures import ScriptedTrainer, plays


def num_rows(path: Path) -> int:
    return len(datasets.load_from_disk(str(path)))


def test_a_study_is_created_from_its_file(desk: Desk) -> None:
    start = plays(inspecting())
    study = desk.open(start=start)
    assert [trainer.ended for trainer in start.trainers] == [True]
    stored = desk.store.studies.find("demo")
    assert stored is not None
    assert (stored.study_id, stored.spec, stored.trials) == (study.study_id, desk.file().spec, 4)
    assert stored.folder == desk.folder
    assert {split: len(rows) for split, rows in study.manifest.splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }
    assert (num_rows(study.train_rows), num_rows(study.validation_rows)) == (16, 2)
    assert desk.store.optuna.get_all_trials(study.study_id) == []
    assert desk.store.optuna.get_study_user_attrs(study.study_id)["base"] == "tiny:qwen2"


def test_no_trial_can_see_the_test_rows(desk: Desk) -> None:
    study = desk.open(start=plays(inspecting()))
    written = sorted(path.name for path in study.train_rows.parent.iterdir() if path.is_dir())
    assert written == ["train", "validation"]
    assert list((desk.storage.path / "inspections").iterdir()) == []


def test_a_study_is_resumed_without_another_inspection(desk: Desk) -> None:
    first = desk.open(start=plays(inspecting()))
    again = desk.open()
    assert (again.study_id, again.manifest, again.train_rows) == (first.study_id, first.manifest, first.train_rows)


def test_a_changed_file_is_refused_and_shows_what_was_and_the_choices(desk: Desk) -> None:
    desk.open(start=plays(inspecting()))
    with pytest.raises(InputError) as raised:
        desk.open("training.batch_size=2", "budget.epochs=3", "search.trials=9")
    told = str(raised.value)
    assert "  budget.epochs: 1.0 → 3.0\n  training.batch_size: 16 → 2\n" in told
    assert "search.trials" not in told
    assert "--set study=demo-2" in told
    assert desk.budget == 4


def test_the_choice_of_another_name_works(desk: Desk) -> None:
    desk.open(start=plays(inspecting()))
    desk.open("training.batch_size=2", "study=demo-2", start=plays(inspecting()))
    assert [study.name for study in desk.store.studies.all()] == ["demo", "demo-2"]


def test_what_changes_no_trial_may_change_and_the_budget_follows(desk: Desk) -> None:
    desk.open(start=plays(inspecting()))
    study = desk.open("search.trials=6", "final.epochs=9", "description=more of it")
    assert desk.budget == 6
    stored = desk.store.studies.find("demo")
    assert stored is not None
    assert stored.spec == study.spec == desk.file("search.trials=6", "final.epochs=9", "description=more of it").spec


def test_a_worker_that_joins_leaves_the_budget_as_it_is(desk: Desk) -> None:
    desk.open(start=plays(inspecting()))
    desk.open("search.trials=6", joins=True)
    assert desk.budget == 4


def test_a_worker_that_joins_first_creates_the_study(desk: Desk) -> None:
    desk.open(start=plays(inspecting()), joins=True)
    assert desk.budget == 4


def test_workers_that_all_find_no_study_share_the_one_that_the_first_creates(desk: Desk) -> None:
    """As the pods of a Job that start at the same moment: one creates it while the others still prepare it."""
    faster: list[OpenStudy] = []

    def overtaken(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        faster.append(desk.open(joins=True, start=plays(inspecting())))
        yield from inspecting()(trainer, folder)

    study = desk.open(joins=True, start=plays(overtaken))
    assert [study] == faster
    assert [stored.study_id for stored in desk.store.studies.all()] == [study.study_id]


def test_a_grid_has_no_more_trials_than_points(desk: Desk) -> None:
    grid = ("search.sampler=grid", "search.space.training.learning_rate=[1e-4]", "search.trials=9")
    desk.open(*grid, start=plays(inspecting()))
    assert desk.budget == 2


def test_a_file_without_a_search_is_refused_with_what_it_is_for(desk: Desk) -> None:
    key, _, words = desk.refusal("search=null", start=plays(inspecting()))
    assert key == "search"
    assert "hpsearch train" in words


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"q": "question 5", "a": "55"}, "row '5' (line 6) has changed"),
        (None, "row '5' (line 6) has changed"),  # a row in the middle is gone: all that follow have moved up
    ],
)
def test_changed_data_is_refused(desk: Desk, changed: dict[str, str] | None, words: str) -> None:
    desk.open(start=plays(inspecting()))
    rows = [{"q": f"question {number}", "a": str(number)} for number in range(NUM_ROWS)]
    rows[5:6] = [changed] if changed else []
    desk.write_rows(rows)
    with pytest.raises(StudyFileErrors, match="the data is not what it was when the study was created") as raised:
        desk.open()
    assert raised.value.mistakes[0].key == "data.source"
    assert raised.value.mistakes[0].line == 6
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "override",
    [
        "training.max_grad_norm=.inf",
        "final.epochs=.nan",
        "search.space.training.learning_rate={low: 1e-5, high: .inf}",
        "search.space.training.weight_decay=[0.1, .inf]",
    ],
)
def test_an_infinite_value_is_refused(desk: Desk, override: str) -> None:
    with pytest.raises(StudyFileErrors, match=rf"{override.partition('=')[0]}.*: expected a finite number, found"):
        desk.file(override)


def test_only_what_is_listed_may_change(desk: Desk) -> None:
    desk.open(start=plays(inspecting()))
    with pytest.raises(InputError, match="trials_per_process"):
        desk.open("search.trials_per_process=1")


def test_a_study_that_moved_with_its_data_knows_its_new_folder(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    desk.open(start=plays(inspecting()))
    moved = tmp_path_factory.mktemp("moved")
    (desk.folder / "rows.jsonl").rename(moved / "rows.jsonl")
    desk.folder = moved
    desk.open()
    stored = desk.store.studies.find("demo")
    assert stored is not None
    assert stored.folder == moved


def test_a_budget_may_not_shrink_below_what_is_finished(desk: Desk) -> None:
    study = desk.open(start=plays(inspecting()))
    for _ in range(3):
        lease = desk.store.leases.claim(study.study_id, "one:1:1.00", 60, [])
        assert lease is not None
        desk.store.leases.close(lease)
    with pytest.raises(StudyFileErrors, match=r"in --set: search\.trials: 3 trials have begun already: give 3 or more"):
        desk.open("search.trials=2")
    assert desk.store.leases.slots(study.study_id).wanted == 4
    desk.open("search.trials=3")
    assert desk.store.leases.slots(study.study_id).wanted == 3


def test_trials_of_an_earlier_hpsearch_are_read_and_no_trial_joins_them(desk: Desk) -> None:
    """It searched how many forwards make a step, of two rows each."""
    overrides = ("training.micro_batch=2", "search.space.training.batch_size=[2, 8]")
    study = desk.open(*overrides, start=plays(inspecting()))
    rate = FloatDistribution(1e-5, 1e-3, log=True)
    forwards = CategoricalDistribution([1, 4])
    former = create_trial(
        params={"training.learning_rate": 1e-4, "training.gradient_accumulation_steps": 4},
        distributions={"training.learning_rate": rate, "training.gradient_accumulation_steps": forwards},
        user_attrs={"outcome": "complete"},
        value=0.5,
    )
    desk.store.optuna.create_new_trial(study.study_id, former)
    stored = desk.store.studies.find("demo")
    assert stored is not None
    best = choose(read_view(desk.store, stored), None)
    assert best.values == {"training.learning_rate": 1e-4, "training.batch_size": 8}
    assert (best.final.training.batch_size, best.final.training.learning_rate) == (8, 1e-4)
    with pytest.raises(InputError, match=r"was searched by an older hpsearch, .* --set study=demo-2"):
        desk.open(*overrides)
