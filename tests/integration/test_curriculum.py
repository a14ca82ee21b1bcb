"""Curricula in real training: what each stage sees, where it starts, how it ends, and how it goes on after a kill."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.errors import TrainerDied
from hpsearch.folders import TrialFolder
from hpsearch.protocol import Event, Reported
from hpsearch.spec.curriculum import CurriculumSpec, StageSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.tasks.curriculum import curriculum_stages
from hpsearch.train.tasks.speaking import Speaking
from hpsearch.train.trainer import Trainer, planned_steps
from hpsearch.trial import Outcome, TrialConfig, TrialResult
from tests.integration.conftest import Driver, text_config
from tests.integration.inside import Inside

Rows = tuple[Path, Path]
LEVELS = ["easy", "easy", "easy", "medium", "medium", "hard"]
"""Of six rows; the next six have the same, and so on."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """(12 easy, 8 medium and 4 hard training rows, mixed; 6 validation rows)"""
    folder = tmp_path_factory.mktemp("stages")
    write_rows([_row(number) for number in range(24)], folder / "train")
    write_rows([_row(number) for number in range(24, 30)], folder / "validation")
    return folder / "train", folder / "validation"


def _row(number: int) -> Row:
    question, answer = f"Is {number} even or odd?", "even" if number % 2 == 0 else "odd"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Row(str(number), messages, None, None, None, None, None, level_of(str(number)))


def curriculum(**more: Any) -> CurriculumSpec:
    return CurriculumSpec(stages=[StageSpec(name=name) for name in ("easy", "medium", "hard")], **more)


def config_of(rows: Rows, **changes: Any) -> TrialConfig:
    """Six steps (three easy, two medium, one hard) with a report at each, unless changed."""
    whole: dict[str, Any] = {"curriculum": curriculum(), "budget": BudgetSpec(reports=6), **changes}
    return text_config(rows, task="text-curriculum", training__lr_scheduler="constant", **whole)


@pytest.fixture(scope="module")
def inside() -> Inside:
    return Inside()


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of the rows of each training batch, as they come."""
    batches: list[list[str]] = []
    collate = Speaking.collate

    def spy(skill: Speaking, rows: list[dict[str, Any]]) -> Any:
        batches.append([row["id"] for row in rows])
        return collate(skill, rows)

    monkeypatch.setattr(Speaking, "collate", spy)
    return batches


@pytest.fixture(scope="module")
def whole(rows: Rows, inside: Inside, tmp_path_factory: pytest.TempPathFactory) -> TrialResult:
    """An uninterrupted run of twelve steps, six easy, four medium and two hard, with a report at each."""
    return inside.run(tmp_path_factory.mktemp("whole"), twelve_steps(rows))


def twelve_steps(rows: Rows) -> TrialConfig:
    return config_of(rows, training__batch_size=2, budget=BudgetSpec(reports=12))


def losses(result: TrialResult) -> list[float]:
    return [report.loss for report in result.reports]


def level_of(row_id: str) -> str:
    return LEVELS[int(row_id) % 6]


def levels(met: list[list[str]]) -> list[str]:
    return [level_of(row_id) for batch in met for row_id in batch]


def counted(met: list[list[str]]) -> Counter[str]:
    return Counter(row_id for batch in met for row_id in batch)


def test_each_stage_sees_its_own_rows_shuffled_and_in_the_stages_order(
    rows: Rows, inside: Inside, tmp_path: Path, met: list[list[str]]
) -> None:
    result = inside.run(tmp_path / "trial", config_of(rows))
    assert result.outcome is Outcome.COMPLETE
    assert result.num_steps == 6
    assert levels(met) == ["easy"] * 12 + ["medium"] * 8 + ["hard"] * 4
    assert set(counted(met).values()) == {1}
    easy = [int(row_id) for batch in met[:3] for row_id in batch]
    assert easy != sorted(easy)
    assert [report.step for report in result.reports] == [1, 2, 3, 4, 5, 6]
    assert result.ledger is not None
    assert result.ledger.closes, result.ledger.not_given_back


def test_a_stage_starts_where_the_one_before_ended(
    rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start, at_end = [], []
    train = Trainer.train

    def spy(trainer: Trainer, *arguments: Any, **more: Any) -> Any:
        at_start.append(trained_weights(trainer.model))
        ended = train(trainer, *arguments, **more)
        at_end.append(trained_weights(trainer.model))
        return ended

    monkeypatch.setattr(Trainer, "train", spy)
    inside.run(tmp_path / "trial", config_of(rows))
    assert len(at_start) == 3
    for before, after in zip(at_end, at_start[1:], strict=False):
        assert equal(before, after)
    for start, end in zip(at_start, at_end, strict=True):
        assert not equal(start, end), "a stage that learns nothing"


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_each_stage_is_slower_than_the_one_before_by_the_decay(rows: Rows, inside: Inside, tmp_path: Path) -> None:
    config = config_of(rows, curriculum=curriculum(learning_rate_decay=0.5), training__warmup_ratio=0.0)
    inside.run(tmp_path / "trial", config)
    history = TrialFolder(tmp_path / "trial").read_history()
    assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]
    rates = [point.learning_rate for point in history]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])


def test_reports_are_spread_over_the_whole_run(rows: Rows, inside: Inside, tmp_path: Path) -> None:
    folder, reported_at = TrialFolder(tmp_path / "trial"), {}

    def note(report: Reported) -> bool:
        reported_at[report.step] = len(folder.read_history())
        return True

    result = inside.run(folder.path, config_of(rows, budget=BudgetSpec(reports=4)), goes_on=note)
    assert reported_at == {1: 2, 2: 3, 3: 5, 4: 6}
    assert [report.step for report in result.reports] == [1, 2, 3, 4]


@pytest.mark.parametrize("last", [1, 3, 4], ids=["within the first", "between two", "within the second"])
def test_it_is_pruned_within_and_between_stages(
    rows: Rows, inside: Inside, tmp_path: Path, met: list[list[str]], last: int
) -> None:
    result = inside.run(tmp_path / "trial", config_of(rows), goes_on=lambda report: report.step < last)
    assert result.outcome is Outcome.PRUNED
    assert (result.num_steps, len(result.reports)) == (last, last)
    assert len(met) <= last + 1, "the next batch may be prepared already, no more"


@pytest.mark.parametrize("after", [2, 4, 5, 8, 9])
def test_a_checkpoint_on_request_continues_in_its_stage_as_if_nothing_had_happened(
    rows: Rows, inside: Inside, tmp_path: Path, whole: TrialResult, after: int
) -> None:
    """It is taken at the step after the report: 6 and 10 are the ends of stages."""
    folder = TrialFolder(tmp_path / "trial")
    stopped = inside.run(folder.path, twelve_steps(rows), stops_after=after)
    assert (stopped.outcome, stopped.num_steps) == (Outcome.STOPPED, after + 1)
    continued = inside.run(folder.path, twelve_steps(rows))
    assert continued.outcome is Outcome.COMPLETE
    assert losses(continued) == losses(whole), "not bit for bit the same"
    assert len(folder.history.read_text().splitlines()) == 12, "a step was trained twice, or left out"


def test_killed_in_its_second_stage_it_continues_there(
    rows: Rows, inside: Inside, start_driver: Callable[[], Driver], tmp_path: Path, whole: TrialResult
) -> None:
    driver, folder = start_driver(), TrialFolder(tmp_path / "trial")

    def kill(event: Event) -> None:
        if isinstance(event, Reported) and event.step == 8:
            driver.process._process.send_signal(signal.SIGKILL)

    with pytest.raises(TrainerDied, match="signal 9"):
        driver.run(folder.path, twelve_steps(rows), each=kill)
    assert folder.stage(0, 3).done.exists()
    checkpoint = folder.last_checkpoint()
    assert checkpoint == folder.checkpoints / "stage-2" / "checkpoint-1"
    seen: list[int] = []

    def note(report: Reported) -> bool:
        seen.append(report.step)
        return True

    continued = inside.run(folder.path, twelve_steps(rows), goes_on=note)
    assert seen == [8, 9, 10, 11, 12]
    assert losses(continued) == losses(whole), "not bit for bit the same"
    assert continued.num_steps == 12


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
