"""A study's settings and the results of its trials, as rows of tables and sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hpsearch.data.manifest import Manifest
from hpsearch.data.split import SplitName
from hpsearch.metrics import in_order
from hpsearch.search.view import StudyView, TrialView, curve
from hpsearch.spec.data import DataSpec, SplitByColumn
from hpsearch.spec.knobs import KNOBS
from hpsearch.spec.metrics import Metric
from hpsearch.spec.search import ParameterSpec, RangeSpec
from hpsearch.spec.study import StudySpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.watch.examples import format_num_images, format_place
from hpsearch.watch.tables import sparkline
from hpsearch.watch.words import format_metric, format_time, format_value

Facts = list[tuple[str, str]]


def summary(view: StudyView, manifest: Manifest) -> str:
    """The study in one sentence."""
    spec = view.study.spec
    knobs = list(spec.searched.space)
    named = " and ".join(filter(None, [", ".join(knobs[:-1]), knobs[-1]]))
    kind = "QLoRA" if spec.model.quantization == "nf4" else "LoRA"
    train_rows = f"{len(manifest.splits['train']):,} train rows"
    return (
        f"{view.slots.finished} trials searched {named} for a {kind} fine-tune of {spec.model.base}, "
        f"each for {spec.budget.in_words(train_rows)}, "
        f"compared by {' and '.join(objective.title for objective in spec.objectives)} on validation rows."
    )


def question_facts(spec: StudySpec, final: BudgetSpec) -> Facts:
    """`final`: the budget of the final run, which a person may have changed."""
    goals = [
        f"{metric.title} ({'lower' if metric.direction == 'minimize' else 'higher'} is better)"
        for metric in spec.objectives
    ]
    facts = [
        ("task", spec.task),
        ("base model", spec.model.base + (f" at revision {spec.model.revision}" if spec.model.revision else "")),
        ("weights", "4-bit NormalFloat (QLoRA)" if spec.model.quantization == "nf4" else "not quantized (LoRA)"),
        ("objective", ", ".join(goals) + ", on the validation rows"),
        ("budget of a trial", _format_budget(spec.budget)),
        ("budget of the final run", _format_budget(final)),
    ]
    if spec.curriculum.stages:
        stages = " → ".join(stage.name for stage in spec.curriculum.stages)
        facts.append(("curriculum", f"{stages} (order: {spec.curriculum.order})"))
    return facts


def _format_budget(budget: BudgetSpec) -> str:
    memory = f"; at most {budget.memory_gib:g} GiB of device memory" if budget.memory_gib else ""
    reports = f"{budget.reports} validation report{'' if budget.reports == 1 else 's'}"
    return f"{budget.in_words()}, {reports}{memory}"


def data_facts(data: DataSpec, manifest: Manifest) -> Facts:
    columns = ", ".join(role if role == name else f"{role}: {name}" for role, name in data.columns.named().items())
    split = data.split
    if isinstance(split, SplitByColumn):
        drawn = f"by column {split.column}"
    else:
        shares = f"{split.train:.0%} train, {split.validation:.0%} validation, {split.test:.0%} test"
        drawn = f"{shares}, drawn by seed {split.seed}"
    if data.columns.group:
        drawn += f"; rows with the same {data.columns.group} stay together"
    if data.columns.label:
        drawn += f"; every split keeps the shares of {data.columns.label}"
    facts = [("source", data.source), ("columns", columns), ("splits", drawn)]
    if data.template.columns:
        facts.append(("prompt over columns", data.prompt))
    if data.answers:
        facts.append(("answers", ", ".join(f"{found} → {name}" for found, name in data.answers.items())))
    if data.examples:
        facts.append(("few-shot examples", f"{data.examples} training rows before each question"))
    if data.held_out:
        facts.append(("held out", f"the test rows in {data.held_out}, which other studies share"))
    facts += [("images", words) for words in format_num_images(manifest)]
    facts += [("note", note) for note in manifest.notes]
    if data.image_size:
        size = data.image_size
        words = f"at most {size} pixels a side" if isinstance(size, int) else f"{size[0]} × {size[1]} pixels"
        facts.append(("image size", words))
    if data.system_prompt:
        facts.append(("system prompt", data.system_prompt))
    return [*facts, ("checksum of the splits", manifest.sha256)]


def splits_rows(budget: BudgetSpec, final: BudgetSpec, manifest: Manifest) -> list[list[str]]:
    """Split, its rows, and how many of them a trial and the final run see."""
    seen: dict[SplitName, tuple[float, float]] = {
        "train": (budget.train_fraction, final.train_fraction),
        "validation": (budget.validation_fraction, final.validation_fraction),
        "test": (0.0, 0.0),
    }
    return [
        [split, str(len(keys)), *(str(round(share * len(keys))) if share else "none" for share in seen[split])]
        for split, keys in manifest.splits.items()
    ]


def labels_rows(manifest: Manifest) -> list[list[str]]:
    """Each label with its rows in every split; empty where rows have none."""
    return [
        [label, *(str(manifest.labels.get(split, {}).get(label, 0)) for split in manifest.splits)]
        for label in in_order(manifest.classes)
    ]


def left_out_rows(manifest: Manifest) -> list[list[str]]:
    return [[str(len(ids)), reason, format_place(manifest, reason)] for reason, ids in manifest.left_out.items()]


def search_facts(spec: StudySpec) -> Facts:
    search = spec.searched
    return [
        ("trials", str(search.trials)),
        ("sampler", _format_choice(search.sampler.model_dump())),
        ("pruner", _format_choice(search.pruner.model_dump())),
        ("seed", str(search.seed)),
    ]


def _format_choice(settings: dict[str, Any]) -> str:
    others = {name.replace("_", " "): value for name, value in settings.items() if name != "name"}
    more = ", ".join(f"{name} {format_value(value)}" for name, value in others.items())
    return f"{settings['name']} ({more})" if more else str(settings["name"])


def parameter_rows(spec: StudySpec) -> list[list[str]]:
    """Parameter, description, search range, and the file's own value."""
    own = spec.defaults()
    return [
        [knob, KNOBS[knob].description or "", _format_parameter(parameter), format_value(own[knob])]
        for knob, parameter in spec.searched.space.items()
    ]


def best_rows(view: StudyView) -> list[list[str]]:
    """Parameter, the best trial's value, and the file's own."""
    own, best = view.study.spec.defaults(), view.best
    return (
        [[knob, format_value(value), format_value(own.get(knob))] for knob, value in best.params.items()]
        if best
        else []
    )


def _format_parameter(parameter: ParameterSpec) -> str:
    if not isinstance(parameter, RangeSpec):
        return "one of " + ", ".join("none" if choice is None else format_value(choice) for choice in parameter)
    how = ", logarithmic" if parameter.log else f", in steps of {parameter.step:g}" if parameter.step else ""
    return f"{parameter.low:g} to {parameter.high:g}{how}"


def fixed_rows(spec: StudySpec) -> list[list[str]]:
    """Every other parameter."""
    others = [knob for knob in spec.knobs if knob not in spec.searched.space]
    return [[knob, format_value(spec.value(knob))] for knob in others if spec.value(knob) is not None]


@dataclass(frozen=True)
class TrialRow:
    """A trial's row, with all values as text."""

    number: int
    kind: str
    """The outcome, as a CSS class."""
    outcome: str
    is_best: bool
    is_own: bool
    values: list[str]
    reports: str
    params: list[str]
    seconds: str
    """From its beginning to its end, with loading and pauses, as everywhere."""
    steps: str
    device: str
    host: str
    given_back: str
    """Whether all memory was freed; empty where the ledger was not closed."""
    attempts: str


def trial_rows(view: StudyView) -> list[TrialRow]:
    best = view.best.number if view.best else None
    return [_trial_row(view, trial, trial.number == best) for trial in view.trials if trial.has_begun]


def _trial_row(view: StudyView, trial: TrialView, is_best: bool) -> TrialRow:
    facts = trial.facts
    kept = facts.get("ledger.closes")
    given_back = "" if kept is None else "all" if kept else f"all but {facts.get('ledger.not_given_back')}"
    return TrialRow(
        number=trial.number,
        kind=trial.outcome.replace(" ", "-"),
        outcome=trial.outcome,
        is_best=is_best,
        is_own=bool(facts.get("defaults")),
        values=_values(view, trial),
        reports=sparkline(list(trial.reports.values())),
        params=[format_value(trial.params.get(knob)) for knob in view.study.spec.searched.space],
        seconds=format_time(trial.seconds) if trial.seconds else "",
        steps=str(facts.get("optimizer_steps", "")),
        device=_gib(facts.get("ledger.peak_device_gib")),
        host=_gib(facts.get("ledger.peak_host_gib")),
        given_back=given_back,
        attempts=str(facts.get("attempts", "")),
    )


def _values(view: StudyView, trial: TrialView) -> list[str]:
    """As everywhere: of a complete trial its values, else those of its last report."""
    objectives = view.study.spec.objectives
    found = trial.values or [_last(view, trial, objective) for objective in objectives]
    return [format_metric(objective, value) for objective, value in zip(objectives, found, strict=True)]


def _last(view: StudyView, trial: TrialView, objective: Metric) -> float | None:
    return next(reversed(curve(view, trial, objective).values()), None)


def _gib(amount: float | None) -> str:
    return f"{amount:.2f}" if amount else ""


@dataclass(frozen=True)
class Ending:
    """Why a trial ended early."""

    number: int
    outcome: str
    reason: str
    bytes_needed: str
    traceback: str | None


def endings(view: StudyView) -> list[Ending]:
    early = [trial for trial in view.trials if trial.is_finished and trial.outcome != "complete"]
    return [
        Ending(
            trial.number,
            trial.outcome,
            trial.facts.get("reason") or "no reason was stored",
            f"{trial.facts['bytes_needed'] / 2**30:.2f} GiB" if trial.facts.get("bytes_needed") else "",
            trial.facts.get("traceback"),
        )
        for trial in early
    ]


def tally(view: StudyView) -> str:
    counts = Counter(trial.outcome for trial in view.trials if trial.has_begun)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())


def seconds_trained(view: StudyView) -> float:
    return sum(trial.seconds or 0.0 for trial in view.trials)
