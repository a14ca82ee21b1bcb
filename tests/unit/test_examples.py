"""Few-shot examples: which training rows come before a question, the same ones wherever it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from hpsearch.data.examples import Examples, Length, fitting, with_examples
from hpsearch.data.manifest import Manifest, make_manifest
from hpsearch.data.rows import ReadRows, Row
from hpsearch.data.split import Splits
from hpsearch.errors import FieldError, StudyFileErrors
from hpsearch.jobs import InspectionConfig
from hpsearch.results.predict import PredictionOptions, ask
from hpsearch.spec.data import DataSpec
from hpsearch.study.prepare import prepare_study
from tests.unit.answer_fixtures import answering, trained
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.test_cross_mistakes import CLASSIFY, TEXT, mistakes
from tests.unit.worker_fixtures import nobody, plays

MakeRow = Callable[..., Row]


def shown(row: Row) -> list[str]:
    """The questions of a row's examples."""
    return [turn["content"] for turn in row.examples if turn["role"] == "user"]


@pytest.fixture
def splits(row: MakeRow) -> Splits:
    """30 training rows in groups of three, and five rows in each other split."""
    train = [row(i, group=f"g{i // 3}") for i in range(30)]
    return {"train": train, "validation": [row(i) for i in range(30, 35)], "test": [row(i) for i in range(35, 40)]}


def test_examples_are_training_rows_of_other_groups(splits: Splits) -> None:
    found = with_examples(splits, 3)
    by_question = {row.messages[0]["content"]: row for row in splits["train"]}
    for name, rows in found.items():
        for row, bare in zip(rows, splits[name], strict=True):
            others = [by_question[question] for question in shown(row)]
            assert len({other.id for other in others}) == 3
            assert row.id not in {other.id for other in others}
            assert row.group is None or row.group not in {other.group for other in others}
            assert [turn["role"] for turn in row.examples] == ["user", "assistant"] * 3
            assert row.sha256 == bare.sha256, "what is shown before a row is no part of it"
    assert len({tuple(shown(row)) for rows in found.values() for row in rows}) > 30, "not the same ones for all"
    assert with_examples({**splits, "train": splits["train"][::-1]}, 3)["test"] == found["test"]


def test_a_row_that_goes_changes_the_examples_of_those_alone_that_saw_it(splits: Splits) -> None:
    gone = splits["train"][4]
    before = with_examples(splits, 2)["test"] + with_examples(splits, 2)["validation"]
    after = with_examples({**splits, "train": [row for row in splits["train"] if row is not gone]}, 2)
    question = gone.messages[0]["content"]
    assert any(question in shown(row) for row in before)
    for was, row in zip(before, after["test"] + after["validation"], strict=True):
        assert (was == row) is (question not in shown(was))


def test_neither_the_same_question_nor_the_same_words_are_shown(row: MakeRow) -> None:
    asked = {"role": "user", "content": "Is it?"}
    same = [row(i, messages=[asked, {"role": "assistant", "content": f"{i}"}]) for i in range(3)]
    examples = Examples([*same, row(7), row(8)], 2)
    assert {other.id for other in examples.of(same[0])} == {"7", "8"}
    turns = [{"role": "system", "content": "Be brief."}, *row(9).messages]
    assert [turn["role"] for turn in Examples([row(9, messages=turns)], 1).before(row(1)).examples] == [
        "user",
        "assistant",
    ], "a conversation has one system prompt"


def test_who_asks_without_the_answer_is_shown_the_same(splits: Splits, row: MakeRow) -> None:
    examples = Examples(splits["train"], 3)
    for known in splits["test"]:
        asked = row(1, messages=[known.messages[0], {"role": "assistant", "content": "?"}])
        assert examples.of(asked) == examples.of(known)


def test_other_ties_between_the_same_rows_are_other_examples(splits: Splits) -> None:
    found = make_manifest(with_examples(splits, 3), {}, examples=3)
    untied = {name: [replace(row, group=None) for row in rows] for name, rows in splits.items()}
    assert found.sha256 != make_manifest(with_examples(untied, 3), {}, examples=3).sha256, "they lie in one folder"
    with pytest.raises(FieldError, match="other rows share a group") as raised:
        found.rows_of(ReadRows([row for rows in untied.values() for row in rows]))
    assert raised.value.key == "data.examples"


def test_too_few_rows_to_be_shown_are_reported(row: MakeRow) -> None:
    with pytest.raises(FieldError, match="row '0' can be shown 1 training rows only") as raised:
        with_examples({"train": [row(0, group="a"), row(1, group="a"), row(2)], "validation": [], "test": []}, 2)
    assert raised.value.key == "data.examples"


def test_rows_that_are_too_long_with_their_examples_go_and_the_manifest_shows_the_same_ones(splits: Splits) -> None:
    data = DataSpec(source="x", max_tokens=85, examples=2)
    rows = [row for split in splits.values() for row in split]
    lengths = {row.id: Length(30, 40 if int(row.id) % 5 == 0 else 20) for row in rows}
    found, left_out = fitting(splits, data, lengths)
    ids = {row.messages[0]["content"]: row.id for row in splits["train"]}
    for kept in found.values():
        for row in kept:
            assert 30 + sum(lengths[ids[question]].shown for question in shown(row)) <= 85
    assert {row.id for kept in found.values() for row in kept} == {row.id for row in rows} - left_out.keys()
    assert left_out
    assert set(left_out.values()) == {"longer than 85 tokens with its examples"}
    manifest = Manifest.from_bytes(make_manifest(found, {"gone": list(left_out)}, examples=2).to_bytes())
    assert manifest.rows_of(ReadRows(rows)) == found
    assert manifest.sha256 != make_manifest(found, {}).sha256, "other rows lie in another folder"


def test_a_split_without_a_row_left_is_reported(splits: Splits) -> None:
    data = DataSpec(source="x", max_tokens=100, examples=2)
    lengths = {row.id: Length(90, 20) for split in splits.values() for row in split}
    with pytest.raises(FieldError, match=r"no rows of the train split are left: with 2 examples .* 100"):
        fitting(splits, data, lengths)


def test_trials_and_predictions_see_the_examples(desk: Desk) -> None:
    seen: list[InspectionConfig] = []
    wanted = ("data.examples=2", "data.max_tokens=20")
    study = desk.open(*wanted, start=plays(inspecting(seen=seen)))
    assert [config.counts_shown for config in seen] == [True]
    rows = list(datasets.load_from_disk(str(study.train_rows)))
    assert {len(row["examples"]) for row in rows} == {4}
    desk.open(*wanted)  # from what is there
    asked: list[dict[str, Any]] = []

    def say(_: Any, row: dict[str, Any]) -> str:
        asked.append(row)
        return "so"

    folder = trained(desk, *wanted, name="shown")
    ask(folder, [], ["one?"], PredictionOptions(), desk.storage, plays(answering(say)), desk.tell)
    known = {row["messages"][0]["content"] for row in datasets.load_from_disk(str(folder.load()[2].train_rows))}
    assert len(asked[0]["examples"]) == 4
    assert {turn["content"] for turn in asked[0]["examples"] if turn["role"] == "user"} <= known


def test_what_show_prints_has_the_examples_in_it(desk: Desk) -> None:
    seen: list[InspectionConfig] = []
    start = plays(inspecting(seen=seen), inspecting(seen=seen))
    file = desk.file("data.examples=2", "data.max_tokens=20")
    prepared = prepare_study(file, desk.storage, start, desk.tell, num_examples=3)
    assert [(config.num_examples, config.counts_shown) for config in seen] == [(3, True), (3, True)]
    assert all(len(row.examples) == 4 for rows in prepared.splits.values() for row in rows)
    assert prepared.manifest.examples == 2


def test_a_study_without_examples_has_none_in_its_rows(desk: Desk) -> None:
    study = desk.open(start=plays(inspecting()))
    assert "examples" not in datasets.load_from_disk(str(study.train_rows)).column_names


def test_a_held_out_row_that_is_too_long_with_its_examples_is_reported(desk: Desk) -> None:
    desk.open("data.held_out=held.json", start=plays(inspecting()))
    (held, _), *_ = json.loads((desk.folder / "held.json").read_text())["rows"]
    wanted = ("study=other", "data.held_out=held.json", "data.examples=2", "data.max_tokens=15")
    counts = [8 if str(number) == held else 5 for number in range(20)]
    with pytest.raises(StudyFileErrors, match=rf"data\.held_out: row '{held}' .* is longer than 15 tokens with its"):
        desk.open(*wanted, start=plays(inspecting(num_tokens=counts)))


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        (CLASSIFY, "image: i, label: kind", "task vlm-classify looks at images, which they don't have"),
        (TEXT, "text: t", "task text-sft has none to show for text rows"),
    ],
)
def test_examples_need_questions_and_answers_in_words(tmp_path: Path, text: str, columns: str, words: str) -> None:
    was = "question: q, answer: a" if text is TEXT else "image: i, label: kind"
    study = text.replace(f"columns: {{{was}}}", f"examples: 2\n  columns: {{{columns}}}")
    ((key, line, message),) = mistakes(tmp_path, study)
    assert (key, line) == ("data.examples", 6)
    assert words in message


def test_desk_needs_no_trainer_twice(desk: Desk) -> None:
    wanted = ("data.examples=1",)
    desk.open(*wanted, start=plays(inspecting()))
    desk.open(*wanted, start=nobody)
