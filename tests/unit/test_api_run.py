"""`hpsearch.load_run`: what a notebook asks a final run, and which trainers that starts and ends."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import hpsearch
from hpsearch.api.frames import HISTORY, RUN_CURVES, SCORES
from hpsearch.api.values import plain
from hpsearch.bridge.protocol import Event
from hpsearch.errors import HpsearchError, InputError, TrainerDied
from hpsearch.results.final import RunFolder
from tests.unit.answer_fixtures import SEEN, answering, draw_rows, echo, trained
from tests.unit.opening_fixtures import Desk
from tests.unit.picture_fixtures import evaluation
from tests.unit.worker_fixtures import ScriptedTrainer, Starter, plays


@pytest.fixture
def trainers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Starter:
    """Those that were started; each echoes what it is asked."""
    monkeypatch.chdir(desk.folder)
    started = plays(answering(echo))
    monkeypatch.setattr("hpsearch.bridge.trainer_process.TrainerProcess", lambda *_: started())
    return started


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    return trained(desk, "evaluation.prompts.static=You know numbers.")


@pytest.fixture
def run(desk: Desk, folder: RunFolder, trainers: Starter) -> Iterator[hpsearch.Run]:  # noqa: ARG001
    with hpsearch.load_run("demo", storage=desk.storage.path) as run:
        yield run


def test_one_trainer_answers_until_the_run_is_closed(run: hpsearch.Run, trainers: Starter) -> None:
    assert trainers.trainers == []
    assert run.predict("one?") == "tuned: one?"
    assert run.predict(["two?", "three?"]) == ["tuned: two?", "tuned: three?"]
    assert run.predict("one?", prompt="static", max_new_tokens=50) == "tuned-static: one?"
    assert run.predict([]) == []
    assert [trainer.ended for trainer in trainers.trainers] == [False]
    run.close()
    assert [trainer.ended for trainer in trainers.trainers] == [True]
    assert run.predict("one more?") == "tuned: one more?"
    assert len(trainers.trainers) == 2


def test_a_run_that_nobody_has_any_more_ends_its_trainer(desk: Desk, folder: RunFolder, trainers: Starter) -> None:
    run = hpsearch.load_run(folder.path, storage=desk.storage.path)
    run.predict("one?")
    del run
    gc.collect()
    assert [trainer.ended for trainer in trainers.trainers] == [True]


@pytest.mark.parametrize("what", [KeyboardInterrupt, TrainerDied("the trainer process ended with signal 9")])
def test_after_an_interruption_another_trainer_answers(
    run: hpsearch.Run, trainers: Starter, monkeypatch: pytest.MonkeyPatch, what: BaseException
) -> None:
    """The kernel is interrupted, or the trainer dies: nobody knows what that trainer does now."""
    with monkeypatch.context() as patch:
        patch.setattr(ScriptedTrainer, "next_event", raising(what))
        with pytest.raises(type(what) if isinstance(what, Exception) else what):  # type: ignore[arg-type]
            run.predict("one?")
    assert [trainer.ended for trainer in trainers.trainers] == [True]
    assert run.predict("one?") == "tuned: one?"


def raising(what: BaseException) -> Any:
    def next_event(*_: Any) -> Event | None:
        raise what

    return next_event


def test_a_mistake_costs_no_trainer(run: hpsearch.Run, trainers: Starter) -> None:
    run.predict("one?")
    with pytest.raises(InputError, match=r"^question is missing"):
        run.predict()
    with pytest.raises(InputError, match=r"^image: task text-sft takes no images"):
        run.predict("one?", "x.png")
    with pytest.raises(InputError, match=r"^image: expected a path or a PIL image, found int"):
        run.predict("one?", 3)  # type: ignore[call-overload]
    assert [trainer.ended for trainer in trainers.trainers] == [False]


def test_an_answer_that_was_cut_is_reported(run: hpsearch.Run) -> None:
    with pytest.warns(UserWarning, match="was cut at the generation limit: max_new_tokens raises it"):
        run.predict("?" * 40)
    with warnings.catch_warnings(action="error"):
        run.predict("?")


def test_rows_are_answered_as_a_frame(run: hpsearch.Run) -> None:
    rows = pd.DataFrame({"q": ["one?", None, "two?"], "n": [1, 2, 3]}, index=[7, 8, 9])
    said = run.predict_rows(rows)
    assert list(said) == ["q", "n", "prediction", "error"]
    assert list(said.index) == [7, 8, 9]
    assert list(said.prediction[[7, 9]]) == ["tuned: one?", "tuned: two?"]
    assert (pd.isna(said.prediction[8]), said.error[8]) == (True, "empty question")
    assert list(run.predict_rows([{"q": "one?"}]).prediction) == ["tuned: one?"]
    with pytest.raises(InputError, match="rows: no row has a column 'q'"):
        run.predict_rows([{"question": "one?"}])
    with pytest.raises(InputError, match="rows: no row can be answered: 1 × empty question"):
        run.predict_rows([{"q": " "}])


def test_questions_may_be_a_column_and_there_may_be_no_rows(run: hpsearch.Run) -> None:
    rows = pd.DataFrame({"q": ["one?", "two?"]})
    assert run.predict(rows.q) == ["tuned: one?", "tuned: two?"]
    said = run.predict_rows(rows.head(0))
    assert (list(said), len(said)) == (["q", "prediction", "error"], 0)


def test_cells_are_as_in_a_file(desk: Desk) -> None:
    cells = [np.array(["a", "b"], dtype=object), pd.NA, pd.NaT, np.float64("nan"), np.int64(3), [np.nan, "c"], "d"]
    assert plain(cells, desk.storage) == [["a", "b"], None, None, None, 3, [None, "c"], "d"]


@pytest.fixture
def seeing(desk: Desk, trainers: Starter) -> Iterator[hpsearch.Run]:  # noqa: ARG001
    draw_rows(desk)
    trained(desk, *SEEN, name="seeing")
    with hpsearch.load_run("seeing", storage=desk.storage.path) as run:
        yield run


@pytest.mark.filterwarnings("ignore:an answer was cut")  # the name of a picture's file is long
def test_images_are_paths_or_pictures_in_memory(seeing: hpsearch.Run, desk: Desk) -> None:
    file = desk.folder / "images" / "3.png"
    for path in (file, str(file), [file]):
        assert seeing.predict("dark?", path) == "tuned: dark? 3.png"
    grey = seeing.predict("dark?", Image.new("L", (28, 28), 100))
    cmyk = seeing.predict("dark?", Image.new("CMYK", (28, 28)))  # which PNG has not
    assert len({grey, cmyk, "tuned: dark? 3.png"}) == 3
    said = seeing.predict_rows([{"i": file, "q": "dark?"}, {"i": Image.new("L", (28, 28), 100), "q": "dark?"}])
    assert list(said.prediction) == ["tuned: dark? 3.png", grey]
    with pytest.raises(InputError, match=r"^image is missing: every training row"):
        seeing.predict("dark?")


@pytest.mark.filterwarnings("ignore:an answer was cut")
def test_a_picture_is_seen_upright(seeing: hpsearch.Run, desk: Desk) -> None:
    """As its file would be: EXIF says how it was held."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("RGB", (4, 2), "red")
    lying.save(desk.folder / "lying.jpg", exif=exif)
    with Image.open(desk.folder / "lying.jpg") as picture:
        name = seeing.predict("up?", picture).rpartition(" ")[2]
    (kept,) = desk.storage.path.rglob(name)
    with Image.open(kept) as picture:
        assert picture.size == (2, 4)


def test_what_a_run_learned_and_what_it_is_worth(run: hpsearch.Run, folder: RunFolder) -> None:
    assert list(run.history) == list(HISTORY)
    assert list(run.curves) == list(RUN_CURVES)
    assert list(run.curves.loss) == [0.7]
    assert (run.spec.study, run.adapter) == ("demo", folder.adapter)
    with pytest.raises(InputError, match="hpsearch evaluate"):
        _ = run.scores
    assert "accuracy, test" not in run._repr_html_()
    folder.scores.mkdir()
    (folder.scores / "scores.json").write_text(evaluation().model_dump_json())
    scores = run.scores.set_index(["variant", "metric"])
    assert [*scores.index.names, *scores] == list(SCORES)
    assert scores.value["tuned", "accuracy"] == evaluation().tuned.scores["accuracy"].value
    assert "accuracy, test" in run._repr_html_()
    assert repr(run) == f"Run('{folder.path}')"


def test_what_is_no_run_is_reported(desk: Desk, folder: RunFolder, trainers: Starter) -> None:
    del folder, trainers
    with pytest.raises(InputError, match="did you mean 'demo'"):
        hpsearch.load_run("dem", storage=desk.storage.path)
    with pytest.raises(HpsearchError, match=r"it has no config\.json"):
        hpsearch.load_run(desk.folder)


def test_a_cell_shows_the_sentence_and_the_persons_own_lines() -> None:
    code = "import hpsearch\nhpsearch.open_study('demo', store='sqlite:////nowhere/at/all.db')"
    with pytest.raises(InputError) as raised:
        exec(compile(code, "<cell>", "exec"), {})
    lines = raised.value._render_traceback_()
    assert lines[-1] == f"NoStoreYet: {raised.value}"
    assert any('File "<cell>", line 2' in line for line in lines)
    assert not any("open_study(study" in line or "hpsearch/api" in line for line in lines)
