"""Mistakes between the search and other fields: fields that are each valid but don't fit together."""

from __future__ import annotations

from hpsearch.errors import Mistake
from hpsearch.spec.study import StudySpec
from hpsearch.spec.tasks import SECTIONS

_MOST_POINTS = 10_000


def search_mistakes(spec: StudySpec) -> list[Mistake]:
    if spec.search is None:
        return []
    mistakes, task = [], spec.task_facts
    for knob in spec.search.space:
        lacking = [
            words for section, words in SECTIONS.items() if knob.startswith(f"{section}.") and not task.has(section)
        ]
        if lacking:
            mistakes.append(Mistake(f"search.space.{knob}", f"task {spec.task} has no {lacking[0]}"))
        elif knob == "lora.dropout" and not task.has_dropout:
            mistakes.append(Mistake(f"search.space.{knob}", f"task {spec.task} is trained without dropout, as in trl"))
        elif knob == "curriculum.learning_rate_decay" and not may_be_staged(spec):
            message = f"means nothing with curriculum.order: {spec.curriculum.order}, which has one schedule"
            mistakes.append(Mistake(f"search.space.{knob}", message))
    return mistakes


def grid_mistakes(spec: StudySpec) -> list[Mistake]:
    """Optuna builds the whole grid for each trial, and stores each field's values with each trial."""
    if spec.search is None or spec.search.sampler.name != "grid":
        return []
    points = spec.grid_size()
    if points is None:
        return [Mistake("search.sampler", "a grid needs a step, or a list of choices, for every range")]
    if points > _MOST_POINTS:
        size = f"{points:,}" if points < 10**15 else "more than 10^15"
        message = f"the grid has {size} points, at most {_MOST_POINTS:,} are built: take fewer, or sampler: random"
        return [Mistake("search.sampler", message)]
    return []


def objectives_mistakes(spec: StudySpec) -> list[Mistake]:
    """Settings that don't work with several objectives."""
    if spec.search is None or len(spec.objective_names) == 1:
        return []
    mistakes = []
    if spec.search.sampler.name == "cmaes":
        message = "cmaes knows one objective only (Optuna); with several take tpe, gp, random, qmc or grid"
        mistakes.append(Mistake("search.sampler", message))
    if "pruner" in spec.search.model_fields_set and spec.search.pruner.name != "none":
        message = "trials with several objectives can't be pruned (Optuna compares one value): pruner: none"
        mistakes.append(Mistake("search.pruner", message))
    return mistakes


def may_be_staged(spec: StudySpec) -> bool:
    """Whether a run may train on one stage after the other."""
    orders = spec.search.space.get("curriculum.order") if spec.search else None
    return "stages" in (orders if isinstance(orders, list) else [spec.curriculum.order])
