"""Asking a final run: questions about texts and images, base and tuned model, and the command itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hpsearch.cli import main
from hpsearch.errors import InputError
from hpsearch.folders import JobFolder
from hpsearch.jobs import EvaluationConfig, Variant
from hpsearch.results.final import RunFolder
from hpsearch.results.predict import Prediction, PredictionOptions, ask
from tests.unit.answer_fixtures import CLASSES, SEEN, answering, draw_rows, echo, trained, write_jsonl
from tests.unit.opening_fixtures import Desk
from tests.unit.worker_fixtures import nobody, plays

CHAT = ("data.columns={messages: m}",)
RAW = ("data.columns={prompt: p, completion: c}",)


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    return trained(desk, "evaluation.prompts.static=You know numbers.")


@pytest.fixture
def seeing(desk: Desk) -> RunFolder:
    """A run that answers questions about images."""
    draw_rows(desk)
    return trained(desk, *SEEN, name="seeing")


def asked(
    desk: Desk, folder: RunFolder, *questions: str, image: Path | None = None, say: Any = echo, **options: Any
) -> list[Prediction]:
    start = plays(answering(say))
    return ask(
        folder, [image] if image else [], questions, PredictionOptions(**options), desk.storage, start, desk.tell
    )


def job_of(folder: RunFolder) -> EvaluationConfig:
    (place,) = folder.predictions.iterdir()
    config = JobFolder(place / "answers").job()
    assert isinstance(config, EvaluationConfig)
    return config


def test_a_question_is_answered_by_the_tuned_model(desk: Desk, folder: RunFolder) -> None:
    assert asked(desk, folder, "how many?") == [Prediction("how many?", "tuned: how many?", None, False)]
    config = job_of(folder)
    assert (config.adapter, config.has_references, config.variants) == (folder.adapter, False, [Variant(model="tuned")])
    assert (config.batch_size, config.answers.max_new_tokens) == ("auto", 32)


def test_several_questions_the_base_model_and_a_prompt(desk: Desk, folder: RunFolder) -> None:
    answers = asked(desk, folder, "one?", "two?", with_base=True, prompt="static", max_new_tokens=50, batch_size=2)
    assert [(one.question, one.answer, one.base) for one in answers] == [
        ("one?", "tuned-static: one?", "base-static: one?"),
        ("two?", "tuned-static: two?", "base-static: two?"),
    ]
    config = job_of(folder)
    assert (config.batch_size, config.answers.max_new_tokens) == (2, 50)
    assert config.prompts.static == "You know numbers."


def test_a_cut_answer_is_reported(desk: Desk, folder: RunFolder) -> None:
    assert [one.is_cut for one in asked(desk, folder, "?" * 40, "?")] == [True, False]


def test_the_same_question_is_not_asked_twice(desk: Desk, folder: RunFolder) -> None:
    first = asked(desk, folder, "one?")
    assert ask(folder, [], ["one?"], PredictionOptions(), desk.storage, nobody, desk.tell) == first
    assert asked(desk, folder, "one?", max_new_tokens=7, say=lambda *_: "new") != first


def test_chats_and_raw_prompts_are_asked_as_they_were_learned(desk: Desk) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    desk.write_rows([{"m": chat + [{**turn, "content": str(i)} for turn in chat]} for i in range(20)])  # type: ignore[dict-item]
    assert asked(desk, trained(desk, *CHAT), "hello?")[0].answer == "tuned: hello?"
    desk.write_rows([{"p": f" {i}", "c": "x"} for i in range(20)])
    assert asked(desk, trained(desk, *RAW, name="raw"), " as it is ")[0].answer == "tuned:  as it is "


def test_an_image_goes_with_every_question(desk: Desk, seeing: RunFolder) -> None:
    answers = asked(desk, seeing, "one?", "two?", image=desk.folder / "images" / "3.png")
    assert [one.answer for one in answers] == ["tuned: one? 3.png", "tuned: two? 3.png"]


@pytest.fixture
def mixed(desk: Desk) -> RunFolder:
    """A run that learned from rows with two images, one and none."""
    draw_rows(desk)
    names = [[f"images/{i}.png", "images/0.png"][: i % 3] for i in range(20)]
    desk.write_rows([{"i": names[i], "q": f"Is {i} dark?", "a": "yes"} for i in range(20)])  # type: ignore[dict-item]
    return trained(desk, "task=vlm-sft", "data.columns={image: i, question: q, answer: a}", name="mixed")


def test_several_images_go_with_a_question_or_none(desk: Desk, mixed: RunFolder) -> None:
    images = [desk.folder / "images" / f"{number}.png" for number in (3, 1)]
    start = plays(answering(echo))
    for given, question, wanted in [
        (images, "Is <image> like <image>?", "tuned: Is <image> like <image>? 3.png 1.png"),
        ([], "What is red?", "tuned: What is red?"),
    ]:
        (said,) = ask(mixed, given, [question], PredictionOptions(), desk.storage, start, desk.tell)
        assert said.answer == wanted
    with pytest.raises(InputError, match=r"3\.png.*1\.png: more images than placeholders"):
        ask(mixed, images, ["Is <image> red?"], PredictionOptions(), desk.storage, nobody, desk.tell)
    with pytest.raises(InputError, match="--question: image placeholder without an image"):
        ask(mixed, [], ["Is <image> red?"], PredictionOptions(), desk.storage, nobody, desk.tell)


def test_a_classifier_needs_no_question(desk: Desk) -> None:
    draw_rows(desk)
    folder = trained(desk, *CLASSES)
    image = desk.folder / "images" / "3.png"
    assert asked(desk, folder, image=image)[0].answer == "tuned: Which animal? 3.png"
    assert job_of(folder).answers.classes == ["cat", "dog"]
    with pytest.raises(InputError, match="takes one image"):
        ask(folder, [image, image], [], PredictionOptions(), desk.storage, nobody, desk.tell)
    with pytest.raises(InputError, match=r"--question: this run always asks 'Which animal\?'"):
        asked(desk, folder, "A cat?", image=image)


def test_what_can_not_be_asked_is_reported(desk: Desk, folder: RunFolder, seeing: RunFolder) -> None:
    broken = desk.folder / "broken.png"
    broken.write_text("no image")
    for run, questions, image, words in [
        (folder, (), None, "--question is missing"),
        (folder, (" ",), None, "--question: empty question"),
        (folder, ("?",), broken, "--image: task text-sft takes no images"),
        (seeing, ("?",), None, "--image is missing: every training row of this run has one"),
        (
            seeing,
            ("?",),
            Path("https://example.org/x.png"),
            "https://example.org/x.png is a URL; download the image first",
        ),
        (seeing, ("?",), desk.folder / "gone.png", "gone.png: image file is missing"),
        (seeing, ("?",), broken, "broken.png: image can't be decoded"),
    ]:
        with pytest.raises(InputError, match=words):
            ask(run, [image] if image else [], questions, PredictionOptions(), desk.storage, nobody, desk.tell)
    with pytest.raises(InputError, match="the study has no adaptive prompt"):
        asked(desk, folder, "?", prompt="adaptive")
    with pytest.raises(InputError, match=r"is not a run folder: it has no config\.json"):
        asked(desk, RunFolder(desk.folder), "?")


@pytest.fixture
def hpsearch(desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """The command with a trainer that echoes: exit code, stdout and stderr."""
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("HPSEARCH_STORAGE", str(desk.storage.path))
    monkeypatch.setattr("hpsearch.bridge.trainer_process.TrainerProcess", lambda *_: plays(answering(echo))())

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpsearch", "predict", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        return exited.value.code, *capfd.readouterr()

    return run


def test_a_single_answer_stands_alone_for_scripts(hpsearch: Any, folder: RunFolder) -> None:
    code, said, _ = hpsearch(str(folder.path), "--question", "one?")
    assert (code, said) == (0, "tuned: one?\n")


def test_an_empty_answer_is_said_to_be_empty(hpsearch: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = plays(answering(lambda *_: ""))
    monkeypatch.setattr("hpsearch.bridge.trainer_process.TrainerProcess", lambda *_: silent())
    _, said, complained = hpsearch(str(folder.path), "--question", "silent?")
    assert said == "\n", "for scripts nothing else"
    assert complained.endswith("the answer is empty\n")
    _, said, _ = hpsearch(str(folder.path), "--question", "silent?", "--question", "and now?", "--base")
    assert said == "".join(f"{one}\n  tuned: (empty)\n  base:  (empty)\n" for one in ("silent?", "and now?"))


def test_more_answers_stand_below_their_questions(hpsearch: Any, folder: RunFolder) -> None:
    _, said, complained = hpsearch(str(folder.path), "--question", "one?", "--question", "?" * 40, "--base")
    assert said.startswith("one?\n  tuned: tuned: one?\n  base:  base: one?\n??")
    assert "an answer was cut off; raise the generation limit with --max-new-tokens" in complained


def test_a_file_is_reported_in_numbers(hpsearch: Any, folder: RunFolder) -> None:
    write_jsonl(Path("in.jsonl"), [{"q": "?" * 40}, {"q": ""}, *[{"q": None}] * 6])
    code, said, _ = hpsearch(str(folder.path), "--input", "in.jsonl", "--output", "out.jsonl")
    assert code == 0
    assert said.splitlines() == [
        "out.jsonl: 1 answers",
        "1 were cut off; raise the generation limit with --max-new-tokens",
        "failed with an error: 7 × empty question (line 2, 3, 4, 5, 6 …)",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "in.jsonl"], "--input and --output go together"),
        (["--output", "out.jsonl"], "--input and --output go together"),
        (["--input", "a", "--output", "b", "--question", "?"], "leave --image and --question out"),
        (["--prompt", "best"], "'none', 'static', 'adaptive'"),
        (["--question", "?", "--batch-size", "0"], "must be at least 1"),
    ],
)
def test_options_that_do_not_go_together(hpsearch: Any, folder: RunFolder, arguments: list[str], words: str) -> None:
    code, said, complained = hpsearch(str(folder.path), *arguments)
    assert (code, said) == (2, "")
    assert words in complained
