"""What a trainer finds out about rows and bases before a study is created, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpsearch.bridge.protocol import Done, Event, Phase
from hpsearch.errors import HpsearchError, InputError, StudyFileErrors, TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.jobs import InspectionConfig, JobFailure
from hpsearch.study.open import OpenStudy
from hpsearch.study.prepare import prepare_study
from tests.unit.opening_fixtures import NUM_ROWS, Desk, inspecting
from tests.unit.worker_fixtures import ScriptedTrainer, plays


def test_the_trainer_inspects_every_base_and_every_row(desk: Desk) -> None:
    seen: list[InspectionConfig] = []
    override = "search.space.model.base=[tiny:qwen2, tiny:gemma3]"
    desk.open(override, "data.system_prompt=Be brief.", start=plays(inspecting(seen=seen)))
    assert [model.base for model in seen[0].models] == ["tiny:qwen2", "tiny:gemma3"]
    assert seen[0].rows.system_prompt == "Be brief."
    assert f"counting tokens {NUM_ROWS}/{NUM_ROWS}" in desk.told


def test_rows_that_are_too_long_are_left_out_and_counted(desk: Desk) -> None:
    study = desk.open(start=plays(inspecting(num_tokens=[11 if i in (3, 7) else 10 for i in range(NUM_ROWS)])))
    assert study.manifest.left_out == {"longer than 10 tokens": ["3", "7"]}
    kept = [row_id for rows in study.manifest.splits.values() for row_id, _ in rows]
    assert sorted(kept, key=int) == [str(i) for i in range(NUM_ROWS) if i not in (3, 7)]


def test_rows_that_are_all_too_long_are_a_mistake(desk: Desk) -> None:
    key, line, words = desk.refusal(start=plays(inspecting(num_tokens=[11] * NUM_ROWS)))
    assert (key, line, words) == ("data.max_tokens", 10, "no rows are left: 20 × longer than 10 tokens")


def test_an_unknown_target_module_is_reported_with_the_known_ones(desk: Desk) -> None:
    key, line, words = desk.refusal("lora.target_modules=[q_prj]", start=plays(inspecting()))
    assert (key, line) == ("lora.target_modules", None), "an override has no line"
    assert "did you mean 'q_proj'?" in words
    assert "q_proj, v_proj, up_proj" in words


def test_an_unknown_target_module_in_the_space_is_reported_with_its_knob(desk: Desk) -> None:
    override = "search.space.lora.target_modules=[[q_proj, v_proj], [q_proj, xyz]]"
    key, line, words = desk.refusal(override, start=plays(inspecting()))
    assert (key, line) == ("search.space.lora.target_modules", None)
    assert words.startswith("tiny:qwen2 has no linear layer 'xyz'; known: q_proj, v_proj, up_proj")


def test_a_mistake_that_the_trainer_finds_is_reported_with_its_line(desk: Desk) -> None:
    mistake = ("model.base", "there is no such base")
    assert desk.refusal(start=plays(inspecting(mistake=mistake))) == ("model.base", 4, "there is no such base")


def test_a_hub_that_can_not_be_reached_is_no_mistake_of_the_file(desk: Desk) -> None:
    with pytest.raises(HpsearchError, match=r"^the hub can't be reached$") as raised:
        desk.open(start=plays(inspecting(unreachable="the hub can't be reached")))
    assert not isinstance(raised.value, InputError)


def test_a_missing_column_is_reported_before_a_trainer_starts(desk: Desk) -> None:
    start = plays(inspecting())
    key, line, words = desk.refusal("data.columns.answer=b", start=start)
    assert (key, line, words) == ("data.columns.answer", None, "the data has no column 'b'; it has: q, a")
    assert start.trainers == []


def test_all_missing_columns_are_reported_at_once(desk: Desk) -> None:
    wrong = ["data.columns={answer: b, group: patient}", "data.prompt='{q} {scn}'"]
    with pytest.raises(StudyFileErrors) as raised:
        desk.open(*wrong, start=plays())
    found = {mistake.key for mistake in raised.value.mistakes}
    assert found == {"data.columns.answer", "data.columns.group", "data.prompt"}
    assert "3 mistakes" in str(raised.value)


def test_an_inspection_that_fails_says_why_and_where_to_look(desk: Desk) -> None:
    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        folder.write_result(JobFailure(reason="RuntimeError: no kernel image", traceback="Traceback …"))
        yield Done(clean=False)

    start = plays(play)
    with pytest.raises(HpsearchError, match="RuntimeError: no kernel image") as raised:
        desk.open(start=start)
    (folder,) = (desk.storage.path / "inspections").iterdir()
    assert f"details are in {folder / 'log.txt'} and {folder / 'result.json'}" in str(raised.value)
    assert not (folder / "candidates").exists()
    assert raised.value.exit_code == 1
    assert start.trainers[0].ended


def test_a_trainer_that_dies_in_an_inspection_leaves_no_study(desk: Desk) -> None:
    def play(*_: object) -> Iterator[Event | None]:
        yield Phase(name="counting tokens")

    start = plays(play)
    with pytest.raises(TrainerDied):
        desk.open(start=start)
    assert start.trainers[0].ended
    assert desk.store.studies.all() == []
    assert desk.open(start=plays(inspecting())).study_id


def test_what_a_study_shows_needs_no_store(desk: Desk) -> None:
    seen: list[InspectionConfig] = []
    file = desk.file()
    prepared = prepare_study(file, desk.storage, plays(inspecting(seen=seen)), desk.tell, num_examples=50)
    assert seen[0].num_examples == NUM_ROWS
    assert sum(len(rows) for rows in prepared.splits.values()) == NUM_ROWS
    assert prepared.files == [desk.folder / "rows.jsonl"]


def test_two_workers_may_create_a_study_at_once(desk: Desk) -> None:
    faster: list[OpenStudy] = []

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        faster.append(desk.open(start=plays(inspecting())))
        yield from inspecting()(trainer, folder)

    slower = desk.open(start=plays(play))
    assert (slower.study_id, slower.manifest) == (faster[0].study_id, faster[0].manifest)
