"""Tables for the terminal, and numbers and times in words."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest

from hpsearch.cli import run as run_verb
from hpsearch.cli.options import telling
from hpsearch.data.manifest import Manifest
from hpsearch.jobs import Check, Example, TokenPiece
from hpsearch.search.view import StudyView
from hpsearch.spec.metrics import LOSS
from hpsearch.watch.console import open_console
from hpsearch.watch.examples import example_panel, format_left_out, splits_table
from hpsearch.watch.tables import (
    best_table,
    checks_table,
    sparkline,
    studies_table,
    study_panel,
    trials_table,
    workers_table,
)
from hpsearch.watch.training import TrainingDisplay
from hpsearch.watch.words import format_loss, format_num_steps, format_time, format_value
from tests.unit.view_fixtures import cells, plain_console, seen, with_spec
from tests.unit.worker_fixtures import MakeDemo, study_spec


def test_a_studys_trials_are_shown_with_their_outcomes_and_the_best_is_marked(view: StudyView) -> None:
    heading, *rows = cells(seen(trials_table(view)))
    assert heading == ["trial", "outcome", "loss", "reports", "time", "memory", "parameters"]
    assert [" ".join(row) for row in rows] == [
        "★ 0 complete 0.5000 █▅▁ 1 min 05 s 2.50 GiB learning_rate 0.0001, r 16",
        "1 pruned 4.0000 ▁ 1 min 05 s learning_rate 0.0002, r 16",
        "2 diverged nan ▁✗ 1 min 05 s learning_rate 0.0003, r 16",
        "3 out of memory 1 min 05 s learning_rate 0.0004, r 16",
        "4 failed 1 min 05 s learning_rate 0.0005, r 16",
        "5 complete 2.0000 █▁ 1 min 05 s 3.00 GiB leak learning_rate 0.0006, r 16",
        "6 running 1.5000 ▁ learning_rate 0.0007, r 16",
    ]


def test_parameters_can_be_read_on_a_narrow_terminal(view: StudyView) -> None:
    wide, narrow = (seen(study_panel(view), width=width) for width in (100, 60))
    assert "memory" in wide
    assert "wider" not in wide
    assert "learning_rate 0.0006," in narrow
    assert "a wider terminal shows reports, time, memory too" in narrow
    assert max(map(len, narrow.splitlines())) <= 60


def test_each_objective_has_a_column(view: StudyView) -> None:
    trials = [
        replace(trial, values=(trial.value, 0.75)) if trial.outcome == "complete" else trial for trial in view.trials
    ]
    two = with_spec(replace(view, trials=trials), objective=["loss", "exact_match"])
    heading, first, second, *_ = cells(seen(trials_table(two)))
    assert " ".join(heading).startswith("trial outcome loss exact match reports")
    assert " ".join(first).startswith("★ 0 complete 0.5000 75.0% ")
    assert " ".join(second).startswith("1 pruned 4.0000 ")


def test_a_trial_that_waits_is_shown_where_it_has_begun(view: StudyView) -> None:
    """It was released. A trial that has not begun yet shows nothing."""
    waiting = [replace(trial, outcome="waiting") for trial in view.trials if trial.number == 6]
    unasked = [replace(trial, number=9, params={}, reports={}) for trial in waiting]
    rows = cells(seen(trials_table(replace(view, trials=waiting + unasked))))[1:]
    assert [row[:3] for row in rows] == [["6", "waiting", "1.5000"]]


def test_the_latest_trials_are_shown_and_the_best_one_always(view: StudyView) -> None:
    shown = [next(cell for cell in row if cell != "★") for row in cells(seen(trials_table(view, rows=3)))[1:]]
    assert shown == ["0", "5", "6"]


def test_a_study_is_shown_with_how_far_it_is_and_who_works_on_it(view: StudyView) -> None:
    shown = seen(study_panel(view))
    headline = cells(shown)[0]
    assert headline[0] == "demo"
    assert "6/8" in headline
    assert "best 0.5000 (trial 0)" in shown.splitlines()[0]
    *_, heading, worker = cells(shown)
    assert heading == ["worker", "device", "doing", "progress", "loss", "memory"]
    assert " ".join(worker) == "gpu-box:4242 NVIDIA H200 trial 6: training ━━╌╌╌╌╌╌╌╌ 3/12 1.4321 3.00 GiB"


def test_on_a_narrow_terminal_what_workers_do_is_folded_and_nothing_is_cut(view: StudyView) -> None:
    change = {"doing": "trying how many rows fit", "done": 18, "total": 20}
    doing = view.live_workers[-1].activity.model_copy(update=change)
    worker = replace(view.live_workers[-1], activity=doing, job="gpu-box:42:2737938@5f", device="CPU, 1 thread")
    shown = seen(workers_table([worker]), width=80)
    assert "…" not in shown
    assert [cell for cell in ("worker", "loss", "18/20", "3.00 GiB") if cell not in shown] == []


@pytest.mark.parametrize("change", [{"gone": True}, {"seconds_since_beat": 61.0}])
def test_workers_that_are_gone_or_silent_are_not_shown(view: StudyView, change: dict[str, Any]) -> None:
    assert [worker.worker_id for worker in view.live_workers] == ["gpu-box:4242:1.00"]
    quiet = replace(view, workers=[replace(worker, **change) for worker in view.workers])
    assert quiet.live_workers == []
    assert "gpu-box" not in seen(study_panel(quiet))


def test_the_time_left_is_estimated_from_the_trials_so_far(view: StudyView) -> None:
    timed = replace(view, trials=[replace(trial, seconds=90.0) for trial in view.trials])
    assert timed.seconds_left() == 90.0 * 2
    two_workers = replace(timed, workers=timed.workers * 2)
    assert two_workers.seconds_left() == 90.0
    assert "about 3 min 00 s left at this pace" in seen(study_panel(timed), width=160)
    assert replace(timed, workers=[]).seconds_left() is None
    assert replace(timed, study=replace(timed.study, paused="by hpsearch pause")).seconds_left() is None
    assert replace(timed, trials=[]).seconds_left() is None


def test_one_is_not_many() -> None:
    assert [format_num_steps(number) for number in (1, 2, 12345)] == ["1 step", "2 steps", "12,345 steps"]


def test_all_studies_are_shown_in_one_table(view: StudyView) -> None:
    described = with_spec(view, description="what it is for")
    heading, row, _, below = seen(studies_table([described]), width=80).splitlines()
    assert heading.split() == ["study", "trials", "best", "workers", "running", "base"]
    assert row.split() == ["demo", "6/8", "0.5000", "(trial", "0)", "1", "1", "tiny:qwen2"]
    assert below.strip() == "demo: what it is for"
    assert "no" not in seen(studies_table([replace(view, trials=[])])).splitlines()[1]


def test_a_narrow_terminal_leaves_columns_of_the_studies_out_rather_than_tear_a_base(view: StudyView) -> None:
    named = replace(view, study=replace(view.study, name="a_longer_name"))
    heading, row, told = seen(studies_table([named]), width=60).splitlines()
    assert heading.split() == ["study", "trials", "best", "workers", "base"]
    assert row.split()[-2:] == ["1", "tiny:qwen2"]
    assert told.strip() == "a wider terminal shows running too"


@pytest.mark.parametrize(
    ("losses", "blocks"),
    [
        ([], ""),
        ([2.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([3.0, 1.0, 2.0], "█▁▅"),
        ([math.nan], "✗"),
        ([3.0, math.inf, 1.0, math.nan], "█✗▁✗"),
        ([-math.inf, 1.0], "✗▁"),
    ],
)
def test_losses_are_drawn_as_blocks_and_what_is_no_number_as_a_cross(losses: list[float], blocks: str) -> None:
    assert sparkline(losses) == blocks


def test_the_best_values_stand_beside_the_files_own(view: StudyView) -> None:
    assert view.best is not None
    shown = cells(seen(best_table(view, view.best, view.best.params, view.study.spec.defaults())))
    assert " ".join(shown[0]) == "trial 0, validation loss 0.5000"
    assert shown[2:] == [["training.learning_rate", "0.0001", "0.0002"], ["lora.r", "16", "16"]]


def test_checks_are_shown_with_the_fix_where_there_is_one() -> None:
    checks = [
        Check(name="disk", verdict="works", found="99 GiB free [/dev/sda]"),
        Check(name="gpu", verdict="fails", found="no driver", fix="install one"),
        Check(name="hub", verdict="limited", found="no token", fix="hf auth login"),
    ]
    assert [" ".join(row) for row in cells(seen(checks_table(checks)))] == [
        "✓ disk 99 GiB free [/dev/sda]",
        "✗ gpu no driver",
        "→ install one",
        "! hub no token",
        "→ hf auth login",
    ]


def manifest(kept: int, left_out: dict[str, list[str]]) -> Manifest:
    rows = {"train": [(str(i), "a") for i in range(kept)], "validation": [("v", "b")], "test": [("t", "c")]}
    return Manifest(splits=rows, left_out=left_out)  # type: ignore[arg-type]


def test_splits_are_shown_with_what_trials_and_the_final_run_see() -> None:
    spec = study_spec(spec={"budget": {"train_fraction": 0.25}, "final": {"train_fraction": 0.5}})
    shown = cells(seen(splits_table(spec, manifest(40, {"empty answer": ["7"]}))))
    assert shown[2:5] == [["train", "40", "10", "20"], ["validation", "1", "1", "1"], ["test", "1", "none", "none"]]
    assert " ".join(shown[5]) == "left out: 1 × empty answer (row 7)"


def test_rows_that_were_left_out_are_named_and_many_are_a_warning() -> None:
    few = format_left_out(manifest(98, {"empty answer": list("1234567"), "no image": ["8"]}))
    assert few == ["left out: 7 × empty answer (rows 1, 2, 3, 4, 5 …)", "left out: 1 × no image (row 8)"]
    assert format_left_out(manifest(8, {"no image": ["8", "9"]}))[1].startswith("careful: 17% of the rows are left out")


def test_rows_are_counted_by_their_images_where_they_differ() -> None:
    found = manifest(3, {})
    mixed = found.model_copy(update={"num_images": {"train": {0: 1, 2: 3}, "test": {0: 4}}})
    assert format_left_out(mixed) == ["rows by their number of images: 5 × 0, 3 × 2"]
    for alike in ({0: 3}, {1: 3}):
        assert format_left_out(found.model_copy(update={"num_images": {"train": alike}})) == []


def test_an_example_shows_what_is_masked_and_what_is_learned() -> None:
    pieces = [
        TokenPiece(text="<image>", num_tokens=16, is_learned=False, is_image=True),
        TokenPiece(text="Which digit [/b]?", num_tokens=5, is_learned=False, is_image=False),
        TokenPiece(text="seven", num_tokens=2, is_learned=True, is_image=False),
    ]
    shown = seen(example_panel(Example(id="7", images=["images/7.png"], pieces=pieces)))
    assert "row 7: 23 tokens, 21 masked, 2 learned" in shown
    assert "⟨image: 16 tokens⟩Which digit [/b]?⟦seven⟧" in shown
    assert "7.png" in shown
    stored = Example(id="7", images=["/storage/0f3a" + 60 * "0"], pieces=pieces)
    assert "row 7 (line 8): " in seen(example_panel(stored, line=8))
    assert "storage" not in seen(example_panel(stored)), "an image that was taken out of the data has no name"


def test_a_pair_is_shown_with_both_answers() -> None:
    asked = TokenPiece(text="Why?", num_tokens=2, is_learned=False, is_image=False)
    good, bad = (TokenPiece(text=text, num_tokens=3, is_learned=True, is_image=False) for text in ("[so]", "[no]"))
    shown = seen(example_panel(Example(id="7", images=[], pieces=[asked, good], rejected=[asked, bad])))
    assert "row 7: 5 tokens, 2 masked, 3 learned" in shown
    assert "Why?⟦[so]⟧" in shown
    assert "rejected: ⟦[no]⟧ 3 tokens" in shown
    shown = seen(example_panel(Example(id="7", images=[], pieces=[asked, bad], desirable=False)))
    assert "Why?⟦[no]⟧" in shown
    assert "not desirable" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (42.4, "42 s"),
        (59.6, "1 min 00 s"),
        (190, "3 min 10 s"),
        (7500, "2 h 05 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_times_are_reported_in_words(seconds: float, words: str) -> None:
    assert format_time(seconds) == words


def test_numbers_are_reported_short() -> None:
    assert [format_loss(loss) for loss in (None, 0.0, 1.23456, math.nan)] == ["", "0.0000", "1.2346", "nan"]
    values = (None, 0.000123456, 2e-5, 16, True, "nf4", ["q_proj"])
    assert [format_value(v) for v in values] == ["", "0.000123", "2e-05", "16", "true", "nf4", "['q_proj']"]


def test_an_examples_id_and_image_may_hold_brackets() -> None:
    pieces = [TokenPiece(text="[/b] :bug:", num_tokens=1, is_learned=False, is_image=False)]
    shown = seen(example_panel(Example(id="[/img]", images=["[img].png"], pieces=pieces)))
    assert "row [/img]: 1 tokens" in shown
    assert "[img].png" in shown
    assert "[/b] :bug:" in shown


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_trainer_does_may_hold_brackets(is_terminal: bool) -> None:
    console = open_console(file=io.StringIO(), force_terminal=is_terminal, width=100)
    with TrainingDisplay(console, [LOSS]) as display:
        display.tell("loading [/base] :bug:", 0, 0)
    with telling(console) as tell:
        tell("reading [/rows] :bug:", 0, 0)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "loading [/base] :bug:" in shown
    assert "reading [/rows] :bug:" in shown


def test_a_description_may_hold_brackets(view: StudyView) -> None:
    assert "see [/docs]" in seen(studies_table([with_spec(view, description="see [/docs]")]))


def test_on_a_narrow_terminal_a_check_has_more_room_than_its_name() -> None:
    check = Check(name="kernels (Triton, with a C compiler)", verdict="works", found="one two three four five six " * 3)
    assert len(seen(checks_table([check]), width=80).splitlines()) == 2


def test_row_ids_may_hold_brackets(make_demo: MakeDemo) -> None:
    demo = make_demo(spec={"study": "ids"})
    with demo.store.optuna.engine.begin() as connection:
        left_out = manifest(1, {"empty answer": ["[/img]"]}).to_bytes()
        connection.exec_driver_sql("UPDATE hpsearch_studies SET manifest = ? WHERE name = 'ids'", (left_out,))
    console = plain_console()
    stored = demo.store.studies.find("ids")
    assert stored is not None
    run_verb._introduce(console, demo.store, stored)
    assert "[/img]" in console.file.getvalue()  # type: ignore[attr-defined]
