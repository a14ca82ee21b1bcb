"""What an evaluation found: the table of metrics, the classes, and the words below them."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from hpsearch.scores import Evaluation, Score


def evaluation_table(evaluation: Evaluation) -> Table:
    title = f"{evaluation.num_rows} test rows; below each value its 95 % interval"
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("")
    for cell in evaluation.cells:
        table.add_column(cell.name, justify="right", style="bold" if cell.name.startswith("tuned") else "")
    for metric in evaluation.metrics:
        found = [cell.scores.get(metric) for cell in evaluation.cells]
        if any(found):
            table.add_row(metric.replace("_", " "), *(_told(score) for score in found))
    losses = [cell.loss for cell in evaluation.cells]
    table.add_row("loss (nats per token)", *("" if loss is None else f"{loss:.4f}" for loss in losses))
    return table


def _told(score: Score | None) -> str:
    return "" if score is None else f"{score.value:.1%}\n{100 * score.low:.1f} to {100 * score.high:.1f}"


def class_table(evaluation: Evaluation) -> Table | None:
    """Each class under the tuned model; None where the answers are no classes."""
    cell = evaluation.cells[-1]
    if not cell.classes:
        return None
    table = Table(title=f"classes, {cell.name} model", title_justify="left", box=None, header_style="bold")
    for heading in ("class", "test rows", "accuracy", "precision", "F1"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for of_class in cell.classes:
        rates = (of_class.accuracy, of_class.precision, of_class.f1)
        table.add_row(of_class.label, str(of_class.support), *(f"{rate:.1%}" for rate in rates))
    return table


def evaluation_words(evaluation: Evaluation, folder: Path) -> str:
    """What was gained over the base model and over guessing, what was cut, and where the rows are."""
    metric = evaluation.metrics[0]
    frequent, base, tuned = (evaluation.cell(name).scores[metric].value for name in _compared(evaluation))
    name = metric.replace("_", " ")
    lines = [
        f"On {evaluation.num_rows} test rows that no trial has seen, fine-tuning {_gained(tuned - base)} of {name} "
        f"over the base model, and {_gained(tuned - frequent)} over always giving the most frequent answer."
    ]
    if evaluation.longer_than_limit:
        lines.append(
            f"{evaluation.longer_than_limit} references are longer than the generation limit: "
            "--max-new-tokens raises it."
        )
    cut = {cell.name: cell.num_cut for cell in evaluation.cells if cell.num_cut}
    if cut:
        lines.append("Answers cut at the limit: " + ", ".join(f"{name} {count}" for name, count in cut.items()))
    lines.append(f"Every row with its answer and metrics, and all scores: {folder}")
    return "\n".join(lines)


def _compared(evaluation: Evaluation) -> tuple[str, str, str]:
    """The baseline, and base and tuned model under the first prompt that was tried."""
    names = [cell.name for cell in evaluation.cells]
    base = next(name for name in names if name.startswith("base"))
    return names[0], base, base.replace("base", "tuned", 1)


def _gained(points: float) -> str:
    return f"{'gained' if points >= 0 else 'lost'} {abs(100 * points):.1f} points"
