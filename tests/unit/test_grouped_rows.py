"""Rows of one group are not independent: what is drawn and swapped is groups, in every metric, in tables and words."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from bench.coverage import Setting, Shares, measure, simulated
from hpsearch.errors import InputError
from hpsearch.evaluation import Evaluation, Units
from hpsearch.metrics import grouped, holm, joined, score_difference, score_interval, scores
from hpsearch.results.compare import compare_runs
from hpsearch.results.evaluate import EvaluationOptions, evaluate_run
from hpsearch.results.final import RunFolder
from hpsearch.watch.comparison import comparison_table, comparison_words
from hpsearch.watch.evaluation import evaluation_table, evaluation_words
from tests.unit.answer_fixtures import SEEN, answering, done_once, draw_rows, read_jsonl, trained, write_jsonl
from tests.unit.opening_fixtures import Desk
from tests.unit.view_fixtures import seen
from tests.unit.worker_fixtures import nobody, plays

STUDIES = 300
"""Simulated studies. At 95 %, fewer than 273 hits or more than 297 come about 4 times in 1,000 runs; at 5 %, more than
27 shown about once in 1,000."""
METRICS = ["exact_match", "balanced_accuracy", "bleu"]


@pytest.fixture
def enough_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.metrics.comparison.RESAMPLES", 500)
    monkeypatch.setattr("hpsearch.metrics.comparison.SWAPS", 499)


@pytest.mark.usefixtures("enough_draws")
def test_at_nine_rows_per_group_and_a_correlation_of_0_3_both_keep_what_they_promise() -> None:
    found = measure(Setting("accuracy", 30), STUDIES, by_group=True)
    assert 273 <= round(found.covered * STUDIES) <= 297
    assert round(found.shown * STUDIES) <= 27


@pytest.mark.usefixtures("enough_draws")
def test_rows_taken_as_independent_would_promise_too_much() -> None:
    """The simulation sees the difference: this is what it found before groups were drawn."""
    found = measure(Setting("accuracy", 30), 100, by_group=False)
    assert found.covered < 0.85
    assert found.shown > 0.15


@pytest.mark.usefixtures("enough_draws")
def test_metrics_that_are_no_means_keep_it_too() -> None:
    found = measure(Setting("macro_f1", 30), 60, by_group=True)
    assert found.covered >= 52 / 60
    assert found.shown <= 9 / 60


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "bleu"])
def test_groups_of_one_row_are_rows(metric: str) -> None:
    study = simulated(Setting(metric, 12), np.random.default_rng(0))
    every = [f"row {row}" for row in range(len(study.references))]
    rows = (study.references, study.a, study.b, metric)
    assert score_interval(*rows[:2], metric, every) == score_interval(*rows[:2], metric)
    assert score_difference(*rows, every) == score_difference(*rows)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "bleu"])
def test_whole_groups_are_swapped_and_few_of_them_in_every_way(metric: str) -> None:
    study = simulated(Setting(metric, 5, unequal=True), np.random.default_rng(3))

    def value(predictions: list[str]) -> float:
        return scores(study.references, predictions, [metric])[metric]

    gaps = []
    for swapped in itertools.product([False, True], repeat=5):
        pairs = [(b, a) if swapped[g] else (a, b) for g, a, b in zip(study.groups, study.a, study.b, strict=True)]
        gaps.append(abs(value([b for _, b in pairs]) - value([a for a, _ in pairs])))
    found = score_difference(study.references, study.a, study.b, metric, study.groups)
    assert found.p_value == pytest.approx(np.mean(np.array(gaps) >= gaps[0] - 1e-9))
    assert found.difference == pytest.approx(value(study.b) - value(study.a))


def test_with_few_groups_or_one_that_outweighs_them_all_there_is_no_interval() -> None:
    references, predictions = ["a", "b"] * 200, ["a"] * 400
    equal = [row % 10 for row in range(400)]
    assert score_interval(references, predictions, "accuracy", equal) is not None
    assert score_interval(references, predictions, "accuracy", [group % 9 for group in equal]) is None
    assert score_interval(references, predictions, "macro_f1", [0] * 400) is None
    outweighed = [0] * 300 + [*range(100)]
    assert grouped(outweighed).num == 100
    assert grouped(outweighed).effective == pytest.approx(400**2 / (301**2 + 99))
    assert score_interval(references, predictions, "accuracy", outweighed) is None
    assert score_difference(references, predictions, references, "accuracy", [0] * 400).p_value == 1.0


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_shows_a_false_difference_among_several_metrics_as_rarely_as_in_one() -> None:
    p_values = np.random.default_rng(0).random((2_000, 8))
    shown = sum(min(holm(several)) < 0.05 for several in p_values.tolist())
    assert 65 <= shown <= 135, "5 % of 2,000 is 100; farther away comes once in 3,000 runs.  Uncorrected it is 34 %"


def test_rows_that_share_a_group_in_any_of_two_namings_share_it_in_both() -> None:
    assert joined(["a", "a", "b", "c"]) == [0, 0, 1, 2]
    assert len(set(joined(["a", "a", "b", "c"], [1, 2, 2, 3]))) == 2
    assert joined([0, 1], [1, 0]) == [0, 1], "names of one naming mean nothing in another"


def visits(num_patients: int) -> list[dict[str, Any]]:
    """Four rows of each patient."""
    numbers = range(4 * num_patients)
    return [{"q": f"question {n}", "a": str(n % 2), "patient": f"p{n // 4}"} for n in numbers]


GROUPED = "data.columns={question: q, answer: a, group: patient}"
METRICS_OF = f"evaluation.metrics=[{', '.join(METRICS)}]"
HALF = "data.split={train: 0.3, validation: 0.2, test: 0.5}"


def evaluated(desk: Desk, folder: RunFolder, **options: Any) -> Evaluation:
    return evaluate_run(folder, EvaluationOptions(**options), desk.storage, plays(answering()), desk.tell)


def shown(evaluation: Evaluation) -> str:
    return " ".join(
        f"{seen(evaluation_table(evaluation, 'vlm-sft'))} {evaluation_words(evaluation, Path('s'))}".split()
    )


def test_an_evaluation_is_resampled_over_the_data_s_groups(desk: Desk) -> None:
    desk.write_rows(visits(30))
    folder = trained(desk, GROUPED, METRICS_OF, HALF)
    found = evaluated(desk, folder)
    patients = found.num_rows // 4
    assert found.units == Units(name="groups (column patient)", num=patients, effective=patients)
    assert found.num_rows > patients > 10
    rows = read_jsonl(folder.scores / "tuned.jsonl")
    assert len({row["group"] for row in rows}) == patients
    told = shown(found)
    assert f"its 95 % interval, resampled over {patients} groups (column patient)" in told
    assert "p values are Holm-corrected over 2 comparisons; intervals are not corrected." in told


def test_without_a_group_column_the_image_is_the_group(desk: Desk) -> None:
    draw_rows(desk)
    questions = [("dark?", "yes"), ("red?", "no"), ("large?", "no")]
    desk.write_rows([{"i": f"images/{n}.png", "q": q, "a": a} for n in range(20) for q, a in questions])
    found = evaluated(desk, trained(desk, *SEEN, HALF))
    assert found.units == Units(name="images", num=found.num_rows // 3, effective=found.num_rows // 3)
    assert found.num_rows >= 24


def test_where_each_image_has_one_row_there_are_rows_and_no_groups(desk: Desk) -> None:
    draw_rows(desk)
    desk.write_rows([{"i": f"images/{n}.png", "q": "dark?", "a": "yes"} for n in range(20)])
    found = evaluated(desk, trained(desk, *SEEN, HALF))
    assert found.units == Units(name="rows", num=found.num_rows, effective=found.num_rows)
    assert "not independent" not in shown(found)


def test_rows_of_text_without_groups_are_independent(desk: Desk) -> None:
    desk.write_rows(visits(10))
    found = evaluated(desk, trained(desk, HALF))
    assert found.units == Units(name="rows", num=20, effective=20)
    assert "resampled over 20 rows" in shown(found)


def test_too_few_groups_are_reported_in_words_instead_of_a_false_interval(desk: Desk) -> None:
    desk.write_rows(visits(10))
    found = evaluated(desk, trained(desk, GROUPED, METRICS_OF, HALF))
    assert found.num_rows > 10 > found.resampled.num
    assert all(score.interval is None for cell in found.variants for score in cell.scores.values())
    told = shown(found)
    assert "95 %" not in told
    assert f"No intervals: {found.resampled.num} groups (column patient) are too few; an interval from fewer" in told
    assert "p values are Holm-corrected over 2 comparisons. " in told
    one = found.model_copy(update={"units": Units(name="images", num=1, effective=1)})
    assert "No intervals: 1 image is too few" in shown(one)
    unequal = found.model_copy(update={"units": Units(name="images", num=40, effective=3.21)})
    assert "No intervals: 40 images of so unequal size that they count as 3.2 are too few" in shown(unequal)


def test_rows_that_were_prepared_without_their_groups_are_prepared_again_and_not_asked_again(desk: Desk) -> None:
    desk.write_rows(visits(30))
    folder = trained(desk, GROUPED, HALF)
    first = evaluated(desk, folder)
    (test,) = desk.storage.path.rglob("test")
    old = datasets.load_from_disk(str(test)).remove_columns("group")
    old.save_to_disk(str(test.parent / "old"))
    test.rename(test.parent / "gone")
    (test.parent / "old").rename(test)
    assert evaluate_run(folder, EvaluationOptions(), desk.storage, nobody, desk.tell) == first


@pytest.fixture
def pair(desk: Desk) -> list[RunFolder]:
    """Two runs on the visits of thirty patients; the second one knows nothing of every other patient."""
    desk.write_rows(visits(30))

    def work(desk: Desk) -> None:
        for name, seed in {"good": 1, "half": 2}.items():
            folder = trained(desk, GROUPED, METRICS_OF, HALF, f"training.seed={seed}", name=name)
            start = plays(answering(lambda _, row, good=seed == 1: said(row, good=good)))
            evaluate_run(folder, EvaluationOptions(), desk.storage, start, desk.tell)

    done_once(desk, work, "two runs on visits")
    return [RunFolder(desk.storage.runs / name) for name in ("good", "half")]


def said(row: dict[str, Any], *, good: bool) -> str:
    return str(row["messages"][-1]["content"]) if good or int(row["id"]) % 8 >= 4 else "?"


def test_an_evaluation_of_an_earlier_hpsearch_can_be_read_and_says_so_when_compared(
    desk: Desk, pair: list[RunFolder]
) -> None:
    file = pair[1].scores / "tuned.jsonl"
    file.write_text(file.read_text().replace('"group":', '"of":'))
    with pytest.raises(InputError, match=r"half was evaluated by an earlier hpsearch, which took all rows as indep"):
        compare_runs(pair, "none", desk.tell, common=False)
    found = pair[1].read(Evaluation, pair[1].scores / "scores.json")
    old = found.model_dump(exclude={"units"})
    assert Evaluation.model_validate(old).resampled == Units(name="rows", num=found.num_rows, effective=found.num_rows)


def test_runs_are_compared_over_groups_with_all_their_metrics_corrected(desk: Desk, pair: list[RunFolder]) -> None:
    found = compare_runs(pair, "none", desk.tell, common=False)
    assert found.units.name == "groups (column patient)"
    assert found.units.num == found.num_rows // 4
    assert {gap.num_tests for gap in found.gaps} == {2}
    told = " ".join(f"{seen(comparison_table(found), width=100)} {comparison_words(found)}".split())
    assert f"95 % interval, resampled over {found.units.num} groups (column patient)" in told
    assert "p values are Holm-corrected over 2 different tests of 3: those with the same numbers count once" in told


def test_what_one_study_knows_of_groups_counts_for_both(desk: Desk, pair: list[RunFolder]) -> None:
    """As where the file of one of them names no group column."""
    answers = pair[1].scores / "tuned.jsonl"
    write_jsonl(answers, [row | {"group": number} for number, row in enumerate(read_jsonl(answers))])
    for runs in (pair, pair[::-1]):
        found = compare_runs(runs, "none", desk.tell, common=False)
        assert found.units.num == found.num_rows // 4


def test_shares_are_of_the_studies() -> None:
    assert measure(Setting("accuracy", 2), 3, by_group=True) == Shares(0.0, 0.0), "two groups have no interval"
