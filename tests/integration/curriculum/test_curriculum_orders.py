"""The orders of a curriculum: when a training meets which row, how often, and in how many steps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from hpsearch.spec.curriculum import CurriculumSpec, StageSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.tasks.curriculum import curriculum_stages
from hpsearch.train.trainer import planned_steps
from hpsearch.trial import TrialConfig
from tests.integration.inside import Inside
from tests.integration.stage_fixtures import Rows, config_of, counted, curriculum, level_of, levels


class TestOneTraining:
    def test_sequential_keeps_the_order_of_stages_and_rows(
        self, rows: Rows, inside: Inside, tmp_path: Path, met: list[list[str]]
    ) -> None:
        result = inside.run(tmp_path / "trial", config_of(rows, curriculum=curriculum(order="sequential")))
        assert result.num_steps == 6
        assert levels(met) == ["easy"] * 12 + ["medium"] * 8 + ["hard"] * 4
        for part in (met[:3], met[3:5], met[5:]):
            ids = [int(row_id) for batch in part for row_id in batch]
            assert ids == sorted(ids)

    def test_random_mixes_the_stages(self, rows: Rows, inside: Inside, tmp_path: Path, met: list[list[str]]) -> None:
        config = config_of(rows, curriculum=curriculum(order="random"))
        inside.run(tmp_path / "trial", config)
        assert set(counted(met).values()) == {1}
        assert len(counted(met)) == 24
        assert all(len(set(part)) > 1 for part in (levels(met)[:12], levels(met)[12:]))
        assert positions(config) == positions(config)
        other = config.model_copy(update={"training": config.training.model_copy(update={"seed": 7})})
        assert positions(other) != positions(config)


def positions(config: TrialConfig) -> list[str]:
    """The ids of the rows of all stages in the order in which a training that shuffles nothing meets them."""
    stages = curriculum_stages(config, Dataset.load_from_disk(str(config.train_rows)))
    return [row_id for stage in stages for row_id in stage.rows["id"]]


def visits(config: TrialConfig) -> Counter[str]:
    """How often each row is met, where whole epochs are asked for."""
    stages = curriculum_stages(config, Dataset.load_from_disk(str(config.train_rows)))
    counts: Counter[str] = Counter()
    for stage in stages:
        for row_id in stage.rows["id"]:
            counts[row_id] += int(stage.epochs)
    return counts


class TestVisits:
    @pytest.mark.parametrize("order", ["stages", "sequential", "random"])
    @pytest.mark.parametrize("epochs", [1, 3])
    def test_every_order_sees_each_row_equally_often(self, rows: Rows, order: str, epochs: int) -> None:
        config = config_of(rows, curriculum=curriculum(order=order), budget=BudgetSpec(epochs=epochs))
        assert set(visits(config).values()) == {epochs}
        assert len(visits(config)) == 24

    @pytest.mark.parametrize("order", ["stages", "sequential", "random"])
    def test_also_where_one_stage_is_repeated(self, rows: Rows, order: str) -> None:
        stages = [StageSpec(name="easy"), StageSpec(name="medium", epochs=3), StageSpec(name="hard", epochs=2)]
        config = config_of(rows, curriculum=CurriculumSpec(stages=stages, order=order), budget=BudgetSpec(epochs=2))
        assert {level_of(row_id): count for row_id, count in visits(config).items()} == {
            "easy": 2,
            "medium": 6,
            "hard": 4,
        }

    @pytest.mark.parametrize("order", ["sequential", "random"])
    @pytest.mark.parametrize(
        "budget", [BudgetSpec(epochs=0.5), BudgetSpec(max_steps=3), BudgetSpec(epochs=1.5), BudgetSpec(max_steps=9)]
    )
    def test_a_short_training_sees_all_stages_in_their_shares(self, rows: Rows, order: str, budget: BudgetSpec) -> None:
        config = config_of(rows, curriculum=curriculum(order=order), budget=budget)
        epochs = budget.epochs if budget.max_steps is None else budget.max_steps / 6
        counts = Counter(level_of(row_id) for row_id in positions(config))
        assert counts == {"easy": 12 * epochs, "medium": 8 * epochs, "hard": 4 * epochs}
        assert set(visits(config).values()) <= {int(epochs), int(epochs) + 1}

    def test_a_pass_is_as_long_as_the_next(self, rows: Rows) -> None:
        config = config_of(rows, curriculum=curriculum(order="sequential"), budget=BudgetSpec(epochs=2))
        in_order = [level_of(row_id) for row_id in positions(config)]
        assert in_order == (["easy"] * 12 + ["medium"] * 8 + ["hard"] * 4) * 2

    @pytest.mark.parametrize("order", ["sequential", "random"])
    def test_the_smallest_budget_still_sees_a_row_of_each_stage(self, rows: Rows, order: str) -> None:
        config = config_of(rows, curriculum=curriculum(order=order), budget=BudgetSpec(epochs=0.001))
        assert sorted(level_of(row_id) for row_id in positions(config)) == ["easy", "hard", "medium"]


@pytest.mark.parametrize(
    ("max_steps", "wanted"),
    [
        (None, [3, 2, 1]),
        (6, [3, 2, 1]),
        (12, [6, 4, 2]),
        (7, [4, 2, 1]),
        (10, [5, 3, 2]),
        (4, [2, 1, 1]),
        (3, [1, 1, 1]),
    ],
)
def test_steps_are_shared_out_among_stages(rows: Rows, max_steps: int | None, wanted: list[int]) -> None:
    config = config_of(rows, budget=BudgetSpec(max_steps=max_steps))
    stages = curriculum_stages(config, Dataset.load_from_disk(str(config.train_rows)))
    assert planned_steps(stages, config) == wanted
