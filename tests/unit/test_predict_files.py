"""Asking a final run all rows of a JSONL file: each comes out, none is asked twice, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.errors import HpsearchError, InputError, TrainerDied
from hpsearch.results.final import RunFolder
from hpsearch.results.predict import FilePrediction, PredictionOptions, predict_file
from tests.unit.answer_fixtures import (
    SEEN,
    answering,
    draw_rows,
    echo,
    failing,
    read_jsonl,
    trained,
    write_jsonl,
)
from tests.unit.opening_fixtures import Desk
from tests.unit.worker_fixtures import nobody, plays


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    return trained(desk)


@pytest.fixture
def seeing(desk: Desk) -> RunFolder:
    """A run that answers questions about images."""
    draw_rows(desk)
    return trained(desk, *SEEN)


def predicted(
    desk: Desk, folder: RunFolder, source: Path, output: Path, start: StartTrainer, force: bool = False, **options: Any
) -> FilePrediction:
    settings = PredictionOptions(**options)
    return predict_file(folder, source, output, settings, desk.storage, start, desk.tell, force=force)


ROWS = [
    {"i": "images/1.png", "q": "one?", "note": "ü", "a": "known"},
    {"i": "images/gone.png", "q": "two?"},
    {"i": "images/2.png", "q": "  "},
    {"i": "images/3.png", "q": "four?", "error": "an old one"},
    {"q": "five?"},
]


def test_a_file_comes_out_with_every_row(desk: Desk, seeing: RunFolder) -> None:
    source = write_jsonl(desk.folder / "in.jsonl", [*ROWS, "", "no json", "[1]"])
    output = desk.folder / "new" / "out.jsonl"
    done = predicted(desk, seeing, source, output, plays(answering(echo)), with_base=True)
    assert read_jsonl(output) == [
        ROWS[0] | {"prediction": "tuned: one? 1.png", "base_prediction": "base: one? 1.png"},
        ROWS[1] | {"error": "image file is missing"},
        ROWS[2] | {"error": "empty question"},
        {
            "i": "images/3.png",
            "q": "four?",
            "prediction": "tuned: four? 3.png",
            "base_prediction": "base: four? 3.png",
        },
        ROWS[4] | {"error": "no image"},
        {"line": "no json", "error": "no JSON object"},
        {"line": "[1]", "error": "no JSON object"},
    ]
    assert (done.num_answers, done.num_cut) == (2, 0)
    assert done.errors == {
        "image file is missing": [2],
        "empty question": [3],
        "no image": [5],
        "no JSON object": [7, 8],
    }


def test_a_row_whose_image_is_an_address_is_told_apart_from_one_without_its_file(desk: Desk, seeing: RunFolder) -> None:
    rows = [{"i": "images/3.png", "q": "one?"}, {"i": "https://x.org/1.png", "q": "two?"}, {"i": "gone.png", "q": "?"}]
    source = write_jsonl(desk.folder / "in.jsonl", rows)
    done = predicted(desk, seeing, source, desk.folder / "out.jsonl", plays(answering(echo)))
    assert done.errors == {"image is a URL, not a file": [2], "image file is missing": [3]}


def test_relative_images_count_from_the_files_folder(
    desk: Desk, seeing: RunFolder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (9, 9)).save(elsewhere / "mine.png")
    source = write_jsonl(elsewhere / "in.jsonl", [{"i": "mine.png", "q": "?"}])
    predicted(desk, seeing, source, elsewhere / "out.jsonl", plays(answering(echo)))
    assert read_jsonl(elsewhere / "out.jsonl")[0]["prediction"] == "tuned: ? mine.png"


def test_an_interrupted_file_goes_on_where_it_stopped(desk: Desk, folder: RunFolder) -> None:
    source = write_jsonl(desk.folder / "in.jsonl", [{"q": f"{number}?"} for number in range(9)])
    output = desk.folder / "out.jsonl"
    before: list[tuple[str, str]] = []
    after: list[tuple[str, str]] = []
    with pytest.raises(TrainerDied):
        predicted(desk, folder, source, output, plays(answering(echo, asked=before, dies_after=4)))
    assert not output.exists()
    predicted(desk, folder, source, output, plays(answering(echo, asked=after)))
    assert (len(before), len(after)) == (4, 5)
    assert [row["prediction"] for row in read_jsonl(output)] == [f"tuned: {number}?" for number in range(9)]


def test_a_failed_job_says_why_and_is_done_again(desk: Desk, folder: RunFolder) -> None:
    source = write_jsonl(desk.folder / "in.jsonl", [{"q": "?"}])
    with pytest.raises(HpsearchError, match="OutOfMemoryError"):
        predicted(desk, folder, source, desk.folder / "out.jsonl", plays(failing))
    assert predicted(desk, folder, source, desk.folder / "out.jsonl", plays(answering(echo))).num_answers == 1


def test_only_the_same_call_writes_its_file_again(desk: Desk, folder: RunFolder) -> None:
    source = write_jsonl(desk.folder / "in.jsonl", [{"q": "?"}])
    output = desk.folder / "out.jsonl"
    predicted(desk, folder, source, output, plays(answering(echo)), with_base=True)
    written = output.read_text()
    predicted(desk, folder, source, output, nobody, with_base=True)
    assert output.read_text() == written
    with pytest.raises(InputError, match=r"out.jsonl: is there already; --force overwrites it"):
        predicted(desk, folder, source, output, nobody)
    assert output.read_text() == written, "without --base it would have lost a column"
    output.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        predicted(desk, folder, source, output, nobody, with_base=True)
    assert output.read_text() == "mine"
    predicted(desk, folder, source, output, nobody, with_base=True, force=True)
    assert output.read_text() == written


def test_other_rows_in_the_same_file_are_asked_again(desk: Desk, folder: RunFolder) -> None:
    source = write_jsonl(desk.folder / "in.jsonl", [{"q": "old?"}])
    predicted(desk, folder, source, desk.folder / "out.jsonl", plays(answering(echo)))
    write_jsonl(source, [{"q": "new?"}])
    predicted(desk, folder, source, desk.folder / "out.jsonl", plays(answering(echo)), force=True)
    assert read_jsonl(desk.folder / "out.jsonl")[0]["prediction"] == "tuned: new?"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no rows; each line must be a JSON object"),
        ("no json\n", "has no rows"),
        ('{"question": "?"}\n', "no row has a column 'q', which the study's data.columns.question names; there are: q"),
        ('{"q": ""}\n', r"no row can be answered: 1 × empty question \(line 1\)"),
    ],
)
def test_a_file_without_questions_is_refused(desk: Desk, folder: RunFolder, content: str, words: str) -> None:
    source = desk.folder / "in.jsonl"
    source.write_text(content)
    with pytest.raises(InputError, match=words):
        predicted(desk, folder, source, desk.folder / "out.jsonl", nobody)
    assert not (desk.folder / "out.jsonl").exists()


def test_files_that_can_not_be_read_or_written_are_reported(desk: Desk, folder: RunFolder) -> None:
    source = write_jsonl(desk.folder / "in.jsonl", [{"q": "?"}])
    with pytest.raises(InputError, match=r"gone.jsonl: can't be read: No such file"):
        predicted(desk, folder, desk.folder / "gone.jsonl", desk.folder / "out.jsonl", nobody)
    with pytest.raises(InputError, match=r"in.jsonl: is the file to read from"):
        predicted(desk, folder, source, source, nobody, force=True)
    with pytest.raises(InputError, match=r"can't be written: (File exists|Not a directory)"):
        predicted(desk, folder, source, source / "out.jsonl", plays(answering(echo)))
    source.write_bytes(b'{"q": "\xff"}')
    with pytest.raises(InputError, match="is no text in UTF-8"):
        predicted(desk, folder, source, desk.folder / "out.jsonl", nobody)


def test_chats_of_a_file_may_end_with_the_answer_or_before_it(desk: Desk) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    desk.write_rows([{"m": [{**turn, "content": f"{turn['content']} {i}"} for turn in turns]} for i in range(20)])  # type: ignore[dict-item]
    source = write_jsonl(desk.folder / "in.jsonl", [{"m": turns}, {"m": turns[:1]}, {"m": []}, {"m": "hi"}])
    done = predicted(
        desk, trained(desk, "data.columns={messages: m}"), source, desk.folder / "out.jsonl", plays(answering(echo))
    )
    said = [row.get("prediction") for row in read_jsonl(desk.folder / "out.jsonl")]
    assert said == ["tuned: hi", "tuned: hi", None, None]
    assert done.errors == {"empty messages": [3, 4]}
