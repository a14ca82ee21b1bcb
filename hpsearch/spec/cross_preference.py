"""Mistakes between the fields of a preference study: fields that are each valid but don't fit together."""

from __future__ import annotations

from hpsearch.errors import Mistake
from hpsearch.spec.metrics import METRICS
from hpsearch.spec.preference import LABELLED_LOSSES, PAIR_LOSSES, PreferenceSpec
from hpsearch.spec.rows import FORMATS
from hpsearch.spec.search import RangeSpec
from hpsearch.spec.study import StudySpec
from hpsearch.spec.tasks import SECTIONS


def preference_mistakes(spec: StudySpec) -> list[Mistake]:
    task, rows = spec.task_facts, FORMATS[spec.data.columns.row_format]
    mistakes = []
    if not task.has_dropout and spec.lora.dropout:
        mistakes.append(
            Mistake("lora.dropout", f"task {task.name} is trained without dropout, as in trl: leave it out")
        )
    if not task.has("preference"):
        learned = spec.preference != PreferenceSpec()
        return [
            *mistakes,
            *([Mistake("preference", f"task {task.name} has no {SECTIONS['preference']}")] if learned else []),
        ]
    fitting, others = (PAIR_LOSSES, LABELLED_LOSSES) if rows.has_pairs else (LABELLED_LOSSES, PAIR_LOSSES)
    kind = "pairs of chosen and rejected" if rows.has_pairs else "single answers"
    key, losses = _choices(spec, "preference.loss")
    wrong = [str(loss) for loss in losses if loss in others]
    if wrong:
        mistakes.append(Mistake(key, f"{wrong[0]} does not go with {kind}; there are: {', '.join(fitting)}"))
    smoothed, smoothings = _choices(spec, "preference.label_smoothing")
    if "exo_pair" in losses and 0.0 in smoothings:
        mistakes.append(Mistake(smoothed, "exo_pair needs more than 0, such as 1e-3"))
    return [*mistakes, *_incomparable(spec)]


def _choices(spec: StudySpec, knob: str) -> tuple[str, list[object]]:
    """The key of its values, and the possible values; for a range its lower end."""
    found = spec.search.space.get(knob) if spec.search else None
    if found is None:
        return knob, [spec.value(knob)]
    return f"search.space.{knob}", [found.low] if isinstance(found, RangeSpec) else list(found)


def _incomparable(spec: StudySpec) -> list[Mistake]:
    """Losses of different kinds, or with different beta, are not comparable: trials can't be ranked by them."""
    searched = [knob for knob in (spec.search.space if spec.search else {}) if knob.startswith("preference.")]
    known = {name: METRICS.get(name) for name in spec.objective_names}
    scaled = [name for name, metric in known.items() if metric and metric.over in ("losses", "preferences")]
    scaled = [name for name in scaled if METRICS[name].unit != "share"]
    if not searched or not scaled:
        return []
    message = f"trials with another {searched[0]} have another {scaled[0]}: take reward_accuracy, which is one measure"
    return [Mistake("objective", message)]
