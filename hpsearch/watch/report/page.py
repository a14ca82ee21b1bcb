"""Assembling the page: `story`, `final` and the plots say what is shown, the template how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from hpsearch import __version__
from hpsearch.data.manifest import Manifest
from hpsearch.errors import NothingToDraw
from hpsearch.evaluation import ABOUT_MOST_FREQUENT, Evaluation
from hpsearch.search.importance import Importance
from hpsearch.search.timeline import Timeline
from hpsearch.search.view import StudyView
from hpsearch.trial import best_report
from hpsearch.watch.closing import cautions
from hpsearch.watch.evaluation import WITHOUT_BASE, format_alike, format_basis, format_gap, format_units
from hpsearch.watch.plots import (
    classes_figure,
    configurations_figure,
    confusion_figure,
    importance_figure,
    learning_curves_figure,
    memory_figure,
    time_figure,
    timeline_figure,
    trade_off_figure,
    training_figure,
)
from hpsearch.watch.report import final, story
from hpsearch.watch.report.drawings import Drawings, small_image
from hpsearch.watch.report.final import FinalRun
from hpsearch.watch.words import format_metric, format_time

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW_TRIALS = 20
"""With fewer complete trials than this, importances are only a hint."""


@dataclass(frozen=True)
class Asked:
    """The inputs of a report. `best_yaml` is the study file of the final training; `at` is in seconds since 1970."""

    view: StudyView
    importances: list[Importance]
    timeline: Timeline
    run: FinalRun | None
    best_yaml: str | None
    at: float


@dataclass(frozen=True)
class Picture:
    """A drawing, or why there is none."""

    drawing: Markup
    words: str


@dataclass(frozen=True)
class Card:
    """A headline number."""

    title: str
    value: str
    words: str


def report_page(asked: Asked) -> str:
    """One HTML document that needs no other file."""
    view, run = asked.view, asked.run
    spec, manifest = view.study.spec, Manifest.from_bytes(view.study.manifest)
    return _template().render(
        spec=spec,
        story=story,
        final=final,
        view=view,
        manifest=manifest,
        run=run,
        final_budget=run.config.budget if run else view.study.spec.final,
        evaluation=run.evaluation if run else None,
        cards=[*_study_cards(view), *(_run_cards(run) if run else [])],
        cautions=cautions(view) if view.best else [],
        pictures=_pictures(asked),
        gaps=[format_gap(gap) for gap in run.evaluation.gaps] if run and run.evaluation else [],
        basis=_basis_of_gaps(run.evaluation) if run and run.evaluation else [],
        basis_of_scores=_basis_of_scores,
        about_most_frequent=ABOUT_MOST_FREQUENT,
        without_base=WITHOUT_BASE,
        small_image=small_image,
        format_alike=format_alike,
        best_yaml=asked.best_yaml,
        created=_format_day(view.study.created_at),
        made=_format_day(asked.at),
        trained=format_time(story.seconds_trained(view)),
        version=__version__,
        few_trials=_FEW_TRIALS,
    )


@cache
def _template() -> Template:
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = Markup((folder / "report.css").read_text())
    return environment.get_template("report.html.j2")


def _format_day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _basis_of_gaps(evaluation: Evaluation) -> list[str]:
    return format_basis(evaluation.resampled, evaluation.gaps, [])


def _basis_of_scores(evaluation: Evaluation) -> list[str]:
    return format_basis(evaluation.resampled, [], evaluation.variants, "value")


def _study_cards(view: StudyView) -> list[Card]:
    cards = [Card("trials", f"{view.slots.finished} of {view.slots.wanted}", story.tally(view) or "none has begun")]
    best = view.best
    if best is None:
        return cards
    own = next((trial for trial in view.trials if trial.facts.get("defaults")), None)
    beside = ""
    if own is not None and own.outcome == "complete" and own.number != best.number:
        beside = f"; the study file's own values: {format_metric(view.objective, own.value)}"
    value = format_metric(view.objective, best.value)
    return [*cards, Card(f"best {view.objective.title}", value, f"trial {best.number}{beside}")]


def _run_cards(run: FinalRun) -> list[Card]:
    cards = []
    if run.result.reports:
        objective = run.config.objectives[0]
        best = best_report(run.result.reports, objective)
        value = format_metric(objective, best.value(objective))
        where = f"report {best.step} of {run.config.budget.reports}, whose adapter was kept"
        cards.append(Card(f"final {objective.title}", value, where))
    if run.evaluation is not None and (score := run.evaluation.tuned.scores.get(run.evaluation.metrics[0].name)):
        metric = run.evaluation.metrics[0]
        units = run.evaluation.resampled
        saw = f"{run.evaluation.num_rows} rows that no trial saw"
        if around := score.interval:
            low, high = format_metric(metric, around.low), format_metric(metric, around.high)
            over = "" if units.name == "rows" else f", {format_units(units)}"
            saw = f"95 % interval {low} to {high}{over}; {saw}"
        elif units.are_enough:
            saw = f"no interval, as all {units.text} score the same; {saw}"
        cards.append(Card(f"{metric.title} on the test rows", format_metric(metric, score.value), saw))
    return cards


def _pictures(asked: Asked) -> dict[str, Picture]:
    view, run = asked.view, asked.run
    drawings = Drawings()

    def drawn(draw: Callable[[], Figure], words: str) -> Picture:
        try:
            return Picture(drawings.inline(draw(), words), words)
        except NothingToDraw as nothing:
            words = str(nothing)
            return Picture(Markup(), f"{words[:1].upper()}{words[1:]}.")

    pictures = {
        f"curves-{objective.name}": drawn(
            lambda objective=objective: learning_curves_figure(view, objective),  # type: ignore[misc]
            f"{objective.title} of each trial over its reports",
        )
        for objective in view.study.spec.objectives
    }
    pictures["importance"] = drawn(
        lambda: importance_figure(view.study.name, asked.importances),
        "parameter importances",
    )
    pictures["memory"] = drawn(lambda: memory_figure(view), "the most memory that each trial took")
    pictures["time"] = drawn(lambda: time_figure(view), "the time that each trial took")
    pictures["timeline"] = drawn(
        lambda: timeline_figure(view.study.name, asked.timeline), "what each device did when, a bar for each attempt"
    )
    if len(view.study.spec.objectives) > 1:
        pictures["trade-off"] = drawn(lambda: trade_off_figure(view), "the trials by their first two objectives")
    if run is None:
        return pictures
    pictures["final"] = drawn(
        lambda: training_figure(run.config, run.history, run.result), "losses and learning rate of the final run"
    )
    if evaluation := run.evaluation:
        pictures["scores"] = drawn(lambda: configurations_figure(evaluation), "every configuration's scores")
        if evaluation.tuned.classes:
            pictures["classes"] = drawn(lambda: classes_figure(evaluation), "accuracy within each class")
            pictures["confusion"] = drawn(lambda: confusion_figure(evaluation.tuned), "confusion matrix")
    return pictures
