"""Comparing final runs: on the same rows, with a test for each number, and never with what was learned by heart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hpsearch.cli import main
from hpsearch.data.manifest import Manifest
from hpsearch.errors import InputError
from hpsearch.evaluation import Comparison
from hpsearch.jobs import Variant
from hpsearch.opening.places import find_final_run
from hpsearch.results.compare import compare_runs
from hpsearch.results.evaluate import EvaluationOptions, evaluate_run
from hpsearch.results.final import RunFolder
from hpsearch.spec.metrics import find_metric
from hpsearch.watch.comparison import comparison_table, comparison_words
from tests.unit.answer_fixtures import Say, answering, done_once, trained
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.view_fixtures import seen
from tests.unit.worker_fixtures import plays

NUM_ROWS = 200
METRICS = "evaluation.metrics=[exact_match, balanced_accuracy]"


def right_but_for(*wrong: int) -> Say:
    """Knows the answers, except for rows whose number has one of these remainders when divided by ten."""

    def say(_: Variant, row: dict[str, Any]) -> str:
        answer = str(row["messages"][-1]["content"])
        return "?" if int(row["id"]) % 10 in wrong else answer

    return say


def evaluated(desk: Desk, name: str, say: Say, *overrides: str, **options: Any) -> RunFolder:
    folder = trained(desk, METRICS, "evaluation.prompts.static=You know.", *overrides, name=name)
    start = plays(answering(say))
    evaluate_run(folder, EvaluationOptions(**options), desk.storage, start, desk.tell)
    return folder


@pytest.fixture
def rows(desk: Desk) -> Desk:
    """A desk whose test split has 20 rows in two classes."""
    desk.write_rows([{"q": f"question {number}", "a": str(number % 2)} for number in range(NUM_ROWS)])
    return desk


@pytest.fixture
def pair(rows: Desk) -> list[RunFolder]:
    """A run that knows four of five answers, and one that knows none."""

    def work(desk: Desk) -> None:
        evaluated(desk, "good", right_but_for(3, 4))
        evaluated(desk, "bad", lambda *_: "?", "training.seed=7")

    done_once(rows, work, "good and bad")
    return [RunFolder(rows.storage.runs / name) for name in ("good", "bad")]


def compared(desk: Desk, *folders: RunFolder, prompt: Any = "none", common: bool = False) -> Comparison:
    return compare_runs(folders, prompt, desk.tell, common=common)


def names_of(comparison: Comparison) -> list[str]:
    return [metric.name for metric in comparison.metrics]


def told(comparison: Comparison) -> str:
    return seen(comparison_table(comparison), width=100) + "\n" + comparison_words(comparison)


def test_each_run_is_tested_against_the_first_in_every_metric(rows: Desk, pair: list[RunFolder]) -> None:
    found = compared(rows, *pair)
    assert (found.num_rows, names_of(found), found.variant) == (20, ["exact_match", "balanced_accuracy"], "tuned")
    assert [(gap.name, gap.than, gap.metric.name) for gap in found.gaps] == [
        ("bad", "good", "exact_match"),
        ("bad", "good", "balanced_accuracy"),
    ]
    for gap, metric in zip(found.gaps, found.metrics, strict=True):
        good, bad = (run.scores[metric.name] for run in found.runs)
        assert gap.difference == pytest.approx(bad.value - good.value)
        assert gap.low < gap.difference < gap.high < 0
        assert gap.shown
        assert gap.p_value < 0.01
        assert good.low < good.value < good.high
    assert "tuned models on 20 test rows, in exact match:\n  bad against good: worse, -" in told(found)
    assert told(found).count("20 test rows") == told(found).count("resampled over 20 rows") == 1
    assert "no difference shown" not in told(found)
    assert told(found).count("worse") == 3, "each metric has its word, and the sentence below"


def test_where_nothing_is_shown_the_words_say_so(rows: Desk, pair: list[RunFolder]) -> None:
    similar = evaluated(rows, "similar", right_but_for(3, 5), "training.seed=8")
    found = compared(rows, pair[0], similar)
    assert not any(gap.shown for gap in found.gaps)
    assert told(found).count("no difference shown") == 3
    assert "similar against good: no difference shown, " in comparison_words(found)
    same = {name: score for run in found.runs[:1] for name in names_of(found) for score in [run.scores["exact_match"]]}
    once = found.model_copy(update={"runs": [run.model_copy(update={"scores": same}) for run in found.runs]})
    assert "The same numbers as exact match: balanced accuracy." in comparison_words(once)
    assert "balanced" not in seen(comparison_table(once), width=100)


def test_runs_of_different_budgets_are_told_apart(rows: Desk, pair: list[RunFolder]) -> None:
    assert "equally long" not in comparison_words(compared(rows, *pair))
    longer = evaluated(rows, "longer", right_but_for(3, 5), "final.max_steps=40")
    part = evaluated(rows, "part", right_but_for(3, 5), "final.epochs=2", "final.train_fraction=0.5")
    words = comparison_words(compared(rows, pair[0], longer, part))
    assert "careful: the runs did not train equally long: good 3 epochs, longer 40 steps, part 2 epochs on 50%" in words


def test_many_tests_are_corrected_for_being_many(rows: Desk, pair: list[RunFolder]) -> None:
    third = evaluated(rows, "third", right_but_for(), "training.seed=8")
    found = compared(rows, *pair, third)
    assert "p values are Holm-corrected over 4 tests: 2 metrics, 2 comparisons" in comparison_words(found)
    assert {gap.num_tests for gap in found.gaps} == {4}
    assert [run.name for run in found.runs] == ["good", "bad", "third"]


def test_another_prompt_is_compared_where_it_was_evaluated(rows: Desk, pair: list[RunFolder]) -> None:
    assert compared(rows, *pair, prompt="static").variant == "tuned-static"
    bare = evaluated(rows, "bare", right_but_for(), "training.seed=8", prompts=["none"])
    with pytest.raises(
        InputError, match=r"bare has no answers of tuned-static: hpsearch evaluate .*--prompts none,sta"
    ):
        compared(rows, pair[0], bare, prompt="static")


def test_without_an_evaluation_the_command_is_named(rows: Desk, pair: list[RunFolder]) -> None:
    run = trained(rows, "training.seed=9", name="new")
    with pytest.raises(InputError, match=rf"is not evaluated yet: hpsearch evaluate {run.path}$"):
        compared(rows, pair[0], run)


def test_different_rows_are_refused_or_compared_on_those_in_common(rows: Desk, pair: list[RunFolder]) -> None:
    part = evaluated(rows, "part", right_but_for(), "training.seed=8", limit=12)
    words = r"different rows \(good on 20, part on 12; 12 in common\): --common compares them on those"
    with pytest.raises(InputError, match=words):
        compared(rows, pair[0], part)
    found = compared(rows, pair[0], part, common=True)
    assert (found.num_rows, [run.num_rows for run in found.runs]) == (12, [20, 12])
    assert "careful: good was evaluated on 20 rows; 12 of them are compared here" in comparison_words(found)


def test_rows_are_told_apart_by_their_content(rows: Desk, pair: list[RunFolder]) -> None:
    rows.write_rows([{"q": f"another question {number}", "a": str(number % 2)} for number in range(NUM_ROWS)])
    other = evaluated(rows, "other", right_but_for())
    with pytest.raises(InputError, match="have none in common: 20 rows of good and other share their id, but not the"):
        compared(rows, pair[0], other, common=True)


def test_the_same_rows_in_another_file_are_the_same_rows(rows: Desk, pair: list[RunFolder]) -> None:
    """Their ids are positions: two more rows at the front move them all."""
    manifest = Manifest.from_bytes(pair[1].manifest.read_bytes())
    moved = {
        split: [(str(int(row_id) + 2), sha256) for row_id, sha256 in keys] for split, keys in manifest.splits.items()
    }
    pair[1].manifest.write_bytes(manifest.model_copy(update={"splits": moved}).to_bytes())
    for file in pair[1].scores.glob("*.jsonl"):
        lines = file.read_text().splitlines()
        ids = [f'{{"id":"{int(line[7 : line.index(",") - 1]) + 2}"{line[line.index(",") :]}' for line in lines]
        file.write_text("\n".join(ids[::-1]) + "\n")
    assert compared(rows, *pair).num_rows == 20


def test_training_rows_of_one_run_in_the_test_rows_of_another_are_reported(rows: Desk, pair: list[RunFolder]) -> None:
    assert "careful" not in comparison_words(compared(rows, *pair))
    first, second = (Manifest.from_bytes(folder.manifest.read_bytes()) for folder in pair)
    leaked = [*second.splits["train"], *first.splits["test"][:3]]
    changed = second.model_copy(update={"splits": second.splits | {"train": leaked}})
    pair[1].manifest.write_bytes(changed.to_bytes())
    found = compared(rows, *pair)
    assert [run.leaked for run in found.runs] == [0, 3]
    assert "careful: 3 of these 20 rows were training rows of bad" in comparison_words(found)


def test_runs_of_one_name_are_told_apart(rows: Desk, pair: list[RunFolder]) -> None:
    other = rows.folder / "elsewhere" / "good"
    other.parent.mkdir()
    pair[1].path.rename(other)
    assert [run.name for run in compared(rows, pair[0], RunFolder(other)).runs] == ["runs/good", "elsewhere/good"]


def test_metrics_are_those_that_all_evaluations_have(rows: Desk, pair: list[RunFolder]) -> None:
    other = evaluated(rows, "other", right_but_for(), "training.seed=8", metrics=["bleu", "exact_match"])
    assert compared(rows, pair[0], other).metrics == [find_metric("exact_match")]
    third = evaluated(rows, "third", right_but_for(), "training.seed=9", metrics=["bleu"])
    assert "exact_match" in names_of(compared(rows, pair[0], third))


def test_two_different_runs_are_needed(rows: Desk, pair: list[RunFolder]) -> None:
    for folders in ([pair[0]], [pair[0], pair[0]], [*pair, pair[0]]):
        with pytest.raises(InputError, match="two or more different runs"):
            compared(rows, *folders)


@pytest.fixture
def at_desk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("HPSEARCH_STORE", f"sqlite:///{desk.store.url.database}")
    monkeypatch.setenv("HPSEARCH_STORAGE", str(desk.storage.path))


@pytest.mark.usefixtures("at_desk")
def test_a_run_is_found_by_its_folder_or_its_study(desk: Desk) -> None:
    for name in ("demo", "one-trial-3", "two-trial-1", "two-trial-7"):
        (desk.storage.runs / name).mkdir(parents=True)
    assert find_final_run("demo").path == find_final_run("storage/runs/demo").path
    assert find_final_run("one").path == desk.storage.runs / "one-trial-3"
    with pytest.raises(InputError, match=r"'two' has several final runs: .*two-trial-1, .*two-trial-7; name one"):
        find_final_run("two")
    for name in ("demo", "three"):
        (desk.folder / name).mkdir()
    assert find_final_run("demo").path == desk.storage.runs / "demo", "a folder of data is no run"
    assert find_final_run("three").path == desk.folder / "three", "what it lacks is told when it is read"


@pytest.mark.usefixtures("at_desk")
def test_a_run_that_is_not_there_is_trained_only_if_there_is_such_a_study(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(name: str) -> str:
        with pytest.raises(InputError) as raised:
            find_final_run(name)
        return str(raised.value)

    nothing = f"is no run folder, and {desk.storage.runs} has no final run of it"
    assert refusal("demo").endswith("no study of that name; there are no studies yet")
    desk.open(start=plays(inspecting()))
    (desk.storage.runs / "earlier").mkdir(parents=True)
    assert refusal("demo") == f"'demo' {nothing}; hpsearch train demo makes one"
    assert refusal("demmo") == (
        f"'demmo' {nothing}, and sqlite:///{desk.store.url.database} no study of that name; did you mean 'demo'?"
    )
    assert refusal("earlie").endswith("no study of that name; did you mean 'earlier'?")
    monkeypatch.setenv("HPSEARCH_STORE", "sqlite:///not-yet.db")
    place = Path("not-yet.db").absolute()
    assert refusal("earlie").endswith(f", and sqlite:///{place} no study of that name; did you mean 'earlier'?")
    monkeypatch.setenv("HPSEARCH_STORE", "postgresql+psycopg://me@127.0.0.1:1/db")
    assert refusal("demo") == f"'demo' {nothing}; hpsearch train makes one; known: earlier"


def test_the_command_prints_the_table_and_the_words(
    rows: Desk, pair: list[RunFolder], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPSEARCH_STORAGE", str(rows.storage.path))
    monkeypatch.setattr(sys, "argv", ["hpsearch", "compare", "good", str(pair[1].path)])
    with pytest.raises(SystemExit) as exited:
        main()
    said = capfd.readouterr().out
    assert exited.value.code == 0
    assert "tuned models on 20 test rows" in said
    assert "balanced accuracy" in said
    assert "bad against good: worse" in said
    assert Path(pair[1].path).exists()
