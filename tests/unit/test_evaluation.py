"""Evaluating a final run: on the test rows, which nobody has seen before, each of them asked once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from pydantic import ValidationError
from typer import BadParameter

from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.errors import HpsearchError, InputError, StudyFileErrors, TrainerDied
from hpsearch.evaluation import Evaluation
from hpsearch.jobs import EvaluationConfig, Variant
from hpsearch.results.card import model_card
from hpsearch.results.evaluate import MOST_FREQUENT, EvaluationOptions, evaluate_run
from hpsearch.results.final import RunFolder
from hpsearch.spec.metrics import METRICS
from tests.unit.answer_fixtures import SEEN, answering, draw_rows, failing, read_jsonl, trained
from tests.unit.command_fixtures import parse
from tests.unit.opening_fixtures import Desk
from tests.unit.worker_fixtures import nobody, plays

TEXT_METRICS = [name for name, row in METRICS.items() if row.over == "texts" and not row.needs_model]
CLASS_METRICS = [name for name, row in METRICS.items() if row.over == "classes"]

PROMPTS = ("evaluation.prompts.static=You know numbers.",)
MORE_ROWS = [{"q": f"question {number}", "a": str(number % 2)} for number in range(40)]


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    """A run with four test rows, whose answers are 0 and 1."""
    desk.write_rows(MORE_ROWS)
    return trained(desk, f"data.source={desk.folder / 'rows.jsonl'}", *PROMPTS)


def evaluated(desk: Desk, folder: RunFolder, start: StartTrainer, **options: Any) -> Evaluation:
    return evaluate_run(folder, EvaluationOptions(**options), desk.storage, start, desk.tell)


def job_of(folder: RunFolder) -> EvaluationConfig:
    config = folder.evaluation.job()
    assert isinstance(config, EvaluationConfig)
    return config


def test_base_and_tuned_model_answer_the_test_rows_under_each_prompt(desk: Desk, folder: RunFolder) -> None:
    assert not list(desk.storage.path.rglob("test"))
    found = evaluated(desk, folder, plays(answering()))
    config = job_of(folder)
    assert (config.adapter, config.answers.max_new_tokens) == (folder.adapter, 32)
    manifest = folder.load()[1]
    assert datasets.load_from_disk(str(config.test_rows))["id"] == [row_id for row_id, _ in manifest.splits["test"]]
    names = [MOST_FREQUENT, "base", "base-static", "tuned", "tuned-static"]
    assert [cell.name for cell in found.variants] == names
    assert [cell.scores["exact_match"].value for cell in found.variants[1:]] == [0.0, 0.0, 1.0, 1.0]
    assert [metric.name for metric in found.metrics] == [*TEXT_METRICS, *CLASS_METRICS]
    assert (found.num_rows, found.longer_than_limit, found.variant("tuned").loss) == (4, 2, 0.5)
    assert found.variant(MOST_FREQUENT).loss is None


def test_scores_and_scored_rows_lie_in_the_run_folder(desk: Desk, folder: RunFolder) -> None:
    found = evaluated(desk, folder, plays(answering()))
    assert folder.read(Evaluation, folder.scores / "scores.json") == found
    files = {file.stem for file in folder.scores.glob("*.jsonl")}
    assert files == {"base", "base-static", "tuned", "tuned-static"}
    row = read_jsonl(folder.scores / "tuned.jsonl")[0]
    assert (row["exact_match"], row["token_f1"], row["prediction"]) == (1.0, 1.0, row["reference"])


def test_rows_of_an_earlier_evaluation_do_not_stay(desk: Desk, folder: RunFolder) -> None:
    evaluated(desk, folder, plays(answering()))
    evaluated(desk, folder, nobody, prompts=["none"])
    assert {file.stem for file in folder.scores.glob("*.jsonl")} == {"base", "tuned"}


def test_every_row_is_asked_once(desk: Desk, folder: RunFolder) -> None:
    first = evaluated(desk, folder, plays(answering()))
    assert evaluated(desk, folder, nobody) == first
    assert evaluated(desk, folder, nobody, metrics=["bleu"]).metrics == [METRICS["bleu"]]
    assert evaluated(desk, folder, nobody, prompts=["static"]).variants[1].name == "base-static"


def test_a_further_prompt_is_asked_and_the_others_are_not_again(desk: Desk, folder: RunFolder) -> None:
    evaluated(desk, folder, plays(answering()), prompts=["none"])
    asked: list[tuple[str, str]] = []
    evaluated(desk, folder, plays(answering(asked=asked)))
    assert {cell for cell, _ in asked} == {"base-static", "tuned-static"}


def test_changed_settings_throw_the_answers_away(desk: Desk, folder: RunFolder) -> None:
    evaluated(desk, folder, plays(answering()))
    asked: list[tuple[str, str]] = []
    evaluated(desk, folder, plays(answering(asked=asked)), max_new_tokens=50)
    assert len(asked) == 4 * 4
    assert job_of(folder).answers.max_new_tokens == 50


def test_an_interrupted_evaluation_goes_on_where_it_stopped(desk: Desk, folder: RunFolder) -> None:
    before: list[tuple[str, str]] = []
    with pytest.raises(TrainerDied):
        evaluated(desk, folder, plays(answering(asked=before, dies_after=6)))
    assert not folder.scores.exists()
    after: list[tuple[str, str]] = []
    found = evaluated(desk, folder, plays(answering(asked=after)))
    assert (len(before), len(after)) == (6, 10)
    assert not set(before) & set(after)
    assert found.variant("tuned").scores["exact_match"].value == 1.0


def test_a_failed_evaluation_says_why_and_is_made_again(desk: Desk, folder: RunFolder) -> None:
    with pytest.raises(HpsearchError, match="OutOfMemoryError: 2 GiB") as raised:
        evaluated(desk, folder, plays(failing))
    assert str(folder.evaluation.log) in str(raised.value)
    assert evaluated(desk, folder, plays(answering())).num_rows == 4


def test_answers_that_ran_past_their_end_are_asked_again(desk: Desk, folder: RunFolder) -> None:
    """An earlier hpsearch did not stop where answers were taught to end."""
    evaluated(desk, folder, plays(answering(lambda *_: "0 and on and on")))
    config = json.loads(folder.evaluation.config.read_text())
    del config["rules"]
    folder.evaluation.config.write_text(json.dumps(config))
    assert evaluated(desk, folder, plays(answering())).variant("tuned").scores["accuracy"].value == 1.0


def test_answers_to_images_that_were_seen_otherwise_are_asked_again(desk: Desk) -> None:
    """An earlier hpsearch gave them to the model on their side, or with colours that nobody sees."""
    draw_rows(desk)
    folder = trained(desk, *SEEN)
    evaluated(desk, folder, plays(answering(lambda *_: "no")))
    config = json.loads(folder.evaluation.config.read_text())
    folder.evaluation.config.write_text(json.dumps(config | {"rules": 2}))
    assert evaluated(desk, folder, plays(answering())).variant("tuned").scores["accuracy"].value == 1.0


def test_what_another_version_left_is_no_hindrance(desk: Desk, folder: RunFolder) -> None:
    folder.evaluation.path.mkdir()
    folder.evaluation.config.write_text('{"job": "evaluate", "max_new_tokens": 25}')
    folder.evaluation.answers("tuned").write_text('{"id": "0"}\n' * 4)
    assert evaluated(desk, folder, plays(answering())).variant("tuned").scores["accuracy"].value == 1.0


@pytest.mark.parametrize(("limit", "num_rows"), [(1, 1), (3, 3), (4, 4), (100, 4)])
def test_a_limit_is_a_number_of_rows(desk: Desk, folder: RunFolder, limit: int, num_rows: int) -> None:
    found = evaluated(desk, folder, plays(answering()), limit=limit)
    asked = job_of(folder) if limit >= 4 else folder.evaluation_of_some.job()
    assert isinstance(asked, EvaluationConfig)
    assert found.num_rows == num_rows == len(datasets.load_from_disk(str(asked.test_rows)))


def test_a_limit_throws_no_answers_away(desk: Desk, folder: RunFolder) -> None:
    whole = evaluated(desk, folder, plays(answering()))
    some = evaluated(desk, folder, plays(answering()), limit=2)
    assert evaluated(desk, folder, nobody) == whole
    assert evaluated(desk, folder, nobody, limit=2) == some


def test_a_limit_of_no_rows_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        EvaluationOptions(limit=0)
    with pytest.raises(BadParameter):
        parse(["evaluate", "demo", "--limit", "0"])


def test_the_checksum_tells_which_rows_were_asked(desk: Desk, folder: RunFolder) -> None:
    whole = evaluated(desk, folder, plays(answering())).rows_sha256
    assert evaluated(desk, folder, plays(answering()), limit=3).rows_sha256 != whole
    assert evaluated(desk, folder, plays(answering())).rows_sha256 == whole


def test_the_base_can_be_left_out(desk: Desk, folder: RunFolder) -> None:
    asked: list[tuple[str, str]] = []
    found = evaluated(desk, folder, plays(answering(asked=asked)), with_base=False)
    assert {cell for cell, _ in asked} == {"tuned", "tuned-static"}
    assert [cell.name for cell in found.variants] == [MOST_FREQUENT, "tuned", "tuned-static"]
    assert found.base is None
    assert [(gap.name, gap.than) for gap in found.gaps] == [("tuned", MOST_FREQUENT)]
    assert "base model was not" in model_card(folder, "adapter")
    asked.clear()
    whole = evaluated(desk, folder, plays(answering(asked=asked)))
    assert {cell for cell, _ in asked} == {"base", "base-static"}, "what is answered is not asked again"
    assert whole.base is not None
    assert "base model was not" not in model_card(folder, "adapter")


def test_what_was_gained_is_tested(desk: Desk, folder: RunFolder) -> None:
    found = evaluated(desk, folder, plays(answering()))
    assert [(gap.name, gap.than, gap.metric.name) for gap in found.gaps] == [
        ("tuned", "base", "exact_match"),
        ("tuned", MOST_FREQUENT, "exact_match"),
    ]
    assert (found.gaps[0].difference, found.gaps[0].shown) == (1.0, False), "four rows prove nothing"
    desk.write_rows([{"q": f"question {number}", "a": str(number % 2)} for number in range(100)])
    larger = trained(desk, f"data.source={desk.folder / 'rows.jsonl'}", name="larger")
    assert evaluated(desk, larger, plays(answering())).gaps[0].shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": ["adaptive"]}, "the study has no adaptive prompt: write it in its file under evaluation.prompts"),
        ({"metrics": ["bertscore"]}, "--metrics bertscore needs a model"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    desk: Desk, folder: RunFolder, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        evaluated(desk, folder, nobody, **options)


def test_answers_of_many_kinds_are_no_classes(desk: Desk) -> None:
    desk.write_rows([{"q": f"question {number}", "a": f"answer {number}"} for number in range(40)])
    found = evaluated(desk, trained(desk), plays(answering()))
    assert [metric.name for metric in found.metrics] == TEXT_METRICS
    assert found.variant("tuned").confusion is None


def test_answers_may_hold_every_kind_of_line_end(desk: Desk, folder: RunFolder) -> None:
    found = evaluated(desk, folder, plays(answering(lambda *_: "a\u2028b\x85c\nd")))
    assert found.num_rows == 4
    assert read_jsonl(folder.scores / "tuned.jsonl")[0]["prediction"] == "a\u2028b\x85c\nd"


def test_bertscores_are_asked_for_and_shown_where_they_came(desk: Desk) -> None:
    folder = trained(desk, "evaluation.bertscore_model=roberta", "evaluation.metrics=[bertscore, bleu]")
    found = evaluated(desk, folder, plays(answering()))
    assert job_of(folder).bertscore_model == "roberta"
    assert "bertscore" not in found.variant(MOST_FREQUENT).scores
    assert evaluated(desk, folder, nobody, metrics=["bleu"]).metrics == [METRICS["bleu"]]


def test_an_evaluation_of_changed_rows_is_refused(desk: Desk, folder: RunFolder) -> None:
    desk.write_rows([{"q": "another question", "a": "another answer"}])
    with pytest.raises(StudyFileErrors, match="data"):
        evaluated(desk, folder, nobody)


def test_a_run_from_a_file_with_a_relative_source_can_be_evaluated(desk: Desk) -> None:
    assert not Path(desk.file().spec.data.source).is_absolute()
    assert evaluated(desk, trained(desk), plays(answering())).num_rows == 2


def test_a_cells_name_tells_model_and_prompt() -> None:
    assert [Variant(model="base").name, Variant(model="tuned", prompt="static").name] == ["base", "tuned-static"]
