"""Following a study or a training where there is no terminal, and the words at the end."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from hpsearch.bridge.protocol import Phase, Progress
from hpsearch.search.view import StudyView, TrialView
from hpsearch.spec.metrics import LOSS
from hpsearch.spec.study import StudySpec
from hpsearch.watch.closing import cautions, closing_words, tie_words
from hpsearch.watch.console import open_console
from hpsearch.watch.live import Follower
from hpsearch.watch.tables import study_panel
from hpsearch.watch.training import TrainingDisplay
from tests.unit.view_fixtures import finished, lines_of, plain_console, seen, with_spec
from tests.unit.worker_fixtures import Clock, report, study_spec


def up_to(view: StudyView, num_finished: int) -> StudyView:
    """The view when only so many trials had ended."""
    return replace(view, trials=view.trials[:num_finished], slots=replace(view.slots, finished=num_finished))


def test_each_trial_is_reported_once_when_it_has_ended(view: StudyView) -> None:
    console = plain_console()
    with Follower(console, Clock()) as follower:
        follower.show(up_to(view, 0))
        first = lines_of(console, lambda: follower.show(up_to(view, 1)))
        assert len(first) == 1
        assert first[0].startswith("[1/8] trial 0 complete loss 0.5000 (best so far) in 1 min 05 s, 2.50 GiB | ")
        assert "learning_rate 0.0001, r 16" in first[0]
        assert "; about" in first[0]
        assert lines_of(console, lambda: follower.show(up_to(view, 1))) == []
        more = lines_of(console, lambda: follower.show(up_to(view, 4)))
    told = [line.partition(" in ")[0] for line in more]
    assert told == [
        "[4/8] trial 1 pruned loss 4.0000",
        "[4/8] trial 2 diverged loss nan",
        "[4/8] trial 3 out of memory",
    ]


def test_why_a_trial_ended_early_stands_on_its_line(view: StudyView) -> None:
    console, long = plain_console(), "images/3.png is\ngone " * 20
    trials = [*view.trials[:4], replace(view.trials[4], facts=view.trials[4].facts | {"reason": long})]
    with Follower(console, Clock()) as follower:
        follower.show(up_to(view, 3))
        (line,) = lines_of(console, lambda: follower.show(up_to(view, 4)))
        assert "trial 3 out of memory in 1 min 05 s" in line
        assert ": tried to allocate 9 GiB | learning_rate" in line
        (line,) = lines_of(console, lambda: follower.show(up_to(replace(view, trials=trials), 5)))
    assert ": images/3.png is gone images/3.png" in line
    assert "… | learning_rate" in line
    assert len(line) < 300
    assert "trial 4 failed: Bus error" in seen(study_panel(view))


def test_a_resumed_study_does_not_repeat_its_past(view: StudyView) -> None:
    console = plain_console()
    with Follower(console, Clock()) as follower:
        assert lines_of(console, lambda: follower.show(up_to(view, 2))) == []
        (line,) = lines_of(console, lambda: follower.show(up_to(view, 3)))
    assert "trial 2 diverged" in line


def test_trials_that_run_are_reported_about_every_ten_seconds(view: StudyView) -> None:
    console, clock = plain_console(), Clock()
    with Follower(console, clock) as follower:
        assert lines_of(console, lambda: follower.show(view)) == []
        clock.now += 9.9
        assert lines_of(console, lambda: follower.show(view)) == []
        clock.now += 0.1
        assert lines_of(console, lambda: follower.show(view)) == ["  trial 6: training 3/12, loss 1.4321"]
        clock.now += 20
        assert lines_of(console, lambda: follower.show(view)) == [], "nothing has changed"
        assert lines_of(console, lambda: follower.show(view)) == []


def test_on_a_low_terminal_the_workers_are_shown_also_where_trials_take_several_lines(view: StudyView) -> None:
    params = view.trials[0].params | {"lora.target_modules": ["q_proj", "k_proj", "v_proj"]}
    many = [replace(view.trials[0], number=number, params=params) for number in range(40)]
    console = open_console(file=io.StringIO(), force_terminal=True, width=60, height=24, color_system=None)
    with Follower(console, Clock()) as follower:
        follower.show(replace(view, trials=[*view.trials, *many]))
        shown = console.file.getvalue()  # type: ignore[attr-defined]  # at its end rich shows a whole picture
    assert "gpu-box" in shown
    assert "best 0.5000 (trial 0)" in shown
    assert "3.00 GiB" in shown


def test_on_a_terminal_the_whole_study_is_shown(view: StudyView) -> None:
    console = open_console(file=io.StringIO(), force_terminal=True, width=100, height=12, color_system=None)
    with Follower(console, Clock()) as follower:
        follower.show(view)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "★ 0" in shown
    assert "gpu-box:4242" in shown
    assert "pruned" not in shown, "a low terminal shows the latest trials only"


def test_a_study_that_was_stopped_says_how_it_goes_on(view: StudyView) -> None:
    """Also after a second Ctrl-C, which saves nothing: that nothing is lost would not be true then."""
    assert closing_words(view) == (
        "demo is stopped: 6 of 8 trials are done. The same command continues it, each trial from its last checkpoint."
    )


def test_a_finished_study_says_what_it_found_and_what_comes_next(view: StudyView) -> None:
    words = closing_words(finished(view))
    assert words.startswith("demo is finished: 2 complete, 1 pruned, 1 diverged")
    assert "Best: trial 0, validation loss 0.5000 with training.learning_rate 0.0001, lora.r 16." in words
    assert words.splitlines()[-5:] == [
        "Next:",
        "  hpsearch best demo -o best.yaml   the best parameters, ready for the final training",
        "  hpsearch train best.yaml          the final training, on the whole train split",
        "  hpsearch dashboard                curves, importances, every trial",
        "  hpsearch report demo              everything on one page",
    ]


def test_trials_that_all_have_the_same_value_are_nothing_to_choose_between(view: StudyView) -> None:
    same = [replace(t, value=0.5, values=(0.5,)) if t.outcome == "complete" else t for t in view.trials]
    words = closing_words(finished(replace(view, trials=same)))
    assert "All complete trials have the same validation loss 0.5000: there is nothing to choose between." in words
    assert "Best:" not in words
    assert "hpsearch train" not in words
    assert cautions(replace(view, trials=same)) == [tie_words(replace(view, trials=same))]
    assert tie_words(view) == ""


@pytest.mark.parametrize(
    ("budget", "final", "words"),
    [
        ({"epochs": 8}, {"epochs": 2}, "2 epochs on 100% of the train rows instead of 8 epochs on 100% of the"),
        ({"max_steps": 30}, {"max_steps": 20}, "20 optimizer steps instead of 30 optimizer steps"),
        ({"epochs": 4, "train_fraction": 0.25}, {"epochs": 1}, None),
        ({"max_steps": 30}, {"epochs": 0.5}, None),
    ],
)
def test_a_final_run_that_trains_less_than_a_trial_is_warned_of(
    view: StudyView, budget: dict[str, Any], final: dict[str, Any], words: str | None
) -> None:
    found = cautions(with_spec(view, budget=budget, final=final))
    said = [line for line in found if "trains less than a trial did" in line]
    assert len(said) == (words is not None)
    assert words is None or words in said[0]


def test_the_files_own_values_are_the_bar_to_beat(view: StudyView) -> None:
    def with_defaults(number: int) -> StudyView:
        trials = [replace(t, facts={"defaults": True} | t.facts) if t.number == number else t for t in view.trials]
        return finished(replace(view, trials=trials))

    assert "own values (trial 5) reached 2.0000." in closing_words(with_defaults(5))
    assert "own values" not in closing_words(with_defaults(0)), "they are the best themselves"
    assert "own values" not in closing_words(with_defaults(1)), "a pruned trial has no loss to compare"


def test_a_finished_study_without_a_complete_trial_says_where_to_look(view: StudyView) -> None:
    incomplete = replace(view, trials=[trial for trial in view.trials if trial.outcome != "complete"])
    words = closing_words(finished(incomplete))
    assert words.startswith(
        "demo is finished and no trial is complete (1 pruned, 1 diverged, 1 out of memory, 1 failed)"
    )
    assert "hpsearch report demo tells why each one ended" in words
    assert "Next:" not in words


def test_too_few_trials_for_the_sampler_and_the_pruner_are_cautioned_about(view: StudyView) -> None:
    def words(sampler: dict[str, Any], pruner: dict[str, Any]) -> str:
        search = view.study.spec.searched.model_dump() | {"sampler": sampler, "pruner": pruner}
        return closing_words(with_spec(finished(view), search=search))

    few = words({"name": "tpe"}, {"name": "median", "startup_trials": 6})
    assert (
        "Only 6 trials: the tpe sampler draws its first 10 at random, and the median pruner stops none before 6 are "
        "complete. A few more may change their order (search.trials)."
    ) in few
    search = view.study.spec.searched.model_dump() | {"sampler": {"name": "tpe"}}
    assert cautions(with_spec(view, search=search))[0].startswith("Only 6 trials: "), "one runs, and is not counted"
    assert "Only 6 trials: the tpe sampler draws its first 6 at random. A" in words(
        {"name": "tpe", "startup_trials": 6}, {"name": "median"}
    )
    assert "Only 6" not in words({"name": "tpe", "startup_trials": 5}, {"name": "median"})
    assert "Only 6" not in words({"name": "random"}, {"name": "none"})


def test_a_short_budget_is_cautioned_about(view: StudyView) -> None:
    def words(**final: Any) -> str:
        budget = {"epochs": 1.0, "train_fraction": 0.25}
        return closing_words(with_spec(finished(view), budget=budget, final=final))

    caution = "Careful: a trial ran 1 epoch on 25% of the rows, the final run runs 3 on 100%."
    assert caution in words(epochs=3.0)
    assert "Careful" not in words(epochs=2.0)
    assert "Careful" not in words(epochs=3.0, max_steps=100)
    few_steps = with_spec(finished(view), budget={"max_steps": 20}, final={"epochs": 9.0})
    assert "Careful" not in closing_words(few_steps), "a trial's epochs say nothing where its steps are counted"


def at(view: StudyView, knob: str, parameter: Any, value: Any) -> str:
    """The words about a study over one knob whose best trial has this value."""
    spec = StudySpec.model_validate(study_spec(space={knob: parameter}).model_dump())
    best: TrialView = replace(view.trials[0], params={knob: value})
    edged = replace(view, trials=[best], study=replace(view.study, spec=spec))
    return closing_words(finished(edged))


LOG = {"low": 1e-6, "high": 1e-3, "log": True}


@pytest.mark.parametrize(
    ("knob", "parameter", "value", "is_near"),
    [
        ("training.learning_rate", LOG, 1.1e-6, True),
        ("training.learning_rate", LOG, 9.5e-4, True),
        ("training.learning_rate", LOG, 2e-6, False),
        ("training.learning_rate", LOG, 5e-4, False),
        ("training.weight_decay", {"low": 0.0, "high": 0.1}, 0.099, True),
        ("training.weight_decay", {"low": 0.0, "high": 0.1}, 0.05, False),
        ("training.weight_decay", {"low": 0.0, "high": 0.1}, 0.0, False),  # there is nothing below it
        ("training.warmup_ratio", {"low": 0.02, "high": 0.1}, 0.02, True),
        ("lora.r", {"low": 4, "high": 64}, 4, True),
        ("lora.r", {"low": 4, "high": 64}, 62, False),
        ("lora.r", [8, 16, 32], 32, True),
        ("lora.r", [32, 16, 8], 8, True),
        ("lora.r", [8, 16, 32], 16, False),
        ("lora.r", [4, 64], 4, False),  # two have no middle
        ("training.batch_size", [1, 2, 4], 1, False),
        ("training.lr_scheduler", ["constant", "cosine", "linear"], "constant", False),
    ],
)
def test_a_best_value_at_an_end_of_its_range_is_cautioned_about(
    view: StudyView, knob: str, parameter: Any, value: Any, is_near: bool
) -> None:
    caution = f"The best values lie at an end of the range for {knob}: search a wider one, in a new study (--set study="
    assert (caution in at(view, knob, parameter, value)) is is_near


def test_complete_trials_that_need_too_much_memory_are_said_to_be_so(view: StudyView) -> None:
    infeasible = [replace(trial, is_feasible=False) for trial in view.trials if trial.outcome == "complete"]
    words = closing_words(finished(replace(view, trials=infeasible)))
    assert "no trial is complete" not in words
    assert "memory" in words


def test_a_training_is_told_in_about_twenty_lines() -> None:
    console = plain_console()
    with TrainingDisplay(console, [LOSS]) as display:
        display.tell("reading rows", 0, 0)
        display.watch(Phase(name="loading", done=1, total=2))
        told = lines_of(console, lambda: [display.watch(Progress(step=i, num_steps=1000)) for i in range(1000)])  # type: ignore[arg-type, func-returns-value]
        assert told[:2] == ["training 0/1000", "training 50/1000"]
        assert len(told) == 20
        display.watch(Progress(step=1000, num_steps=1000, loss=0.12345))
        display.watch(report(3, 0.5))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[:2] == ["reading rows", "loading 1/2"]
    assert lines[-2:] == ["training 1000/1000 loss 0.1235", "validation 3/3: loss 0.5000"]
