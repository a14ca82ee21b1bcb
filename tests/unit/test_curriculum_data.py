"""The rows of a curriculum: each in its stage or left out, every stage with rows, also in a trial's subset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.data.divide import divide
from hpsearch.data.prepared import DataFolder, read_data
from hpsearch.data.rows import LeftOut, ReadRows, Row
from hpsearch.data.split import Splits, subset
from hpsearch.errors import FieldError
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import DataSpec

MakeRow = Callable[..., Row]
Read = Callable[..., ReadRows]
WriteJsonl = Callable[[str, list[Any]], str]
COLUMNS = {"question": "q", "answer": "a", "stage": "level"}
THREE = {"stages": [{"name": "easy"}, {"name": "medium", "values": ["2", "two"]}, {"name": "hard", "values": ["3"]}]}


def divided(rows: list[Row], curriculum: dict[str, Any], folder: Path) -> tuple[Splits, LeftOut]:
    data = DataSpec.model_validate({"source": "rows.jsonl", "columns": COLUMNS})
    return divide(ReadRows(rows), data, CurriculumSpec.model_validate(curriculum), folder)


def refusal(rows: list[Row], curriculum: dict[str, Any], folder: Path) -> str:
    with pytest.raises(FieldError) as raised:
        divided(rows, curriculum, folder)
    assert raised.value.key == "curriculum.stages"
    return raised.value.message


def staged(row: MakeRow, **counts: int) -> list[Row]:
    stages = [stage.removeprefix("_") for stage, count in counts.items() for _ in range(count)]
    return [row(i, stage=stage) for i, stage in enumerate(stages)]


def test_stages_are_found_by_name_or_by_their_values(row: MakeRow, tmp_path: Path) -> None:
    rows = staged(row, easy=30, _2=20, two=10, _3=30)
    splits, left_out = divided(rows, THREE, tmp_path)
    assert sum(map(len, splits.values())) == 90
    assert left_out == {}
    curriculum = CurriculumSpec.model_validate(THREE)
    found = Counter(curriculum.stage_of(row.stage) for row in splits["test"])
    assert found == {"easy": 3, "medium": 3, "hard": 3}, "splits keep the stages' shares"


def test_a_stage_with_values_does_not_answer_to_its_name(row: MakeRow, tmp_path: Path) -> None:
    _, left_out = divided(staged(row, easy=20, _2=20, _3=20, medium=2), THREE, tmp_path)
    assert left_out == {"'medium' is in no stage of the curriculum": ["60", "61"]}


def test_rows_in_no_stage_are_left_out_and_counted(row: MakeRow, tmp_path: Path) -> None:
    rows = [*staged(row, easy=20, _2=20, _3=20, _4=2), row(90), row(91, stage="None")]
    splits, left_out = divided(rows, THREE, tmp_path)
    assert left_out == {
        "'4' is in no stage of the curriculum": ["60", "61"],
        "None is in no stage of the curriculum": ["90"],
        "'None' is in no stage of the curriculum": ["91"],
    }
    assert sum(map(len, splits.values())) == 60


def test_a_stage_without_data_is_refused_with_what_there_is(row: MakeRow, tmp_path: Path) -> None:
    message = refusal(staged(row, easy=30, _2=20), THREE, tmp_path)
    assert message == "stage 'hard' has no rows; the stage column says 'easy' (30 rows), '2' (20 rows)"


def test_rows_without_a_stage_are_named_as_such(row: MakeRow, tmp_path: Path) -> None:
    message = refusal([row(i) for i in range(9)], {"stages": [{"name": "None"}]}, tmp_path)
    assert message == "stage 'None' has no rows; the stage column says nothing (9 rows)"


def test_a_stage_whose_rows_all_fell_into_other_splits_is_refused(row: MakeRow, tmp_path: Path) -> None:
    places = [("easy", "train"), ("easy", "validation"), ("easy", "test"), ("hard", "validation"), ("hard", "test")]
    rows = [row(i, stage=stage, split=split) for i, (stage, split) in enumerate(places)]
    curriculum = CurriculumSpec.model_validate({"stages": [{"name": "easy"}, {"name": "hard"}]})
    data = DataSpec.model_validate({"source": "rows.jsonl", "columns": COLUMNS, "split": {"column": "part"}})
    with pytest.raises(FieldError) as raised:
        divide(ReadRows(rows), data, curriculum, tmp_path)
    assert (raised.value.key, raised.value.message) == ("curriculum.stages", "stage 'hard' has no training rows")


def test_what_is_asked_in_two_stages_stays_in_one_split(row: MakeRow, tmp_path: Path) -> None:
    easy = [row(i, stage="easy") for i in range(60)]
    hard = [row(100 + i, stage="hard", messages=easy[i].messages) for i in range(60)]
    splits, left_out = divided([*easy, *hard], {"stages": [{"name": "easy"}, {"name": "hard"}]}, tmp_path)
    assert left_out == {}
    where = {row.id: name for name, rows in splits.items() for row in rows}
    assert all(where[str(i)] == where[str(100 + i)] for i in range(60))


def test_no_rows_at_all_are_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"no rows are left: the source has none") as raised:
        divided([], THREE, tmp_path)
    assert raised.value.key == "data.source"


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_a_trial_s_subset_has_rows_of_every_stage(row: MakeRow, fraction: float) -> None:
    rows = staged(row, easy=300, _2=4, _3=100)
    drawn = subset(rows, fraction)
    assert {row.stage for row in drawn} == {"easy", "2", "3"}
    assert len(drawn) <= fraction * 404 + 2
    assert [int(row.id) for row in drawn] == sorted(int(row.id) for row in drawn)
    assert subset(rows, fraction) == drawn


def test_the_stage_column_is_read_as_text(write_jsonl: WriteJsonl, read: Read) -> None:
    write_jsonl("rows.jsonl", [{"q": f"{i}?", "a": "x", "level": level} for i, level in enumerate([1, 2, None])])
    assert [row.stage for row in read("rows.jsonl", columns=COLUMNS).rows] == ["1", "2", None]


def test_a_missing_stage_column_is_named(write_jsonl: WriteJsonl, read: Read) -> None:
    write_jsonl("rows.jsonl", [{"q": "?", "a": "x", "stage": "1"}])
    with pytest.raises(FieldError) as raised:
        read("rows.jsonl", columns=COLUMNS)
    assert raised.value.key == "data.columns.stage"
    assert raised.value.message == "the data has no column 'level'; it has: q, a, stage"


@pytest.mark.usefixtures("own_cache")
def test_prepared_rows_know_their_stage(tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    import datasets

    from hpsearch.data.prepared import write_rows

    write_jsonl("rows.jsonl", [{"q": f"{i}?", "a": "x", "level": str(i % 3)} for i in range(6)])
    data = DataSpec.model_validate({"source": "rows.jsonl", "columns": COLUMNS})
    read, _ = read_data(data, tmp_path, DataFolder(tmp_path / "storage"), lambda *_: None)
    write_rows(read.rows, tmp_path / "written")
    assert list(datasets.load_from_disk(str(tmp_path / "written"))["stage"]) == ["0", "1", "2"] * 2
