"""Mistakes between the fields of a study file: fields that are each valid but don't fit together."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hpsearch.errors import Mistake
from hpsearch.spec.cross_preference import preference_mistakes
from hpsearch.spec.cross_search import grid_mistakes, may_be_staged, objectives_mistakes, search_mistakes
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import DataSpec, SplitByColumn
from hpsearch.spec.metrics import LOSS, METRICS
from hpsearch.spec.model import HeadSpec
from hpsearch.spec.own_metrics import own_metrics
from hpsearch.spec.rows import ANYWHERE, FORMATS, FormatFacts
from hpsearch.spec.study import StudySpec
from hpsearch.spec.tasks import TaskFacts, find_task


def _column_mistakes(spec: StudySpec) -> list[Mistake]:
    task, data, columns = spec.task_facts, spec.data, spec.data.columns
    expected = columns.row_format if columns.row_format in task.row_formats else task.row_formats[0]
    row_format, given = FORMATS[expected], columns.named().keys()
    extra = given - ANYWHERE - {*row_format.needs, *row_format.may_have}
    return [
        *_columns_used_twice(columns.named(), row_format),
        *(
            Mistake(f"data.columns.{role}", f"is missing: task {task.name} takes {expected} rows")
            for role in row_format.needs
            if role not in given and not (role == row_format.asks and data.template.columns)
        ),
        *(Mistake(f"data.columns.{role}", f"does not go together with {expected} rows") for role in sorted(extra)),
    ]


def _columns_used_twice(named: dict[str, str], row_format: FormatFacts) -> list[Mistake]:
    first: dict[str, str] = {}
    roles = dict.fromkeys([*filter(None, [row_format.asks]), *row_format.needs])
    used = [role for role in roles if role in named and first.setdefault(named[role], role) != role]
    return [Mistake(f"data.columns.{role}", f"is the same column as {first[named[role]]}") for role in used]


def _question_mistakes(spec: StudySpec) -> list[Mistake]:
    task, data = spec.task_facts, spec.data
    name = data.columns.row_format
    row_format, mistakes = FORMATS[name], []
    if data.template.columns and row_format.asks is None:
        mistakes.append(
            Mistake("data.prompt", f"{name} rows contain the whole text: a prompt over columns can't be used")
        )
    elif data.template.columns and row_format.asks in data.columns.named():
        column = data.columns.named()[row_format.asks]
        message = f"has no place: data.prompt asks over several columns already; write {{{column}}} in it"
        mistakes.append(Mistake(f"data.columns.{row_format.asks}", message))
    elif shown := next((name for name in data.template.columns if name.partition(".")[0] in _learned(data)), None):
        role = _learned(data)[shown.partition(".")[0]]
        mistakes.append(
            Mistake("data.prompt", f"{{{shown}}} is data.columns.{role}: the question would reveal the answer")
        )
    elif _may_ask_nothing(task, data) and row_format.asks not in data.columns.named():
        message = "is missing: without it, or a data.prompt over columns, every row asks the same"
        mistakes.append(Mistake(f"data.columns.{row_format.asks}", message))
    if data.answers and row_format.answers is None:
        mistakes.append(Mistake("data.answers", f"{name} rows have no answer column" + _labels_hint(data)))
    if data.examples and (task.has_images or task.learns != "text" or not row_format.has_answers):
        why = "looks at images, which they don't have" if task.has_images else f"has none to show for {name} rows"
        mistakes.append(
            Mistake("data.examples", f"examples are questions and answers in words: task {task.name} {why}")
        )
    return mistakes


def _learned(data: DataSpec) -> dict[str, str]:
    """Column → its role, for the columns that hold the answer."""
    row_format = FORMATS[data.columns.row_format]
    roles = {*row_format.needs} - {row_format.asks}
    return {column: role for role, column in data.columns.named().items() if role in roles}


def _may_ask_nothing(task: TaskFacts, data: DataSpec) -> bool:
    """Whether its format has no question; preference rows may be conversations that include their question."""
    row_format = FORMATS[data.columns.row_format]
    if task.has_images or data.template.columns or row_format.is_judged:
        return False
    return row_format.asks in row_format.may_have


def _labels_hint(data: DataSpec) -> str:
    return "; other names for labels are data.labels" if data.columns.label else ""


def _image_mistakes(spec: StudySpec) -> list[Mistake]:
    task, columns = spec.task_facts, spec.data.columns
    if task.has_images == bool(columns.image):
        return []
    if task.has_images:
        return [Mistake("data.columns.image", f"is missing: task {task.name} needs an image column")]
    other = find_task(task.learns, has_images=True, sections=task.sections)
    hint = f"; did you mean task: {other}?" if other else ""
    return [Mistake("data.columns.image", f"task {task.name} takes no images{hint}")]


def _adapter_mistakes(spec: StudySpec) -> list[Mistake]:
    """Whether the file's own `lora` fits the adapter is checked once the adapter is available: see `study.adapter`."""
    model, space = spec.model, spec.search.space if spec.search else {}
    if model.adapter is None:
        extra = [name for name in ("adapter_revision", "adapter_sha256") if getattr(model, name) is not None]
        return [Mistake(f"model.{name}", "has no effect without model.adapter") for name in extra]
    mistakes = [
        Mistake(f"search.space.{knob}", "is fixed by the adapter: training continues from model.adapter unchanged")
        for knob in space
        if knob.startswith("lora.") and knob != "lora.dropout"
    ]
    if "model.base" in space:
        mistakes.append(Mistake("search.space.model.base", "model.adapter belongs to one base"))
    return mistakes


def _class_mistakes(spec: StudySpec) -> list[Mistake]:
    data, task = spec.data, spec.task_facts
    mistakes = []
    for key, is_given in (("data.balance", data.balance is not None), ("data.labels", bool(data.labels))):
        if is_given and data.columns.label is None:
            mistakes.append(Mistake(key, "needs data.columns.label: it is about the labels there"))
    if not task.has_prompts and spec.evaluation.prompts.names() != ["none"]:
        mistakes.append(Mistake("evaluation.prompts", f"task {task.name} takes none: its head is trained without"))
    if not FORMATS[data.columns.row_format].has_answers and spec.evaluation.prompts.names() != ["none"]:
        message = f"{data.columns.row_format} rows ask nothing: there is nothing to put a prompt before"
        mistakes.append(Mistake("evaluation.prompts", message))
    if not task.has("head") and spec.head != HeadSpec():
        mistakes.append(Mistake("head", f"task {task.name} has no classification head"))
    return mistakes


def _curriculum_mistakes(spec: StudySpec) -> list[Mistake]:
    stages, task = spec.curriculum.stages, spec.task_facts
    if not task.has("curriculum"):
        other = find_task("text", has_images=task.has_images, sections=frozenset({"curriculum"}))
        message = f"task {spec.task} has no stages; did you mean task: {other}?"
        key = "curriculum.stages" if stages else "curriculum"
        return [Mistake(key, message)] if spec.curriculum != CurriculumSpec() else []
    mistakes = []
    if not stages:
        mistakes.append(Mistake("curriculum.stages", f"is missing: task {spec.task} learns in stages"))
    if spec.data.columns.stage is None:
        mistakes.append(Mistake("data.columns.stage", "is missing: it says which stage a row belongs to"))
    seen: dict[str, str] = {}
    names = [stage.name for stage in stages]
    for position, stage in enumerate(stages):
        if stage.name in names[:position]:
            mistakes.append(Mistake(f"curriculum.stages.{position}", f"there is a stage {stage.name!r} already"))
            continue
        for value in stage.values or [stage.name]:
            if value in seen:
                message = f"{value!r} belongs to stage {seen[value]!r} already"
                mistakes.append(Mistake(f"curriculum.stages.{position}", message))
            seen.setdefault(value, stage.name)
    for section, budget in (("budget", spec.budget), ("final", spec.final)):
        if may_be_staged(spec) and budget.max_steps is not None and budget.max_steps < len(stages):
            message = f"leaves a stage without a step: there are {len(stages)} stages"
            mistakes.append(Mistake(f"{section}.max_steps", message))
    return mistakes


def _split_mistakes(spec: StudySpec) -> list[Mistake]:
    split, data = spec.data.split, spec.data
    mistakes: list[Mistake] = []
    if data.group_duplicates and data.columns.image is None:
        mistakes.append(Mistake("data.group_duplicates", "is about images, and there is no data.columns.image"))
    if not isinstance(split, SplitByColumn):
        return mistakes
    if data.held_out:
        mistakes.append(Mistake("data.held_out", "goes with a split by fractions, not with a split column"))
    shares = [share for share in (split.validation, split.test) if isinstance(share, float)]
    if sum(shares) >= 1:
        mistakes.append(Mistake("data.split", "validation and test leave no rows for train"))
    return mistakes


def _metrics_file_mistakes(spec: StudySpec) -> list[Mistake]:
    where, text = spec.evaluation.metrics_file or "its text", spec.evaluation.metrics_text
    if text is None:
        return []
    key, found, row_format = "evaluation.metrics_file", own_metrics(text), spec.data.columns.row_format
    if not FORMATS[row_format].has_answers:
        return [Mistake(key, f"its metrics compare answers, and {row_format} rows have none")]
    if found.metrics and not any(map(spec.task_facts.fits, found.metrics.values())):
        return [Mistake(key, f"its metrics compare answers, and task {spec.task} is not judged by them")]
    return [Mistake(key, f"{where} {mistake}") for mistake in found.mistakes]


def metric_mistakes(spec: StudySpec) -> list[Mistake]:
    wrong, evaluation = _metrics_file_mistakes(spec), spec.evaluation
    if wrong or (evaluation.metrics_file and evaluation.metrics_text is None):  # which is reported already
        return wrong
    wanted = [("objective", name) for name in spec.objective_names]
    wanted += [("evaluation.metrics", name) for name in spec.evaluation.metrics or []]
    mistakes = [Mistake(key, why) for key, name in wanted if (why := _why_not_measured(spec, key, name))]
    for name in evaluation.metrics or []:
        if name in METRICS and METRICS[name].needs_model and not evaluation.bertscore_model:
            mistakes.append(Mistake("evaluation.bertscore_model", f"is missing: the metric {name} needs it"))
    if len(set(spec.objective_names)) < len(spec.objective_names):
        mistakes.append(Mistake("objective", "names an objective twice"))
    return mistakes


def _why_not_measured(spec: StudySpec, key: str, name: str) -> str | None:
    try:
        metric = spec.metric(name)
    except ValueError as error:
        return str(error)
    task = spec.task_facts
    if not task.fits(metric):
        there = ", ".join(other.name for other in spec.fitting_metrics())
        return f"{name} does not fit task {task.name}; it has: {there}"
    row_format = spec.data.columns.row_format
    if metric.over != "losses" and not FORMATS[row_format].has_answers:
        return f"{name} compares answers, and {row_format} rows have none; they have the loss"
    if metric.needs_pairs and not FORMATS[row_format].has_pairs:
        return f"{name} needs rows with a chosen and a rejected answer; these have one answer each"
    if key != "objective" and metric == LOSS:
        return f"{name} is told with every evaluation: name it in the objective only"
    if key == "objective" and metric.needs_model:
        return f"{name} is for evaluations: at every report it would take too long"
    return None


_CHECKS: tuple[tuple[Callable[[StudySpec], list[Mistake]], str], ...] = (
    (_column_mistakes, "task data.columns data.prompt"),
    (_question_mistakes, "task data.columns data.prompt data.answers data.examples"),
    (_image_mistakes, "task data.columns"),
    (_adapter_mistakes, "model search.space"),
    (_curriculum_mistakes, "task curriculum data.columns search.space budget.max_steps final.max_steps"),
    (_class_mistakes, "task data.balance data.labels data.columns evaluation.prompts head"),
    (preference_mistakes, "task data.columns lora.dropout preference objective search.space"),
    (_split_mistakes, "data.split data.columns data.held_out data.group_duplicates"),
    (metric_mistakes, "task objective evaluation data.columns"),
    (search_mistakes, "task search.space curriculum.order"),
    (grid_mistakes, "search.space search.sampler"),
    (objectives_mistakes, "objective search.sampler search.pruner"),
)
"""Each check, and the fields that it reads."""


def cross_mistakes(spec: StudySpec, wrong: Collection[str] = ()) -> list[Mistake]:
    """`wrong`: fields whose values in the file are invalid, so that those in `spec` are not the person's. A check that
    reads one of them is skipped.
    """
    mistakes = []
    for check, fields in _CHECKS:
        if not any(_overlap(field, name) for field in fields.split() for name in wrong):
            mistakes += check(spec)
    return mistakes


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
