"""What `hpsearch run` prints at its end: the result, warnings, and what to do next."""

from __future__ import annotations

from collections import Counter

from hpsearch.search.view import StudyView
from hpsearch.spec.training import BudgetSpec
from hpsearch.watch.words import (
    format_epochs,
    format_metric,
    format_steps,
    format_time,
    format_trials,
    format_value,
)

_FEWEST_IN_ORDER = 3
"""Listed numbers that have a middle. Below 0 and 1, as in `[0, 0.1, 0.2]` and `[1, 2, 4]`, there usually is nothing."""
_SHORT = 2.0
"""A final run with more than this many times a trial's epochs gets a warning."""


def closing_words(view: StudyView, line_width: int | None = None) -> str:
    name = view.study.name
    counts = Counter(trial.outcome for trial in view.trials if trial.is_finished)
    tally = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    if not view.is_finished:
        done = done_words(view)
        if limit := view.reached_limit:
            used = format_usage(view)
            spent = f"{done}, {used}" if used else done
            return f"{name} has reached its limit: {limit}. {spent}. The same command continues it with a higher limit."
        return f"{name} is stopped: {done}. The same command continues it, each trial from its last checkpoint."
    if view.best is None and "complete" in counts:
        return (
            f"{name} is finished ({tally}), but every complete trial needs more memory than budget.memory_gib allows "
            f"({view.study.spec.budget.memory_gib} GiB). hpsearch status shows the memory of each; "
            f"hpsearch best {name} --trial N uses one anyway."
        )
    if view.best is None:
        return (
            f"{name} is finished and no trial is complete ({tally}). "
            f"hpsearch report {name} tells why each one ended; hpsearch logs {name} N shows what trial N said."
        )
    if tie := tie_words(view):
        return "\n".join([f"{name} is finished: {tally}.", tie, *_next_steps(view, line_width)])
    return "\n".join([_found(view, tally), *cautions(view), *_next_steps(view, line_width)])


def done_words(view: StudyView) -> str:
    return f"{view.slots.finished} of {view.slots.wanted} trials are done"


def open_words(view: StudyView) -> str:
    """'' where all trials are done: the best so far may change until then."""
    return "" if view.is_finished else f"{done_words(view)}; the best may change"


def tie_words(view: StudyView) -> str:
    """'' where the trials differ."""
    if view.best is None or not view.is_a_tie:
        return ""
    value = f"{view.objective.title} {format_metric(view.objective, view.best.value)}"
    return (
        f"All complete trials have the same {value}: there is nothing to choose between. More steps for each trial, or "
        "the objective loss, may tell them apart."
    )


def format_usage(view: StudyView) -> str:
    """What the study has used of its limits; '' without limits."""
    limits, usage = view.study.spec.searched.limits, view.usage
    parts = []
    for used, limit, unit in (
        (usage.hours, limits.hours, "h"),
        (usage.device_hours, limits.device_hours, "device-hours"),
    ):
        if limit is not None:
            parts.append(f"{format_time(3600 * used)} of {limit:g} {unit} used")
    cost = usage.cost(limits)
    if cost is not None and limits.cost is not None:
        parts.append(f"{cost:.2f} of {limits.cost:g} (cost) used")
    if limits.until is not None:
        parts.append(f"until {limits.until:%Y-%m-%d %H:%M}")
    return "; ".join(parts)


def _found(view: StudyView, tally: str) -> str:
    best = view.best
    assert best is not None
    values = ", ".join(f"{knob} {format_value(value)}" for knob, value in best.params.items())
    found = f"{view.study.name} is finished: {tally}.\n"
    value = f"{view.objective.title} {format_metric(view.objective, best.value)}"
    found += f"Best: trial {best.number}, {value} with {values}."
    defaults = next((trial for trial in view.trials if trial.facts.get("defaults")), None)
    if defaults is not None and defaults.outcome == "complete" and defaults.number != best.number:
        came_to = format_metric(view.objective, defaults.value)
        found += f"\nThe study file's own values (trial {defaults.number}) reached {came_to}."
    return found


def cautions(view: StudyView) -> list[str]:
    if tie := tie_words(view):
        return [tie]
    spec = view.study.spec
    words = _few_trials(view)
    is_by_epochs = spec.final.max_steps is None and spec.budget.max_steps is None
    if _is_shorter(spec.final, spec.budget):
        words.append(
            f"Careful: the final run trains less than a trial did, {spec.final.in_words()} instead of "
            f"{spec.budget.in_words()}: its model may be worse than the best trial's. Raise its budget (final)."
        )
    if is_by_epochs and spec.final.epochs > _SHORT * spec.budget.epochs:
        words.append(
            f"Careful: a trial ran {format_epochs(spec.budget.epochs)} on {spec.budget.train_fraction:.0%} of the "
            f"rows, the final run runs {spec.final.epochs:g} on {spec.final.train_fraction:.0%}. A short budget "
            "favours fast starters: if the final run overfits, search again with more epochs on fewer rows."
        )
    low_high = [_at_edge(view, knob) for knob in spec.searched.space]
    edges = [edge for edge in low_high if edge]
    if edges:
        words.append(
            f"The best values lie at an end of the range for {', '.join(edges)}: search a wider one, in a new study "
            f"(--set study={view.study.name}-2)."
        )
    return words


def _is_shorter(final: BudgetSpec, budget: BudgetSpec) -> bool:
    if final.max_steps is not None and budget.max_steps is not None:
        return final.max_steps < budget.max_steps
    is_by_epochs = final.max_steps is None and budget.max_steps is None
    return is_by_epochs and final.epochs * final.train_fraction < budget.epochs * budget.train_fraction


def _few_trials(view: StudyView) -> list[str]:
    """Where the search had no chance to learn: neither the sampler nor the pruner makes use of its first trials."""
    sampler, pruner = view.study.spec.searched.sampler, view.study.spec.searched.pruner
    number = sum(trial.is_finished for trial in view.trials)
    first, before = getattr(sampler, "startup_trials", 0), getattr(pruner, "startup_trials", 0)
    causes = [f"the {sampler.name} sampler draws its first {first} at random"] if number <= first else []
    causes += [f"the {pruner.name} pruner stops none before {before} are complete"] if number <= before else []
    if not causes:
        return []
    return [
        f"Only {format_trials(number)}: {', and '.join(causes)}. A few more may change their order (search.trials)."
    ]


def _at_edge(view: StudyView, knob: str) -> str | None:
    parameter = view.study.spec.searched.space[knob]
    assert view.best is not None
    value = view.best.params.get(knob)
    if not isinstance(value, int | float):
        return None
    if isinstance(parameter, list):
        numbers = [each for each in parameter if isinstance(each, int | float)]
        near = _FEWEST_IN_ORDER <= len(numbers) == len(parameter) and value in (min(numbers), max(numbers))
        near = near and not (value == min(numbers) and value in (0, 1))
    elif parameter.log:
        share = value / parameter.low if value < (parameter.low * parameter.high) ** 0.5 else parameter.high / value
        near = share < (parameter.high / parameter.low) ** 0.03
    else:
        margin = 0.03 * (parameter.high - parameter.low)
        near = value - parameter.low < margin or parameter.high - value < margin
        near = near and value != 0
    return knob if near else None


def _next_steps(view: StudyView, line_width: int | None) -> list[str]:
    name = view.study.name
    final = {
        f"hpsearch best {name} -o best.yaml": "the best parameters, ready for the final training",
        "hpsearch train best.yaml": "the final training, on the whole train split",
    }
    steps = ({} if view.is_a_tie else final) | {
        "hpsearch dashboard": "curves, importances, every trial",
        f"hpsearch report {name}": "everything on one page",
    }
    return [format_steps(steps, line_width)]
