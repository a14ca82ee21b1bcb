"""Figures: what is drawn where, what is said instead, and that drawing leaves nothing behind."""

from __future__ import annotations

import math

import optuna
import pytest
from matplotlib.container import ErrorbarContainer

from hpsearch.errors import NothingToDraw
from hpsearch.evaluation import Score, Units, VariantScores
from hpsearch.metrics import class_scores, confusion
from hpsearch.search.importance import Importance, importances
from hpsearch.spec.metrics import LOSS, METRICS
from hpsearch.trial import HistoryPoint, Outcome, Report
from hpsearch.watch.plots import (
    classes_figure,
    configurations_figure,
    confusion_figure,
    importance_figure,
    training_figure,
)
from hpsearch.watch.plots.classes import MOST_CLASSES
from hpsearch.watch.plots.style import axis_title
from tests.unit.picture_fixtures import config, evaluation, history, legend, result, training, without_base, words_of
from tests.unit.worker_fixtures import Demo, plays


def test_a_loss_of_preferences_is_not_always_in_nats() -> None:
    titles = [axis_title(LOSS, task) for task in ("text-sft", "vlm-classify", "text-preference", "vlm-preference")]
    assert [title.partition("(")[2] for title in titles] == ["nats per token)", "nats per row)", *["per row)"] * 2]


def test_a_runs_losses_are_drawn_at_their_optimizer_steps() -> None:
    figure = training_figure(config(), history(8), result(3.0, 2.0, 1.0, 1.5, num_steps=8))
    losses, rates = figure.axes
    trained, validated, star = losses.lines
    assert list(trained.get_xdata()) == list(range(1, 9))
    assert list(validated.get_xdata()) == [2, 4, 6, 8]
    assert list(validated.get_ydata()) == [3.0, 2.0, 1.0, 1.5]
    assert (list(star.get_xdata()), words_of(losses)) == ([6], ["1.0000"])
    assert losses.get_ylabel() == "loss (nats per token)"
    assert losses.get_title(loc="left") == "demo final: complete"
    assert list(rates.lines[0].get_ydata()) == [1e-3 / step for step in range(1, 9)]
    assert (rates.get_ylabel(), rates.get_xlabel()) == ("learning rate", "optimizer step")


def test_the_reports_of_a_pruned_run_lie_where_they_were_made() -> None:
    pruned = result(3.0, 2.0, num_steps=10, outcome=Outcome.PRUNED)
    assert list(training_figure(config(), history(10), pruned).axes[0].lines[1].get_xdata()) == [5, 10]


def test_a_long_run_shows_its_running_mean_and_no_spike_presses_it_flat() -> None:
    spiked = [replace_loss(point, 500.0) if point.step == 40 else point for point in history(100)]
    figure = training_figure(config(), spiked, result(0.5, num_steps=100))
    losses = figure.axes[0]
    assert legend(losses)[0] == "training, mean of 5 steps; single ones up to 500.0000"
    assert losses.get_ylim()[1] < 200
    lower = training_figure(config(), history(100), result(0.001, num_steps=100)).axes[0]
    assert lower.get_ylim()[0] < 0.001, "no validation is cut off"


def replace_loss(point: HistoryPoint, loss: float) -> HistoryPoint:
    return point.model_copy(update={"loss": loss})


def test_where_a_loss_was_no_number_is_marked() -> None:
    broken = [replace_loss(point, math.nan) if point.step == 4 else point for point in history(4)]
    diverged = result(3.0, math.nan, num_steps=4, outcome=Outcome.DIVERGED)
    losses = training_figure(config(), broken, diverged).axes[0]
    assert "NaN or infinite from step 4" in legend(losses)
    assert list(losses.lines[1].get_ydata()) == [3.0]


def test_each_further_objective_has_a_panel_of_its_own() -> None:
    reports = [
        Report(step=1, loss=1.0, metrics={"macro_f1": 0.25}),
        Report(step=4, loss=0.5, metrics={"macro_f1": 0.5}),
    ]
    ended = result(num_steps=8).model_copy(update={"reports": reports})
    figure = training_figure(config(task="vlm-classify", objectives=["macro_f1", "loss"]), history(8), ended)
    losses, scores, _ = figure.axes
    assert (losses.get_ylabel(), scores.get_ylabel()) == ("loss (nats per row)", "macro f1")
    assert list(scores.lines[0].get_ydata()) == [0.25, 0.5]
    assert words_of(scores) == ["50.0%"]


def test_a_run_that_never_trained_has_words_instead() -> None:
    failed = result(outcome=Outcome.FAILED, reason="Bus error")
    with pytest.raises(NothingToDraw, match="ended before its first step: Bus error"):
        training_figure(config(), [], failed)


def test_importance_has_a_panel_for_each_objective() -> None:
    found = [
        Importance(LOSS, 7, {"training.learning_rate": 0.9, "lora.r": 0.1}),
        Importance(METRICS["accuracy"], 7, {"lora.r": 0.8, "training.learning_rate": 0.2}),
    ]
    first, second = importance_figure("demo", found).axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["training.learning_rate", "lora.r"]
    assert [bar.get_width() for bar in second.patches] == [0.2, 0.8]
    assert second.get_xlabel() == "share of the variance\nof accuracy"
    assert first.get_title(loc="left") == "demo: parameter importances (fANOVA), from 7 complete trials"
    with pytest.raises(NothingToDraw, match="two complete trials"):
        importance_figure("demo", [])


def test_importance_is_what_the_trials_say(demo: Demo) -> None:
    stored = demo.view.study
    study = optuna.load_study(study_name="demo", storage=demo.store.optuna)
    assert importances(demo.store, stored) == []
    space = {
        "training.learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
        "lora.r": optuna.distributions.CategoricalDistribution([8, 16]),
    }
    for position in range(12):
        params = {"training.learning_rate": 1e-5 * 1.5**position, "lora.r": (8, 16)[position % 2]}
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=float(position)))
        if position < 2:
            assert len(importances(demo.store, stored)) == position
    (found,) = importances(demo.store, stored)
    assert (found.objective, found.num_trials) == (LOSS, 12)
    assert list(found.shares) == ["training.learning_rate", "lora.r"]
    assert found.shares["training.learning_rate"] > 0.8
    assert math.isclose(sum(found.shares.values()), 1)


def test_trials_with_the_same_value_have_no_importance(demo: Demo) -> None:
    demo.run(plays(training(0.5)))
    assert importances(demo.store, demo.view.study) == []


def test_every_configuration_is_a_bar_with_its_interval_beside_what_guessing_gives() -> None:
    alike = evaluation(("accuracy", "macro_f1"))
    (one,) = [axes for axes in configurations_figure(alike).axes if axes.get_visible()]
    assert one.get_title(loc="left") == "accuracy\nand 1 just the same"
    other = {"macro_f1": Score(value=0.5)}
    variants = [one.model_copy(update={"scores": one.scores | other}) for one in alike.variants]
    figure = configurations_figure(alike.model_copy(update={"variants": variants}))
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["accuracy", "macro f1"]
    heights = [
        round(bar.get_height(), 2) for container in panels[0].containers for bar in getattr(container, "patches", ())
    ]
    assert heights == [0.1, 0.3, 0.9, 1.0]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["no prompt", "static"]
    (guess,) = [line for line in panels[0].lines if line.get_label() == "most frequent answer"]
    assert list(guess.get_ydata()) == [0.6, 0.6]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "most frequent answer",
        "base model",
        "tuned model",
    ]


def test_where_units_are_too_few_bars_have_no_intervals() -> None:
    whole = evaluation()
    assert configurations_figure(whole).get_suptitle() == "10 test rows, with 95 % intervals resampled over 10 images"
    score = Score(value=0.5)
    cells = [cell.model_copy(update={"scores": {"accuracy": score}}) for cell in whole.variants]
    few = whole.model_copy(update={"variants": cells, "units": Units(name="images", num=4, effective=4)})
    figure = configurations_figure(few)
    assert figure.get_suptitle() == "10 test rows"
    assert not any(isinstance(container, ErrorbarContainer) for container in figure.axes[0].containers)
    perfect = whole.tuned.model_copy(update={"scores": {"accuracy": score}})
    (axes,) = configurations_figure(whole.model_copy(update={"variants": [whole.models[0], perfect]})).axes
    drawn = [one.lines[2][0].get_segments() for one in axes.containers if isinstance(one, ErrorbarContainer)]
    assert [[len(line) for line in lines] for lines in drawn] == [[2], [0]], "a bar without one among bars with one"


def test_the_confusion_counts_rows_and_leaves_out_a_column_of_nothing() -> None:
    (axes,) = confusion_figure(evaluation().tuned).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert words_of(axes) == ["6\n100%", "1\n25%", "3\n75%"]
    (base,) = confusion_figure(evaluation().variant("base")).axes
    assert [label.get_text() for label in base.get_xticklabels()] == ["cat", "dog", "other"]
    with pytest.raises(NothingToDraw, match="not classes"):
        confusion_figure(evaluation(has_classes=False).tuned)


def test_of_many_classes_the_largest_are_drawn_and_no_row_is_lost() -> None:
    labels = [f"class {number:02d}" for number in range(MOST_CLASSES + 5) for _ in range(2 if number else 9)]
    said = [*labels[1:], "nothing of the kind"]
    cell = VariantScores(name="tuned", scores={}, classes=class_scores(labels, said), confusion=confusion(labels, said))
    (axes,) = confusion_figure(cell).axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert (len(shown), shown[0]) == (MOST_CLASSES, "class 00")
    assert shown == sorted(shown)
    assert [label.get_text() for label in axes.get_xticklabels()][-1] == "another class"
    assert sum(int(words) for words in words_of(axes)) == 9 + 2 * (MOST_CLASSES - 1)
    assert "the 20 largest of 25 classes" in axes.get_title(loc="left")


def test_classes_that_are_numbers_are_drawn_in_their_order() -> None:
    labels, said = ["10", "10", "10", "2", "2", "1"], ["10", "10", "2", "2", "1", "what"]
    cell = VariantScores(name="tuned", scores={}, classes=class_scores(labels, said), confusion=confusion(labels, said))
    (axes,) = confusion_figure(cell).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "10", "other"]
    assert words_of(axes) == ["1\n100%", "1\n50%", "1\n50%", "1\n33%", "2\n67%"]
    (axes,) = classes_figure(evaluation().model_copy(update={"variants": [cell]})).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 (1)", "2 (2)", "10 (3)"]


def test_each_class_stands_with_its_support_and_both_models() -> None:
    figure = classes_figure(evaluation())
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat (6)", "dog (4)"]
    assert [round(bar.get_width(), 2) for bar in axes.patches] == [1.0, 0.75, 0.0, 0.25]
    with pytest.raises(NothingToDraw, match="not classes"):
        classes_figure(evaluation(has_classes=False))


def test_a_base_that_was_not_asked_has_no_bars() -> None:
    alone = without_base(evaluation())
    configurations, classes = configurations_figure(alone), classes_figure(alone)
    for figure, names in ((configurations, ["most frequent answer", "tuned model"]), (classes, ["tuned model"])):
        assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    assert [round(bar.get_width(), 2) for bar in classes.axes[0].patches] == [1.0, 0.75]
