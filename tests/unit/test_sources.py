"""Sources: everything that `data.source` may name becomes one table, and what can't be opened gives a clear error."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from hpsearch.data.bundled import BUNDLED
from hpsearch.data.source import Source, local_source, open_source
from hpsearch.errors import FieldError
from hpsearch.spec.data import DataSpec

pytestmark = pytest.mark.usefixtures("own_cache")

ROWS = [
    {"question": 'Say "a, b"', "answer": "línea\nnueva"},
    {"question": "And then?", "answer": "NA"},
    {"question": "Nothing?", "answer": ""},
]


def write_json(file: Path) -> None:
    file.write_text(json.dumps(ROWS))


def write_json_lines(file: Path) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_csv(file: Path) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["question", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(file: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)


WRITERS = {".json": write_json, ".jsonl": write_json_lines, ".csv": write_csv, ".parquet": write_parquet}


def opened(folder: Path, source: str, **data: Any) -> Source:
    return open_source(DataSpec(source=source, **data), folder)


def refusal(folder: Path, source: str) -> str:
    with pytest.raises(FieldError) as raised:
        opened(folder, source)
    assert raised.value.key == "data.source"
    return raised.value.message


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"rows{suffix}")
    source = opened(tmp_path, f"rows{suffix}")
    assert list(source.rows) == ROWS
    assert source.files == [tmp_path / f"rows{suffix}"]


def test_images_lie_beside_the_file_unless_the_study_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_json_lines(tmp_path / "data" / "rows.jsonl")
    assert opened(tmp_path, "data/rows.jsonl").images == tmp_path / "data"
    assert opened(tmp_path, "data/rows.jsonl", images="pictures").images == tmp_path / "pictures"


def test_an_absolute_path_needs_no_folder(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "rows.jsonl")
    assert len(opened(Path("/nowhere"), str(tmp_path / "rows.jsonl")).rows) == 3


def test_a_saved_data_set_is_read_with_the_files_behind_it(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    source = opened(tmp_path, "saved")
    assert list(source.rows) == ROWS
    assert source.images == tmp_path
    assert sorted(source.files) == sorted((tmp_path / "saved").glob("*.arrow"))
    assert len(source.files) == 2


def test_saved_splits_become_one_table_with_a_split_column(tmp_path: Path) -> None:
    saved = DatasetDict({"train": Dataset.from_list(ROWS[:2]), "dev": Dataset.from_list(ROWS[2:])})
    saved.save_to_disk(tmp_path / "saved")
    source = opened(tmp_path, "saved")
    assert [(row["answer"], row["split"]) for row in source.rows] == [
        ("línea\nnueva", "train"),
        ("NA", "train"),
        ("", "dev"),
    ]
    assert len(source.files) == 2


def test_a_split_column_of_the_data_s_own_is_kept(tmp_path: Path) -> None:
    own = Dataset.from_list([{"question": "q", "answer": "a", "split": "mine"}])
    DatasetDict({"train": own}).save_to_disk(tmp_path / "saved")
    assert list(opened(tmp_path, "saved").rows["split"]) == ["mine"]


def test_the_bundled_digits_are_images_with_their_digit_as_answer(tmp_path: Path) -> None:
    source = opened(tmp_path, "sklearn:digits")
    assert len(source.rows) == 1797
    assert source.files == []
    first = source.rows[0]
    assert (first["question"], first["answer"]) == ("Which digit is written here?", "0")
    assert (first["image"].size, first["image"].mode) == ((8, 8), "RGB")
    assert first["image"].getextrema() == ((0, 239),) * 3  # 15 of 16 grey levels
    assert Counter(source.rows["answer"])["3"] == 183


def test_the_bundled_tumours_are_measurements_with_a_verdict(tmp_path: Path) -> None:
    source = opened(tmp_path, "sklearn:breast_cancer")
    assert Counter(source.rows["answer"]) == {"benign": 357, "malignant": 212}
    assert source.rows[0]["answer"] == "malignant"
    assert "radius 18, texture 10.4, perimeter 123," in source.rows[0]["question"]
    assert "mean" not in source.rows[0]["question"]


def test_every_bundled_data_set_has_been_looked_at() -> None:
    assert set(BUNDLED) == {"digits", "breast_cancer"}


def test_a_hub_data_set_is_loaded_by_name_and_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
    for file in files.values():
        write_parquet(Path(file))
    builders = {("org/name", "small"): datasets.load_dataset_builder("parquet", data_files=files)}
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda path, name: builders[path, name])
    source = opened(tmp_path, "org/name", config="small")
    assert list(source.rows["split"]) == ["train"] * 3 + ["test"] * 3
    options = builders["org/name", "small"].config.fragment_scan_options
    assert not options.pre_buffer, "else Arrow buffers what is left of a file while its first rows are read"


def test_a_parquet_file_of_images_is_never_in_memory_at_once(tmp_path: Path) -> None:
    """24 MiB of them; counted are the bytes that Arrow allocates."""
    image, usual = {"bytes": b"i" * 2**17, "path": None}, pyarrow.default_memory_pool()
    features = datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")})
    table = pyarrow.table({"image": [image] * 192, "question": ["Q?"] * 192}, schema=features.arrow_schema)
    pyarrow.parquet.write_table(
        table, tmp_path / "rows.parquet", use_dictionary=False, compression="none", write_batch_size=8
    )
    counted = pyarrow.proxy_memory_pool(usual)
    pyarrow.set_memory_pool(counted)
    try:
        rows = opened(tmp_path, "rows.parquet").rows
        most = counted.max_memory()
    finally:
        pyarrow.set_memory_pool(usual)
    assert len(rows) == 192
    assert most < 12 * 2**20


def test_a_parquet_file_that_changes_is_read_again(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet")
    assert len(opened(tmp_path, "rows.parquet").rows) == 3
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[:1]), tmp_path / "rows.parquet")
    assert len(opened(tmp_path, "rows.parquet").rows) == 1
    write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:-9])
    refusal(tmp_path, "rows.parquet")
    assert not list((tmp_path / "cache" / "hpsearch").glob(".*")), "no draft stays"


def test_a_hub_out_of_reach_is_reported_in_one_line(tmp_path: Path) -> None:
    """tests/conftest.py keeps the hub offline."""
    message = refusal(tmp_path, "nobody/nothing")
    assert message.startswith("can't be read: ")
    assert "nobody/nothing" in message
    assert "\n" not in message


def test_only_the_first_line_of_a_library_s_lament_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        try:
            raise ValueError("gated: ask for access\nand forty more lines")
        except ValueError as cause:
            raise RuntimeError("An error occurred") from cause

    monkeypatch.setattr(datasets, "load_dataset_builder", fails)
    assert refusal(tmp_path, "org/name") == "can't be read: gated: ask for access"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("sklearn:digitz", "there is no 'sklearn:digitz'; did you mean 'digits'?"),
        ("sklearn:wine", "known: digits, breast_cancer"),
        ("rows.jsonl", "there is no file or folder {folder}/rows.jsonl"),
        ("./rows", "there is no file or folder {folder}/rows"),
        ("/no/such/folder", "there is no file or folder /no/such/folder"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, source: str, words: str) -> None:
    assert words.format(folder=tmp_path) in refusal(tmp_path, source)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.txt", b"hello", "rows.txt: expected one of .json, .jsonl, .csv, .parquet"),
        ("rows", b"hello", "rows: expected one of .json, .jsonl, .csv, .parquet"),
        ("rows.json", b"{\nnonsense", "rows.json, line 2: is no JSON: Expecting property name"),
        ("rows.jsonl", b'{"q": 1}\nworld\n', "rows.jsonl, line 2: is no JSON: Expecting value at column 1"),
        ("rows.jsonl", b'{"q": "wo\n', "rows.jsonl, line 1: is no JSON: Unterminated string starting at column 7"),
        ("rows.json", b"[1, 2]", 'rows.json: its rows are no objects; write each as {"question": "…", "answer": "…"}'),
        ("rows.json", b'[{"q": 1}, 2]', "rows.json: some of its rows are no objects; write each"),
        ("rows.json", b"\xef\xbb\xbf[1, 2]", "rows.json: its rows are no objects; write each"),
        ("rows.json", b'[{"q": 10000000000000000000000000}]', "can't be read: Value is too big"),
        ("rows.json", b'"text"', "rows.json: some of its rows are no objects; write each"),
        ("rows.csv", b"question,answer\nq,caf\xe9\n", "rows.csv, line 2: is no text in UTF-8; save the file as UTF-8"),
        ("rows.jsonl", b'{"q": "a"}\n{"q": "caf\xe9"}\n', "rows.jsonl, line 2: is no text in UTF-8; save the file as"),
        ("rows.jsonl", b'{"q": "a", "caf\xe9": 1}\n', "rows.jsonl, line 1: is no text in UTF-8; save the file as"),
        ("rows.json", b'[{"q": "a"},\n{"q": "caf\xe9"}]\n', "rows.json, line 2: is no text in UTF-8; save the file as"),
        ("rows.parquet", b"PAR? no", "rows.parquet can't be read as Parquet: "),
        ("rows.jsonl", b"", "rows.jsonl is empty"),
        ("rows.jsonl", b'"hello"\n', 'rows.jsonl, line 1: is no row; write each as {"question": "…", "answer": "…"}'),
        ("rows.csv", b"q,a\n1,2\n1,2,3\n", "rows.csv, line 3: has 3 values, and the header names 2; put values "),
        ("rows.csv", b"question,answer\n", "has no rows"),
        ("rows.csv", b"q;a\n1;2\n", "its values are separated by ';'; save it again as CSV with commas"),
    ],
)
def test_a_file_that_can_not_be_read_is_reported_in_one_line(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, name)
    assert words in message
    assert "\n" not in message


def test_a_column_of_several_may_have_a_semicolon_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q;x,a\n1,2\n")
    assert open_source(DataSpec(source="rows.csv"), tmp_path).rows.column_names == ["q;x", "a"]


def test_a_json_file_of_texts_is_read(tmp_path: Path) -> None:
    """Of values that are no objects `datasets` makes such a column, too."""
    (tmp_path / "rows.json").write_text('[{"text": "a"}, {"text": "b"}]')
    assert open_source(DataSpec(source="rows.json"), tmp_path).rows["text"][:] == ["a", "b"]


def test_the_nearest_file_of_rows_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("tickets.jsonl", "tickets.yaml", "study.yaml", "hpsearch-study.schema.json"):
        (folder / name).write_text("")
    assert refusal(tmp_path, "data/ticket.jsonl").endswith("/data/ticket.jsonl (did you mean 'data/tickets.jsonl'?)")
    assert refusal(tmp_path, "data/tickets.yml.json").endswith("/tickets.yml.json (did you mean 'data/tickets.jsonl'?)")
    assert refusal(tmp_path, "data/other.csv").endswith("/data/other.csv")
    assert refusal(tmp_path, "data/study.csv").endswith("/data/study.csv"), "a study file has no rows"
    assert refusal(tmp_path, "dat").startswith("there is no file or folder dat (did you mean 'data'?); from the hub it")
    assert refusal(tmp_path, "data").endswith("such as tickets.jsonl"), "and not hpsearch's own file"


def test_a_folder_that_holds_no_saved_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is a folder without a file of rows; if it holds images, write " in refusal(tmp_path, "folder")
    write_json_lines(tmp_path / "folder" / "rows.jsonl")
    assert refusal(tmp_path, "folder").endswith("is a folder; name the file of rows in it, such as rows.jsonl")


def test_for_a_file_that_will_stand_elsewhere_paths_become_absolute(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "rows.jsonl")
    data = local_source(DataSpec(source="rows.jsonl", images="pictures", max_tokens=77), tmp_path)
    assert (data.source, data.images) == (str(tmp_path / "rows.jsonl"), str(tmp_path / "pictures"))
    assert data.max_tokens == 77


@pytest.mark.parametrize("source", ["sklearn:digits", "org/name"])
def test_a_name_that_is_no_path_stays_as_it_is(tmp_path: Path, source: str) -> None:
    assert local_source(DataSpec(source=source), tmp_path) == DataSpec(source=source)


def test_a_saved_folder_with_broken_offsets_is_reported_and_kills_nobody(tmp_path: Path) -> None:
    """Arrow reads where a file's offsets point to: beyond the end of the file the process would be killed."""
    Dataset.from_dict({"question": ["a" * 64] * 50, "answer": ["b"] * 50}).save_to_disk(str(tmp_path / "saved"))
    (file,) = (tmp_path / "saved").glob("*.arrow")
    content = file.read_bytes()
    offsets = b"".join((64 * number).to_bytes(4, "little") for number in range(51))
    assert content.count(offsets) == 1
    file.write_bytes(content.replace(offsets, offsets[:-4] + (2**30).to_bytes(4, "little")))
    with pytest.raises(FieldError, match=r"data\.source: can't be read: .*[Oo]ffset"):
        open_source(DataSpec(source="saved"), tmp_path)
