"""Showing a comparison of runs: a table, and sentences below it."""

from __future__ import annotations

from rich.table import Table

from hpsearch.evaluation import Comparison, Gap, alike
from hpsearch.spec.training import BudgetSpec
from hpsearch.watch.evaluation import (
    format_alike,
    format_around,
    format_basis,
    format_difference,
    format_gap,
    format_score,
    format_verdict,
)
from hpsearch.watch.words import format_epochs, format_num_steps


def comparison_table(comparison: Comparison) -> Table:
    first = comparison.runs[0].name
    table = Table(box=None, header_style="bold")
    for heading in ("", "run", "value", f"against {first}", ""):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for metric, *_ in alike(comparison.metrics, comparison.runs):
        for run in comparison.runs:
            score = run.scores.get(metric.name)
            name = metric.title if run.name == first else ""
            table.add_row(
                name, run.name, format_score(metric, score), *_format_against(comparison.gap(run.name, metric))
            )
    return table


def _format_against(gap: Gap | None) -> tuple[str, str]:
    if gap is None:
        return "", ""
    points = f"{format_difference(gap.metric, gap.difference)}\n{format_around(gap)}".rstrip()
    return points, f"{format_verdict(gap)}\np = {gap.p_value:.2g}"


def comparison_words(comparison: Comparison) -> str:
    """The first metric as a sentence, possible leaks, and what the tests can show."""
    models = f"{comparison.variant} models on {comparison.num_rows} test rows"
    lines = [f"{models}, in {comparison.metrics[0].title}:"]
    lines += [f"  {format_gap(gap)}" for gap in comparison.gaps if gap.metric == comparison.metrics[0]]
    lines += [
        f"careful: {run.name} was evaluated on {run.num_rows} rows; {comparison.num_rows} of them are compared here"
        for run in comparison.runs
        if run.num_rows > comparison.num_rows
    ]
    lines += [
        f"careful: {run.leaked} of these {comparison.num_rows} rows were training rows of {run.name}; "
        "it may know their answers by heart"
        for run in comparison.runs
        if run.leaked
    ]
    lengths = {run.name: _length(run.budget) for run in comparison.runs}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        lines.append(f"careful: the runs did not train equally long: {each}; that alone may make a difference")
    lines += format_alike(comparison.metrics, comparison.runs)
    lines += format_basis(comparison.units, comparison.gaps, comparison.runs, "number")
    return "\n".join(lines)


def _length(budget: BudgetSpec) -> str:
    length = format_epochs(budget.epochs) if budget.max_steps is None else format_num_steps(budget.max_steps)
    return length if budget.train_fraction >= 1 else f"{length} on {budget.train_fraction:.0%} of its train split"
