"""Prepared rows: only what is wanted is written, once, and only while the data is what the manifest says."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from PIL import Image

from hpsearch.data.manifest import Manifest, make_manifest
from hpsearch.data.prepared import DataFolder, ensure_prepared, read_data, write_prepared, write_rows
from hpsearch.data.rows import Row
from hpsearch.data.split import SplitName, Splits, split_rows
from hpsearch.errors import FieldError
from hpsearch.spec.data import DataSpec

MakeRow = Callable[..., Row]
WriteJsonl = Callable[[str, list[Any]], str]
COLUMNS = {"question": "q", "answer": "a", "id": "n"}
TRIAL: list[tuple[SplitName, float]] = [("train", 1.0), ("validation", 1.0)]


@dataclass
class Study:
    """A study's data on this machine: 40 rows in `rows.jsonl`, split 32, 4 and 4."""

    folder: Path
    data: DataSpec
    manifest: Manifest
    splits: Splits
    told: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def storage(self) -> DataFolder:
        return DataFolder(self.folder / "storage")

    def prepare(self, wanted: list[tuple[SplitName, float]] = TRIAL) -> dict[tuple[SplitName, float], Path]:
        """Forgets earlier messages."""
        self.told.clear()
        tell = lambda *words: self.told.append(words)  # noqa: E731
        return ensure_prepared(self.manifest, self.data, self.folder, self.storage, wanted, tell)

    def written(self) -> set[str]:
        """Names of the folders and files beside the prepared rows, hidden ones too."""
        return {path.name for path in self.storage.files(self.manifest).parent.iterdir()}


StartStudy = Callable[..., Study]


@pytest.fixture
def start(tmp_path: Path, write_jsonl: WriteJsonl, own_cache: Path) -> StartStudy:  # noqa: ARG001
    def start(**columns: str) -> Study:
        rows = [{"n": f"row-{i:02}", "q": f"Question {i:02}?", "a": f"Answer {i:02}.", "l": "l"} for i in range(40)]
        if "image" in columns:
            for i, row in enumerate(rows):
                Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:02}.png")
                row["i"] = f"{i:02}.png"
        data = DataSpec.model_validate({"source": write_jsonl("rows.jsonl", rows), "columns": COLUMNS | columns})
        read, _ = read_data(data, tmp_path, DataFolder(tmp_path / "storage"), lambda *_: None)
        splits = split_rows(read, data.split)
        return Study(tmp_path, data, make_manifest(splits, read.left_out), splits)

    return start


def loaded(path: Path) -> list[dict[str, Any]]:
    return list(load_from_disk(str(path)))


def edit(file: Path, old: str, new: str, *, keep_time: bool = False) -> None:
    before = file.stat()
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    if keep_time:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_prepared_row_has_its_id_its_messages_and_its_label(start: StartStudy) -> None:
    study = start(label="l")
    paths = study.prepare()
    expected = [{"id": row.id, "messages": row.messages, "label": "l"} for row in study.splits["validation"]]
    assert loaded(paths["validation", 1.0]) == expected
    assert [row["id"] for row in loaded(paths["train", 1.0])] == [row.id for row in study.splits["train"]]


def test_a_prepared_row_names_its_image(start: StartStudy) -> None:
    study = start(image="i")
    rows = loaded(study.prepare()["train", 1.0])
    assert [row["images"] for row in rows] == [[str(study.folder / f"{row['id'][-2:]}.png")] for row in rows]
    assert len(rows) == 32


def test_no_trace_of_a_test_row_lies_in_the_storage_folder_until_an_evaluation(start: StartStudy) -> None:
    study = start()
    study.prepare()
    files = [file for file in study.storage.path.parent.rglob("*") if file.is_file()]
    everything = b"".join(file.read_bytes() for file in files)
    for row in study.splits["train"] + study.splits["validation"]:
        assert row.id.encode() in everything
        assert row.messages[0]["content"].encode() in everything, "else the search below proves nothing"
    for row in study.splits["test"]:
        assert row.id.encode() not in everything
        assert row.messages[0]["content"].encode() not in everything
        assert row.messages[1]["content"].encode() not in everything
    assert study.written() == {"train", "validation", "files.json"}

    [path] = study.prepare([("test", 1.0)]).values()
    assert [row["id"] for row in loaded(path)] == [row.id for row in study.splits["test"]]


def test_what_is_prepared_is_not_read_again(start: StartStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source now holds garbage of the same size and time: a test that reads it fails."""
    study = start()
    paths = study.prepare()
    assert study.told, "the first time, rows are read"
    before = {file: file.stat().st_ino for path in paths.values() for file in path.iterdir()}
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "another cache")
    edit(study.source, '"', "#", keep_time=True)
    assert study.prepare() == paths
    assert study.told == []
    assert {file: file.stat().st_ino for path in paths.values() for file in path.iterdir()} == before
    study.source.touch()
    with pytest.raises(FieldError, match="is no JSON"):
        study.prepare()


def test_a_changed_source_is_noticed_and_the_row_named(start: StartStudy) -> None:
    study = start()
    study.prepare()
    edit(study.source, "Answer 07.", "Answer 7.")
    with pytest.raises(FieldError) as raised:
        study.prepare()
    assert raised.value.key == "data.source"
    assert "row 'row-07' (line 8) has changed." in raised.value.message


@pytest.mark.parametrize("keep_time", [True, False])
def test_a_changed_image_is_noticed_by_its_time_or_its_size(start: StartStudy, keep_time: bool) -> None:
    study = start(image="i")
    study.prepare()
    before = (study.folder / "07.png").stat()
    Image.effect_noise((8, 8), 90).save(study.folder / "07.png")
    if keep_time:
        os.utime(study.folder / "07.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (study.folder / "07.png").stat().st_size != before.st_size
    with pytest.raises(FieldError, match=r"row 'row-07' \(line 8\) has changed"):
        study.prepare()


def test_an_image_that_is_gone_is_noticed(start: StartStudy) -> None:
    study = start(image="i")
    study.prepare()
    (study.folder / "07.png").unlink()
    with pytest.raises(FieldError, match="row 'row-07' is gone"):
        study.prepare()


def test_a_source_that_is_gone_is_noticed(start: StartStudy) -> None:
    study = start()
    study.prepare()
    study.source.unlink()
    with pytest.raises(FieldError, match="there is no file or folder"):
        study.prepare()


def test_a_source_that_was_only_touched_is_read_once_more_and_then_trusted(start: StartStudy) -> None:
    study = start()
    paths = study.prepare()
    os.utime(study.source, ns=(1, 1))
    assert study.prepare() == paths
    assert study.told, "it had to be read to be sure"
    study.prepare()
    assert study.told == []


def test_where_the_record_of_files_is_lost_the_data_is_read_again(start: StartStudy) -> None:
    study = start()
    study.prepare()
    study.storage.files(study.manifest).unlink()
    study.prepare()
    assert study.told
    assert study.written() == {"train", "validation", "files.json"}


def test_only_what_is_missing_is_written(start: StartStudy) -> None:
    study = start()
    train = study.prepare()["train", 1.0]
    before = {file: file.stat().st_ino for file in train.iterdir()}
    paths = study.prepare([("train", 1.0), ("train", 0.25), ("test", 1.0)])
    assert study.written() == {"train", "validation", "train-0.25", "test", "files.json"}
    assert {file: file.stat().st_ino for file in train.iterdir()} == before
    assert [len(loaded(path)) for path in paths.values()] == [32, 8, 4]


def test_a_subset_has_a_folder_of_its_own(start: StartStudy) -> None:
    study = start()
    paths = study.prepare([("train", 0.5), ("train", 0.25), ("validation", 0.5)])
    assert study.written() == {"train-0.5", "train-0.25", "validation-0.5", "files.json"}
    assert [len(loaded(path)) for path in paths.values()] == [16, 8, 2]
    train = [row.id for row in study.splits["train"]]
    assert all(row["id"] in train for row in loaded(paths["train", 0.5]))


def test_other_splits_of_the_same_rows_lie_elsewhere(start: StartStudy) -> None:
    study = start()
    other = make_manifest(study.splits | {"train": study.splits["train"][::-1]}, {})
    assert study.storage.rows(other, "train") != study.storage.rows(study.manifest, "train")


def test_the_study_s_creation_leaves_nothing_to_prepare(start: StartStudy) -> None:
    study = start()
    write_prepared(study.manifest, study.splits, [study.source], study.storage, TRIAL)
    study.prepare()
    assert study.told == []


def test_of_two_writers_the_first_one_s_rows_stay_and_no_draft(row: MakeRow, tmp_path: Path) -> None:
    path = tmp_path / "rows" / "train"
    write_rows([row(1), row(2)], path)
    write_rows([row(3)], path)
    assert [row["id"] for row in loaded(path)] == ["1", "2"]
    assert [found.name for found in path.parent.iterdir()] == ["train"]


def test_a_writer_that_is_interrupted_leaves_no_rows(
    row: MakeRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Dataset.save_to_disk

    def half(table: Dataset, path: str) -> None:
        whole(table, path)
        (Path(path) / "state.json").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(Dataset, "save_to_disk", half)
    with pytest.raises(KeyboardInterrupt):
        write_rows([row(1)], tmp_path / "train")
    assert not (tmp_path / "train").exists()


def test_two_processes_may_write_the_same_rows_at_once(
    row: MakeRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the draft of one writer and its new name, another one comes and writes it all."""
    path, save = tmp_path / "train", Dataset.save_to_disk

    def save_and_be_overtaken(table: Dataset, draft: str) -> None:
        save(table, draft)
        monkeypatch.setattr(Dataset, "save_to_disk", save)
        write_rows([row(1)], path)

    monkeypatch.setattr(Dataset, "save_to_disk", save_and_be_overtaken)
    write_rows([row(2)], path)
    assert [found.name for found in tmp_path.iterdir()] == ["train"]
    assert [row["id"] for row in loaded(path)] == ["1"]


def test_damaged_rows_stay_until_their_successor_takes_their_place(
    start: StartStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, which found them whole, may be about to open them: there is no moment without a folder."""
    study = start()
    path = study.prepare()["train", 1.0]
    next(path.glob("*.arrow")).write_bytes(b"damaged")
    was_there, save = [], Dataset.save_to_disk

    def look_and_save(table: Dataset, draft: str) -> None:
        was_there.append(path.is_dir())
        save(table, draft)

    monkeypatch.setattr(Dataset, "save_to_disk", look_and_save)
    study.prepare()
    assert was_there == [True]
    assert len(loaded(path)) == 32
    assert study.written() == {"train", "validation", "files.json"}
