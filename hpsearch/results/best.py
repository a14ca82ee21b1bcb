"""The best parameters of a study, as a table, YAML, JSON or a shell command."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from hpsearch.data.manifest import Manifest
from hpsearch.data.source import local_source
from hpsearch.errors import InputError
from hpsearch.search.space import from_optuna
from hpsearch.search.view import StudyView, TrialView
from hpsearch.spec import dump_study, study_content
from hpsearch.spec.study import StudySpec, Values, flat
from hpsearch.spec.yaml_limits import NotYaml, read_text, read_yaml


@dataclass(frozen=True)
class Best:
    """One trial of a study and everything that its final training needs."""

    study: StudySpec
    trial: TrialView
    values: Values
    final: StudySpec
    """The study with the trial's values, absolute paths of its data and base, and no search."""
    file: Path
    """The study file."""


def choose(view: StudyView, number: int | None) -> Best:
    """The best trial, or the one with `number`.

    Raises:
        InputError: there is no such trial, or none is complete yet.
    """
    trial = view.best if number is None else next((t for t in view.trials if t.number == number), None)
    if trial is None:
        raise InputError(_nothing_to_choose(view, number))
    spec = view.study.spec
    values = from_optuna(spec.searched.space, trial.params)
    data = local_source(spec.data, view.study.folder)
    manifest = Manifest.from_bytes(view.study.manifest).sha256
    chosen = spec.with_values(values)
    final = chosen.model_copy(
        update={
            "search": None,
            "data": data.model_copy(update={"manifest": manifest}),
            "model": chosen.model.found_from(view.study.folder),
            "evaluation": chosen.evaluation.found_from(view.study.folder),
        }
    )
    return Best(spec, trial, values, final, _study_file(view.study.folder, spec.study))


def _nothing_to_choose(view: StudyView, number: int | None) -> str:
    name = view.study.name
    if number is not None:
        there = f"it has trials 0 to {len(view.trials) - 1}" if view.trials else "none has begun yet"
        return f"study {name!r} has no trial {number}; {there}"
    if any(trial.outcome == "complete" for trial in view.trials):
        return (
            f"every complete trial of study {name!r} needs more memory than budget.memory_gib allows "
            f"({view.study.spec.budget.memory_gib} GiB); choose one anyway with --trial"
        )
    outcomes = ", ".join(sorted({trial.outcome for trial in view.trials})) or "none begun"
    return f"study {name!r} has no complete trial yet ({outcomes}); see `hpsearch status`"


def as_yaml(best: Best) -> str:
    """A study file without a search: `hpsearch train` repeats this training on any machine that has the data."""
    objective = best.study.objectives[0]
    value = f"{best.trial.value:.6f}" if best.trial.value is not None else "unknown"
    header = (
        f"# Trial {best.trial.number} of study {best.study.study}: {objective.title} {value}\n"
        f"# Its budget: {best.study.budget.in_words()}.\n"
        f"# The final training:  hpsearch train THIS_FILE\n"
    )
    return header + dump_study(best.final)


def as_json(best: Best) -> str:
    return json.dumps(
        {
            "study": best.study.study,
            "number": best.trial.number,
            "values": dict(zip(best.study.objective_names, best.trial.values, strict=False)),
            "params": best.values,
            "final": study_content(best.final),
        },
        indent=2,
    )


def as_command(best: Best) -> str:
    """The final training as one shell command with every parameter as a flag, so that later edits of the file don't
    matter.
    """
    values = {knob: best.final.value(knob) for knob in best.final.knobs}
    adapter = best.final.model.model_dump(include={"adapter", "adapter_revision", "adapter_sha256"}, exclude_none=True)
    values |= flat(adapter, "model")
    whole = best.final.model_dump(mode="json")
    values |= {f"data.{key}": whole["data"].pop(key) for key in ("answers", "labels")}  # keys are values of the data
    for section in ("data", "final", "objective", "evaluation"):
        values |= flat(whole[section], section)
    flags = [f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in values.items()]
    return " \\\n    ".join([f"hpsearch train {shlex.quote(str(best.file))} --no-search", *flags])


def _study_file(folder: Path, name: str) -> Path:
    """The study file in `folder`: preferably the one named after the study, never the file of a final run."""
    for file in sorted(folder.glob("*.y*ml"), key=lambda file: (file.stem != name, file)):
        try:
            content = read_yaml(read_text(file))
        except (OSError, NotYaml):
            continue
        if isinstance(content, dict) and content.get("study") == name and "search" in content:
            return file
    return folder / f"{name}.yaml"
