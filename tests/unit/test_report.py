"""The report: one file that needs no other, has the whole study, and shows texts from the data as texts."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from hpsearch.data.manifest import Manifest
from hpsearch.evaluation import Score, Units
from hpsearch.search.importance import Importance
from hpsearch.search.view import StudyView
from hpsearch.spec.tasks import SECTIONS
from hpsearch.watch.report import Asked, FinalRun, report_page, story
from tests.unit.picture_fixtures import evaluation, final_run, rows_of, timeline, without_base
from tests.unit.view_fixtures import with_spec
from tests.unit.worker_fixtures import MANIFEST

UNKIND = "<script>alert(1)</script> & {{ 7 * 7 }}"


class Page(HTMLParser):
    """A page's words, and what it would fetch."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, content: str) -> None:
        super().__init__()
        self.words = ""
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attributes)
        self.fetched += [value for name in ("src", "href", "xlink:href") if (value := given.get(name))]
        self.ids += [value for value in [given.get("id")] if value]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        if "style" not in self._open:
            self.words = f"{self.words} {' '.join(text.split())}".strip()


def page_of(view: StudyView, run: FinalRun | None = None, shares: dict[str, float] | None = None) -> Page:
    importances = [Importance("loss", 2, shares)] if shares else []
    return Page(report_page(Asked(view, importances, timeline(), run, "study: demo\n", 0.0)))


def told(manifest: Manifest, view: StudyView) -> StudyView:
    return replace(view, study=replace(view.study, manifest=manifest.to_bytes()))


@pytest.fixture(scope="module")
def search(view: StudyView) -> Page:
    """The report of a study with a trial of every kind and no final run."""
    return page_of(view, shares={"training.learning_rate": 0.75, "lora.r": 0.25})


def test_the_story_of_the_search_is_reported(search: Page) -> None:
    for words in (
        "6 trials searched training.learning_rate and lora.r for a QLoRA fine-tune of tiny:qwen2",
        "trials 6 of 8",
        "; 6 min 30 s in all.",
        "best validation loss 0.5000 trial 0",
        "The study is not finished: 6 of 8 trials are done.",
        "source rows.jsonl",
        "train 1 1 1 validation 1 1 1 test 1 none none",
        "No row was left out.",
        "sampler random",
        "training.learning_rate Peak learning rate. 1e-05 to 0.001, logarithmic 0.0002",
        "lora.r Rank of the adapter's matrices. one of 8, 16 16",
        "2 complete, 1 pruned, 1 diverged, 1 out of memory, 1 failed, 1 running",
        "complete trials they are only a hint",
        "Not run yet: hpsearch train best.yaml runs it",
    ):
        assert words in search.words
    assert search.tags.count("svg") == 5


def test_what_stayed_as_it_was_is_without_the_sections_of_other_tasks(search: Page) -> None:
    stayed = search.words.partition("lora.r Rank of the adapter's matrices")[2].partition("The trials")[0]
    assert "training.seed" in stayed
    assert not {"True", "False", "None"} & set(search.words.split()), "as the study file has them"
    assert [section for section in SECTIONS if f"{section}." in stayed] == []


def test_every_trial_stands_there_with_its_memory_and_its_ledger(search: Page) -> None:
    assert "★ 0 complete 0.5000 █▅▁ 0.0001 16 1 min 05 s 3 2.50 1.00 all" in search.words
    assert "5 complete 2.0000 █▁ 0.0006 16 1 min 05 s 2 3.00 1.00 all but a hook" in search.words


def test_why_a_trial_ended_early_is_said(search: Page) -> None:
    early = search.words.partition("Trials that ended early, and why")[2].partition("The best parameters")[0]
    assert "3 out of memory tried to allocate 9 GiB" in early
    assert "4 failed Bus error traceback Traceback …" in early
    assert "5 complete" not in early


def test_the_best_values_stand_beside_the_files_own(search: Page) -> None:
    best = search.words.partition("The best parameters")[2]
    assert best.startswith(" Trial 0, with the study file's own values beside it.")
    assert "training.learning_rate 0.0001 0.0002 lora.r 16 16" in best
    assert "study: demo" in best


@pytest.mark.usefixtures("undrawn")
def test_what_was_left_out_is_named_with_its_reason(view: StudyView) -> None:
    left_out = MANIFEST.model_copy(
        update={
            "left_out": {"longer than 1024 tokens": [str(number) for number in range(7)]},
            "labels": {"train": {"cat": 5, "dog": 9}, "validation": {"cat": 1}, "test": {"dog": 2}},
        }
    )
    words = page_of(told(left_out, view)).words
    assert "rows why which 7 longer than 1024 tokens rows 0, 1, 2, 3, 4 …" in words
    assert "label train validation test cat 5 1 0 dog 9 0 2" in words


def test_a_study_without_a_trial_has_a_report_too(view: StudyView) -> None:
    words = page_of(replace(view, trials=[], slots=replace(view.slots, finished=0))).words
    assert "No trial has reported anything yet." in words
    assert "Importance needs two complete trials with different results." in words
    assert "There is no best trial yet" in words


@pytest.fixture(scope="module")
def whole(view: StudyView, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of a study whose final run is evaluated."""
    folder = tmp_path_factory.mktemp("run")
    Image.new("RGB", (4, 2), "red").save(folder / "red.png")
    return page_of(view, final_run(folder, folder / "red.png"))


def test_the_final_run_and_its_evaluation_are_reported(whole: Page) -> None:
    for words in (
        "final validation loss 0.5000 report 2 of 4, whose adapter was kept",
        "accuracy on the test rows 90.0% 95 % interval 80.0% to 100.0%, resampled over 10 images; 10 rows that no",
        "Intervals are resampled over 10 images with all their rows, as rows of a group are not independent.",
        "In accuracy, tuned against base: better, +80.0 points (+50.0 to +100.0), p = 0.01.",
        "accuracy 60.0% 50.0 to 70.0 10.0% 0.0 to 20.0 30.0% 20.0 to 40.0 90.0% 80.0 to 100.0 100.0% 90.0 to 100.0",
        "Below each value: its 95 % interval, resampled over 10 images with all their rows, as rows of a group are not",
        "loss 1.2500 1.2500 1.2500 1.2500",
        "class test rows accuracy precision F1",  # nothing says how many train rows a class has
        "dog 4 75.0% 100.0% 85.7%",
    ):
        assert words in whole.words
    assert whole.tags.count("svg") == 8


@pytest.mark.usefixtures("undrawn")
def test_labels_say_how_many_train_rows_a_class_has(view: StudyView, tmp_path: Path) -> None:
    labelled = MANIFEST.model_copy(update={"labels": {"train": {"dog": 9}}})
    words = page_of(told(labelled, view), final_run(tmp_path)).words
    assert "class train rows test rows accuracy precision F1" in words
    assert "dog 9 4 75.0% 100.0% 85.7%" in words
    assert "cat 0 6 " in words


@pytest.mark.usefixtures("undrawn")
def test_metrics_with_the_same_numbers_are_one_row_of_the_report(view: StudyView, tmp_path: Path) -> None:
    run = replace(final_run(tmp_path), evaluation=evaluation(("accuracy", "macro_f1")))
    words = page_of(view, run).words
    assert "The same numbers as accuracy: macro f1." in words
    assert "macro f1 60.0%" not in words


@pytest.mark.usefixtures("undrawn")
def test_where_all_rows_score_the_same_the_report_has_no_interval(view: StudyView, tmp_path: Path) -> None:
    run = final_run(tmp_path)
    assert run.evaluation is not None
    perfect = {name: Score(value=1.0) for name in run.evaluation.tuned.scores}
    variants = [
        each.model_copy(update={"scores": perfect}) if each.name == "tuned" else each
        for each in run.evaluation.variants
    ]
    words = page_of(view, replace(run, evaluation=run.evaluation.model_copy(update={"variants": variants}))).words
    assert "accuracy on the test rows 100.0% no interval, as all 10 images score the same; 10 rows that no" in words
    above, _, evaluation = words.partition("Evaluation on the test rows")
    why = "Where each draw of 10 images gives the same number, no interval is shown"
    assert why in evaluation
    assert why not in above, "it would stand far from the table that it explains"
    few = {"variants": variants, "units": Units(name="images", num=3, effective=3)}
    words = page_of(view, replace(run, evaluation=run.evaluation.model_copy(update=few))).words
    assert "accuracy on the test rows 100.0% 10 rows that no" in words


@pytest.mark.usefixtures("undrawn")
def test_a_base_that_was_not_asked_is_said(view: StudyView, tmp_path: Path) -> None:
    run = final_run(tmp_path)
    for file in tmp_path.glob("base*.jsonl"):
        file.unlink()
    assert run.evaluation is not None
    words = page_of(view, replace(run, evaluation=without_base(run.evaluation))).words
    assert "10 test rows were answered by the tuned model. " in words
    assert "Most frequent answer: always the most frequent training answer to the same" in words
    assert "answer cat tuned cat row row 0" in words


@pytest.mark.usefixtures("undrawn")
def test_of_a_pair_both_answers_are_shown(view: StudyView, tmp_path: Path) -> None:
    run = final_run(tmp_path)
    rows = [json.loads(line) | {"rejected": "a <b>horse</b>"} for line in rows_of("tuned").splitlines()]
    (tmp_path / "tuned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "answer cat rejected a <b>horse</b> tuned cat base cow" in page_of(view, run).words


def test_answers_that_were_right_and_wrong_are_shown_with_their_images(whole: Page) -> None:
    answers = whole.words.partition("Answers Right")[2]
    right, _, wrong = answers.partition("Wrong")
    assert right.count("What is it?") == 6
    assert "answer cat tuned cat base cow row row 0, counted from 0" in right
    assert wrong.count("What is it?") == 1
    assert "answer dog tuned cat base dog row row 9" in wrong
    assert whole.tags.count("img") == 7
    assert all(url.startswith("data:image/png;base64,") for url in whole.fetched if not url.startswith("#"))


def test_what_scrolls_holds_no_sentences(whole: Page) -> None:
    """A sentence in a box that scrolls is cut at the edge of a telephone."""
    assert "caption" not in whole.tags
    assert "figure { overflow-x" not in (Path(story.__file__).parent / "report.css").read_text()


def test_the_page_needs_nothing_else(whole: Page, search: Page) -> None:
    for page in (whole, search):
        outside = [url for url in page.fetched if not url.startswith(("#", "data:"))]
        assert (outside, page.tags.count("script"), page.tags.count("link")) == ([], 0, 0)
        assert len(page.ids) == len(set(page.ids)) > 50
        inside = {url.removeprefix("#") for url in page.fetched if url.startswith("#")}
        assert inside <= set(page.ids)


@pytest.mark.usefixtures("undrawn")
def test_other_peoples_words_stay_words(view: StudyView, tmp_path: Path) -> None:
    trials = [replace(t, facts=t.facts | {"reason": UNKIND, "traceback": UNKIND}) for t in view.trials]
    manifest = MANIFEST.model_copy(update={"left_out": {UNKIND: [UNKIND]}, "labels": {"train": {UNKIND: 1}}})
    unkind = told(manifest, with_spec(replace(view, trials=trials), description=UNKIND))
    run = final_run(tmp_path)
    for file in tmp_path.glob("*.jsonl"):
        row = json.loads(file.read_text().splitlines()[0])
        unkind_row = row | dict.fromkeys(("id", "question", "reference", "prediction", "image"), UNKIND)
        file.write_text(json.dumps(unkind_row) + "\n")
    page = page_of(unkind, run)
    assert "script" not in page.tags
    assert page.words.count(UNKIND) >= 10
    assert "its image is not on this machine" in page.words


@pytest.mark.usefixtures("undrawn")
def test_every_image_of_an_answer_is_shown(view: StudyView, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    run = final_run(tmp_path)
    for file in tmp_path.glob("*.jsonl"):
        row = json.loads(file.read_text().splitlines()[0])
        file.write_text(json.dumps(row | {"images": [str(tmp_path / "red.png"), "gone.png"]}) + "\n")
    page = page_of(told(MANIFEST, view), run)
    assert "its image is not on this machine: gone.png" in page.words
    assert "img" in page.tags


def test_an_answer_may_hold_what_looks_like_the_end_of_a_line(tmp_path: Path) -> None:
    run = final_run(tmp_path)
    row = json.loads(rows_of("tuned").splitlines()[0]) | {"prediction": "one\u2028two"}
    (tmp_path / "tuned.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
    assert [answer.tuned for answer in run.answers] == ["one\u2028two"]
