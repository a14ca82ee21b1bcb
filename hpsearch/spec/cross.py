"""Mistakes between fields of a study file that are each right."""

from __future__ import annotations

from hpsearch.errors import Mistake
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import ColumnsSpec, SplitByColumn
from hpsearch.spec.model import HeadSpec
from hpsearch.spec.study import StudySpec, Task

_IMAGE_TASKS: tuple[Task, ...] = ("vlm-sft", "vlm-classify", "vlm-curriculum")
_CURRICULA: tuple[Task, ...] = ("text-curriculum", "vlm-curriculum")
_CLASS_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
_MOST_POINTS = 10_000
_NEVER_MISPLACED = {"image", "group", "label", "id", "stage"}


def cross_mistakes(spec: StudySpec) -> list[Mistake]:
    classifies = spec.task == "vlm-classify"
    columns = spec.data.columns
    return [
        *(_class_column_mistakes(columns) if classifies else _column_mistakes(columns)),
        *_image_mistakes(spec.task, columns),
        *_curriculum_mistakes(spec),
        *_class_mistakes(spec),
        *_split_mistakes(spec),
        *_metric_mistakes(spec),
        *_search_mistakes(spec),
        *_objectives_mistakes(spec),
    ]


def _class_column_mistakes(columns: ColumnsSpec) -> list[Mistake]:
    mistakes = []
    if columns.label is None:
        mistakes.append(Mistake("data.columns.label", "is missing: task vlm-classify learns it"))
    extra = sorted(set(columns.named()) - _NEVER_MISPLACED - {"question"})
    mistakes += [
        Mistake(f"data.columns.{role}", "does not go together with vlm-classify, which learns the label column")
        for role in extra
    ]
    return mistakes


def _column_mistakes(columns: ColumnsSpec) -> list[Mistake]:
    mistakes = []
    pairs = {"question-answer": ("question", "answer"), "prompt-completion": ("prompt", "completion")}
    for role in pairs.get(columns.row_format, ()):
        if getattr(columns, role) is None:
            mistakes.append(Mistake(f"data.columns.{role}", f"is missing: {columns.row_format} rows need it"))
    given = set(columns.named()) - _NEVER_MISPLACED
    extra = sorted(given - set(pairs.get(columns.row_format, ("messages",))))
    mistakes += [
        Mistake(f"data.columns.{role}", f"does not go together with {columns.row_format} columns") for role in extra
    ]
    return mistakes


def _image_mistakes(task: Task, columns: ColumnsSpec) -> list[Mistake]:
    mistakes = []
    if task in _IMAGE_TASKS and not columns.image:
        mistakes.append(Mistake("data.columns.image", f"is missing: task {task} needs an image column"))
    if task in _IMAGE_TASKS and columns.row_format != "question-answer":
        mistakes.append(Mistake("data.columns", f"task {task} takes image, question and answer columns"))
    if task not in _IMAGE_TASKS and columns.image:
        other = "vlm-curriculum" if task in _CURRICULA else "vlm-sft"
        mistakes.append(Mistake("data.columns.image", f"task {task} looks at no images; did you mean task: {other}?"))
    return mistakes


def _class_mistakes(spec: StudySpec) -> list[Mistake]:
    data = spec.data
    mistakes = []
    for key, is_given in (("data.balance", data.balance is not None), ("data.labels", bool(data.labels))):
        if is_given and data.columns.label is None:
            mistakes.append(Mistake(key, "needs data.columns.label: it is about the labels there"))
    if spec.task == "vlm-classify":
        if spec.evaluation.prompts.names() != ["none"]:
            mistakes.append(Mistake("evaluation.prompts", "a classifier is asked data.prompt and nothing else"))
    elif spec.head != HeadSpec():
        mistakes.append(Mistake("head", f"task {spec.task} has no classification head"))
    return mistakes


def _curriculum_mistakes(spec: StudySpec) -> list[Mistake]:
    stages = spec.curriculum.stages
    if spec.task not in _CURRICULA:
        message = f"task {spec.task} has no stages; did you mean task: {spec.task.partition('-')[0]}-curriculum?"
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
        if _may_be_staged(spec) and budget.max_steps is not None and budget.max_steps < len(stages):
            message = f"leaves a stage without a step: there are {len(stages)} stages"
            mistakes.append(Mistake(f"{section}.max_steps", message))
    return mistakes


def _may_be_staged(spec: StudySpec) -> bool:
    """Whether a run may learn one stage after the other."""
    orders = spec.search.space.get("curriculum.order") if spec.search else None
    return "stages" in (orders if isinstance(orders, list) else [spec.curriculum.order])


def _split_mistakes(spec: StudySpec) -> list[Mistake]:
    split, data = spec.data.split, spec.data
    mistakes: list[Mistake] = []
    if not isinstance(split, SplitByColumn):
        return mistakes
    if data.held_out:
        mistakes.append(Mistake("data.held_out", "goes with a split by fractions, not with a split column"))
    shares = [share for share in (split.validation, split.test) if isinstance(share, float)]
    if sum(shares) >= 1:
        mistakes.append(Mistake("data.split", "validation and test leave nothing of train"))
    return mistakes


def _metric_mistakes(spec: StudySpec) -> list[Mistake]:
    mistakes: list[Mistake] = []
    wanted = [("objective", name) for name in spec.objectives]
    wanted += [("evaluation.metrics", name) for name in spec.evaluation.metrics or []]
    for key, name in wanted:
        if spec.task == "vlm-classify" and name not in ("loss", *_CLASS_METRICS):
            message = f"{name} does not fit task vlm-classify; it has: loss, {', '.join(_CLASS_METRICS)}"
            mistakes.append(Mistake(key, message))
        elif key == "objective" and name == "bertscore":
            mistakes.append(Mistake(key, "bertscore is for evaluations: at every report it would take too long"))
        elif name == "bertscore" and not spec.evaluation.bertscore_model:
            mistakes.append(Mistake("evaluation.bertscore_model", "is missing: the metric bertscore needs it"))
    repeated = len(spec.objectives) - len(set(spec.objectives))
    if repeated:
        mistakes.append(Mistake("objective", "names an objective twice"))
    return mistakes


def _search_mistakes(spec: StudySpec) -> list[Mistake]:
    if spec.search is None:
        return []
    mistakes = _grid_mistakes(spec)
    is_classified = spec.task == "vlm-classify"
    for knob in spec.search.space:
        if knob.startswith("head.") and not is_classified:
            mistakes.append(Mistake(f"search.space.{knob}", f"task {spec.task} has no classification head"))
        if knob.startswith("curriculum.") and spec.task not in _CURRICULA:
            mistakes.append(Mistake(f"search.space.{knob}", f"task {spec.task} has no curriculum"))
        elif knob == "curriculum.learning_rate_decay" and not _may_be_staged(spec):
            message = f"means nothing with curriculum.order: {spec.curriculum.order}, which has one schedule"
            mistakes.append(Mistake(f"search.space.{knob}", message))
    return mistakes


def _grid_mistakes(spec: StudySpec) -> list[Mistake]:
    """Optuna builds the whole grid for each trial, and keeps each field's values with each trial."""
    if spec.searched.sampler.name != "grid":
        return []
    points = spec.grid_size()
    if points is None:
        return [Mistake("search.sampler", "a grid needs a step, or a list of choices, for every range")]
    if points > _MOST_POINTS:
        size = f"{points:,}" if points < 10**15 else "more than 10^15"
        message = f"the grid has {size} points, at most {_MOST_POINTS:,} are built: take fewer, or sampler: random"
        return [Mistake("search.sampler", message)]
    return []


def _objectives_mistakes(spec: StudySpec) -> list[Mistake]:
    """What a search with several objectives can't have."""
    if spec.search is None or len(spec.objectives) == 1:
        return []
    mistakes = []
    if spec.search.sampler.name == "cmaes":
        message = "cmaes knows one objective only (Optuna); with several take tpe, gp, random, qmc or grid"
        mistakes.append(Mistake("search.sampler", message))
    if "pruner" in spec.search.model_fields_set and spec.search.pruner.name != "none":
        message = "trials with several objectives can't be pruned (Optuna compares one value): pruner: none"
        mistakes.append(Mistake("search.pruner", message))
    return mistakes
