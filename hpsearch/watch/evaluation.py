"""Showing an evaluation: the table of metrics, the classes, and sentences below them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from hpsearch.evaluation import ABOUT_MOST_FREQUENT, ComparedRun, Evaluation, Gap, Score, Units, VariantScores, alike
from hpsearch.metrics import FEWEST, Interval
from hpsearch.spec.metrics import Metric
from hpsearch.spec.tasks import TASKS
from hpsearch.watch.words import format_metric

WITHOUT_BASE = "The base model was not evaluated, so the gain over it is not known."


def evaluation_table(evaluation: Evaluation, task: str, *, is_narrow: bool = True) -> Table:
    """`is_narrow`: seven variants fit into 80 columns."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("")
    for variant in evaluation.variants:
        heading = variant.name.replace("-", "\n").replace(" ", "\n") if is_narrow else variant.name
        table.add_column(heading, justify="right", style="bold" if variant.name.startswith("tuned") else "")
    for metric, *_ in alike(evaluation.metrics, evaluation.variants):
        found = [variant.scores.get(metric.name) for variant in evaluation.variants]
        if any(found):
            table.add_row(metric.title, *(format_score(metric, score) for score in found))
    losses = [variant.loss for variant in evaluation.variants]
    if any(loss is not None for loss in losses):
        unit = TASKS[task].loss_unit.replace(" per", "\nper" if is_narrow else " per")
        table.add_row(f"loss ({unit})", *("" if loss is None else f"{loss:.4f}" for loss in losses))
    return table


def format_alike(metrics: Sequence[Metric], scored: Sequence[VariantScores] | Sequence[ComparedRun]) -> list[str]:
    """Which metrics are not shown, as another has the same numbers."""
    return [
        f"The same numbers as {first.title}: {', '.join(other.title for other in others)}."
        for first, *others in alike(metrics, scored)
        if others and any(first.name in each.scores for each in scored)
    ]


def format_score(metric: Metric, score: Score | None) -> str:
    """With its interval on the line below."""
    if score is None:
        return ""
    value, around = format_metric(metric, score.value), score.interval
    return f"{value}\n{format_ends(metric, around, '–')}" if around else value


def format_ends(metric: Metric, around: Interval, between: str = " to ") -> str:
    """The ends of an interval, without a % sign for shares."""
    scale, digits = (100, 1) if metric.unit == "share" else (1, 4)
    return f"{scale * around.low:.{digits}f}{between}{scale * around.high:.{digits}f}"


def format_units(units: Units) -> str:
    return f"resampled over {units.text}"


def format_basis(
    units: Units, gaps: Sequence[Gap], scored: Sequence[VariantScores] | Sequence[ComparedRun], below: str = ""
) -> list[str]:
    """What intervals and p-values are based on, or why there are no intervals. `below`: below which numbers of a table
    the intervals are.
    """
    lines = []
    whole = "" if units.name == "rows" else " with all their rows, as rows of a group are not independent"
    if not units.are_enough:
        size = "" if units.num < FEWEST else f" of so unequal size that they count as {units.effective:.1f}"
        lines.append(
            f"No intervals: {units.text}{size} {'is' if units.num == 1 else 'are'} too few; "
            f"an interval from fewer than {FEWEST} can't be trusted."
        )
    elif below:
        lines.append(f"Below each {below}: its 95 % interval, {format_units(units)}{whole}.")
    elif whole:
        lines.append(f"Intervals are {format_units(units)}{whole}.")
    intervals = [gap.interval for gap in gaps]
    intervals += [score.interval for each in scored for score in each.scores.values()]
    if units.are_enough and not all(intervals):
        lines.append(units.all_alike)
    num_tests = max((gap.num_tests for gap in gaps), default=1)
    if num_tests > 1:
        alone = "; intervals are not corrected" if units.are_enough else ""
        lines.append(f"p values are Holm-corrected over {_format_tests(gaps)}{alone}.")
    return lines


def _format_tests(gaps: Sequence[Gap]) -> str:
    """Tests with the same numbers count once."""
    num_tests = max(gap.num_tests for gap in gaps)
    num_metrics, num_pairs = len({gap.metric.name for gap in gaps}), len({(gap.name, gap.than) for gap in gaps})
    if num_tests < num_metrics * num_pairs:
        return f"{num_tests} different tests of {num_metrics * num_pairs}: those with the same numbers count once"
    if num_pairs == 1:
        return f"{num_metrics} metrics"
    if num_metrics == 1:
        return f"{num_pairs} comparisons"
    return f"{num_tests} tests: {num_metrics} metrics, {num_pairs} comparisons"


def format_verdict(gap: Gap) -> str:
    if not gap.shown:
        return "no difference shown"
    return "better" if gap.metric.is_better(gap.difference, 0) else "worse"


def class_table(evaluation: Evaluation) -> Table | None:
    """Per-class scores of the tuned model with the first prompt; None where the answers are not classes."""
    variant = evaluation.tuned
    if not variant.classes:
        return None
    table = Table(title=f"classes, {variant.name} model", title_justify="left", box=None, header_style="bold")
    for heading in ("class", "test rows", "accuracy", "precision", "F1"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for of_class in variant.ordered_classes:
        rates = (of_class.accuracy, of_class.precision, of_class.f1)
        table.add_row(of_class.label, str(of_class.support), *(f"{rate:.1%}" for rate in rates))
    return table


def evaluation_words(evaluation: Evaluation, folder: Path) -> str:
    """The gain over the base model and over guessing, what was truncated, and where the rows are."""
    lines = [f"On {evaluation.num_rows} test rows that no trial has seen, in {evaluation.metrics[0].title}:"]
    lines += [f"  {format_gap(gap)}" for gap in evaluation.gaps]
    lines += [ABOUT_MOST_FREQUENT] if evaluation.guess else []
    lines += format_alike(evaluation.metrics, evaluation.variants)
    lines += format_basis(evaluation.resampled, evaluation.gaps, evaluation.variants, "value")
    lines += evaluation.notes
    lines += [] if evaluation.base else [WITHOUT_BASE]
    if evaluation.longer_than_limit:
        lines.append(
            f"{evaluation.longer_than_limit} references are longer than the generation limit: "
            "--max-new-tokens raises it."
        )
    cut = {variant.name: variant.num_cut for variant in evaluation.variants if variant.num_cut}
    if cut:
        counts = ", ".join(f"{name} {count}" for name, count in cut.items())
        lines.append(f"Answers truncated at evaluation.max_new_tokens: {counts}")
    lines.append(f"Every row with its answer and metrics, and all scores: {folder}")
    return "\n".join(lines)


def format_gap(gap: Gap) -> str:
    """One model against another: which is better and by how much, or that no difference was shown."""
    against = f"{gap.name} against {gap.than}"
    around = f" ({format_around(gap)})" if gap.interval else ""
    points = " points" if gap.metric.unit == "share" else ""
    change = f"{format_difference(gap.metric, gap.difference)}{points}{around}"
    return f"{against}: {format_verdict(gap)}, {change}, p = {gap.p_value:.2g}"


def format_around(gap: Gap) -> str:
    """'' where there is no interval."""
    around = gap.interval
    if around is None:
        return ""
    return f"{format_difference(gap.metric, around.low)} to {format_difference(gap.metric, around.high)}"


def format_difference(metric: Metric, difference: float) -> str:
    """In percentage points where the metric is a share."""
    return f"{100 * difference:+.1f}" if metric.unit == "share" else f"{difference:+.4f}"
