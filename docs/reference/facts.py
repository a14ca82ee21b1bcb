"""Pages of what the code keeps as tables of facts: outcomes and failures, metrics, tasks."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise

from docs.reference.markdown import code, listed, page, prose, table
from hpsearch.errors import EXIT_CODES
from hpsearch.launch.launcher import JobState
from hpsearch.spec import preference
from hpsearch.spec.metrics import ABOUT, METRICS, Metric
from hpsearch.spec.rows import ANYWHERE, FORMATS
from hpsearch.spec.tasks import TASKS
from hpsearch.trial import Outcome
from hpsearch.watch.document import STATES
from hpsearch.worker.failures import FAILURES


def outcomes() -> str:
    about = words_of(Outcome)
    trials = [[code(each.value), prose(about[each.name])] for each in Outcome]
    trials += [
        [code("running"), "A worker runs it."],
        [code("waiting"), "No worker has it. If it has started before, it continues from its checkpoint."],
    ]
    jobs = words_of(JobState)
    return page(
        "Outcomes and failures",
        "## Outcomes of a trial",
        "As `hpsearch status` and the report show them. Optuna's own tools show COMPLETE, PRUNED or FAIL.",
        table(["outcome", "what happened"], trials),
        "## Failures",
        "What happened, what counts as its cause, and what follows. A *strike* is an attempt that trained but made no "
        "progress beyond earlier ones. A trial that is *released* continues with the next worker; a device that is "
        "*set aside* gets no more trials. Running out of memory and a diverging loss are results, not failures.",
        table(["what happened", "cause", "what follows"], ([row.what, row.cause, row.consequence] for row in FAILURES)),
        "A trial whose trainer died on a device is tried there again only after all others: the next trial shows "
        "whose fault it was. `hpsearch retry` runs failed trials again under their own numbers.",
        "## States of a study",
        "The first that applies, as in `hpsearch status --json`.",
        table(["state", "what it means"], ([code(name), prose(text)] for name, text in STATES.items())),
        "## States of a launched job",
        "As its engine reports them, for workers started with `hpsearch launch`.",
        table(["state", "what it means"], ([code(each.value), prose(jobs[each.name])] for each in JobState)),
        "## Exit codes",
        table(["code", "what it means"], ([code(number), prose(text)] for number, text in EXIT_CODES.items())),
    )


def words_of(kind: type) -> dict[str, str]:
    """Name → the text below its assignment in the class."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    found = {}
    for assigned, text in pairwise(body):
        if isinstance(assigned, ast.Assign) and isinstance(text, ast.Expr):
            found[assigned.targets[0].id] = text.value.value  # type: ignore[attr-defined]
    return found


_OVER = {
    "losses": ("Losses", "For every task."),
    "texts": ("Answers as texts", "What the model writes, compared with the reference."),
    "classes": ("Answers as classes", "Each reference is a class, and an answer that is none of them is wrong."),
    "preferences": ("Preferences", "For pairs of answers, or for single answers that are desirable or not."),
}


def metrics() -> str:
    parts = []
    for over, (title, about) in _OVER.items():
        those = [metric for metric in METRICS.values() if metric.over == over]
        fitting = listed(task.name for task in TASKS.values() if task.fits(those[0]))
        rows = [[code(each.name), prose(ABOUT[each.name]), _range(each), _better(each)] for each in those]
        parts += [f"## {title}", about if over == "losses" else f"{about} Tasks: {fitting}."]
        parts.append(table(["name", "what it measures", "range", "better"], rows))
    return page(
        "Metrics",
        "Each may be the `objective` of a search, except those that need another model. `evaluation.metrics` names "
        "those computed on the test rows. Metrics of your own are in a Python file, `evaluation.metrics_file`.",
        *parts,
    )


def _range(metric: Metric) -> str:
    ends = ["" if end is None else f"{end:g}" for end in (metric.low, metric.high)]
    return f"{ends[0]} to {ends[1]}" if all(ends) else f"from {ends[0]}" if ends[0] else "any number"


def _better(metric: Metric) -> str:
    more = ["needs another model"] * metric.needs_model + ["needs pairs"] * metric.needs_pairs
    return "; ".join(["higher" if metric.direction == "maximize" else "lower", *more])


def tasks() -> str:
    images = {"none": "none", "one": "one per row", "several": "any number per row"}
    rows = [
        [
            code(name),
            prose(task.about),
            images[task.images],
            listed(task.row_formats),
            listed(sorted(task.sections)),
            task.loss_unit,
        ]
        for name, task in TASKS.items()
    ]
    formats = [
        [code(name), listed(f.needs), listed(f.may_have), "as they are" if f.is_raw else "chat template"]
        for name, f in FORMATS.items()
    ]
    kinds = [("pairs", preference.PAIR_LOSSES), ("single answers", preference.LABELLED_LOSSES)]
    losses = [[code(name), kind, prose(preference.ABOUT[name])] for kind, names in kinds for name in names]
    return page(
        "Tasks",
        "The `task` of a study says what is learned, from which rows, and which sections its file may have.",
        table(["task", "what is learned", "images", "row formats", "own sections", "loss"], rows),
        "## Row formats",
        "The format of the rows follows from the roles in `data.columns`. Each format may also have "
        f"{listed(sorted(ANYWHERE))}. A `data.prompt` with columns in braces takes the place of the question column.",
        table(["format", "needs", "may have", "texts"], formats),
        "## Losses of preference tasks",
        "`preference.loss`, by TRL's names.",
        table(["loss", "rows", "paper"], losses),
    )
