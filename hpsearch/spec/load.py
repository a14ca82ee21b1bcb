"""Reading a study file: YAML → StudySpec, with all mistakes at once, each with its line."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from hpsearch.errors import FieldError, InputError, Mistake, StudyFileErrors, cut, did_you_mean
from hpsearch.spec.cross import cross_mistakes, metric_mistakes
from hpsearch.spec.data import DataSpec
from hpsearch.spec.knobs import space_mistakes
from hpsearch.spec.mistakes import Path_, field_mistakes, mistakes_beside
from hpsearch.spec.own_metrics import read_metrics_file
from hpsearch.spec.search import ParameterSpec
from hpsearch.spec.study import StudySpec
from hpsearch.spec.training import in_rows_per_step
from hpsearch.spec.yaml_limits import MOST_LEVELS, Loader, NotYaml, compose, construct, read_text, read_yaml


class _Loader(Loader):
    """PyYAML follows YAML 1.1, where `2e-5` is a string; people write it as a number (YAML 1.2 agrees).

    No field holds a date: a revision 2024-12-05 is the text that it looks like.
    """


_Loader.add_constructor("tag:yaml.org,2002:timestamp", Loader.construct_yaml_str)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would read as a number: a revision named 1e5."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


@dataclass(frozen=True)
class StudyFile:
    """A loaded study file: the spec, and the line of each key, for mistakes that are found later."""

    path: Path
    spec: StudySpec
    lines: dict[str, int]

    def mistake(self, key: str, message: str, others: Sequence[FieldError] = ()) -> StudyFileErrors:
        """An error about `key`, found after loading (a missing column, an unknown target module), and those found with
        it.
        """
        found = [Mistake(key, message), *(Mistake(other.key, other.message) for other in others)]
        return StudyFileErrors(str(self.path), [_placed(self.lines, mistake) for mistake in found])


def load_study(path: Path, overrides: list[str] | None = None, *, is_kept: bool = False) -> StudyFile:
    """The study in `path` with `KEY=VALUE` overrides applied.

    `is_kept`: hpsearch wrote the file, maybe an earlier version, whose settings are converted. In a person's file,
    settings of earlier versions are mistakes.

    Raises:
        StudyFileErrors: with every mistake.
        InputError: the file can't be read.
    """
    lines: dict[str, int] = {}
    repeated: list[Mistake] = []
    try:
        node = compose(read_text(path), _Loader)
        _collect_lines(node, (), lines, repeated)
        raw = construct(node, _Loader)
    except OSError as error:
        raise InputError(f"{path}: {_why_unreadable(path, error)}") from None
    except NotYaml as error:
        if error.line is None:
            raise InputError(f"{path}: {error.message}") from None
        raise StudyFileErrors(str(path), [Mistake("", error.message, error.line)]) from None
    if not isinstance(raw, dict):
        found = "is empty" if raw is None else "holds a list" if isinstance(raw, list) else "holds a text"
        raise InputError(f"{path}: {found}; a study file holds keys and values, as in  study: my_study")
    for override in overrides or []:
        _override(raw, override)
        lines[override.partition("=")[0]] = 0
    if is_kept and "training" in raw:
        raw["training"] = in_rows_per_step(raw["training"])
    mistakes = [*repeated, *_read_metrics(raw, path.parent)]
    return StudyFile(path, _validate(raw, path, lines, mistakes), lines)


def check_study_text(text: str, of: Path) -> None:
    """Checks a study file generated from `of` (a file or answers): it is written only if it loads. Raises
    InputError.
    """
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "study.yaml"
        draft.write_text(text, encoding="utf-8")
        try:
            load_study(draft)
        except StudyFileErrors as error:
            words = "; ".join(f"{mistake.key}: {mistake.message}" for mistake in error.mistakes)
            raise InputError(f"{of}: gives values that no study can have: {words}") from None


def _read_metrics(raw: dict[str, Any], folder: Path) -> list[Mistake]:
    """Stores the metrics file's text in the study, unless it is there: the file may be elsewhere later."""
    section = raw.get("evaluation")
    named = section.get("metrics_file") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(named, str) or section.get("metrics_text") is not None:
        return []
    try:
        section["metrics_text"] = read_metrics_file((folder / named).expanduser())
    except ValueError as error:
        return [Mistake("evaluation.metrics_file", str(error))]
    return []


def with_present_metrics(file: StudyFile) -> StudyFile:
    """A stored study with the current text of its metrics file, where the file is available. Raises StudyFileErrors
    where it has mistakes now.
    """
    evaluation = file.spec.evaluation
    named = file.path.parent / evaluation.metrics_file if evaluation.metrics_file else None
    if named is None or not named.is_file():
        return file
    try:
        now = evaluation.model_copy(update={"metrics_text": read_metrics_file(named)})
    except ValueError as error:
        raise file.mistake("evaluation.metrics_file", str(error)) from None
    spec = file.spec.model_copy(update={"evaluation": now})
    if mistakes := metric_mistakes(spec):
        raise StudyFileErrors(str(named), mistakes)
    return StudyFile(file.path, spec, file.lines)


_OTHER_ENDS = re.compile("[\x85\u2028\u2029]")


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    """Writes several lines as a block: quoted text with \\n in it is hard to read.

    Text with other line separators of YAML 1.1 is double-quoted: otherwise they would come back changed.
    """
    style = '"' if _OTHER_ENDS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_study(spec: StudySpec) -> str:
    """A study file that loads as exactly this spec."""
    return yaml.dump(study_content(spec), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def study_content(spec: StudySpec) -> dict[str, Any]:
    """What a file of this spec says: without the sections that its task doesn't have, and without the default question
    where a column has one.
    """
    content = spec.model_dump(mode="json", exclude_none=True, exclude=spec.foreign_sections)
    if spec.data.has_questions and spec.data.prompt == DataSpec.model_fields["prompt"].default:
        content["data"].pop("prompt")
    return content


def _why_unreadable(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "is a folder; give the study file in it"
    if not path.exists():
        beside = sorted(str(found) for found in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        name = next(
            (file for file in beside if Path(file).stem == path.name), str(path)
        )  # a study's name, for its file
        return f"there is no such file; {did_you_mean(name, beside)}" if beside else "there is no such file"
    return error.strerror or str(error)


def _collect_lines(node: yaml.Node | None, path: Path_, lines: dict[str, int], repeated: list[Mistake]) -> None:
    """The line of every key. A key that occurs twice in one section is a mistake: YAML would take the last one."""
    if isinstance(node, yaml.MappingNode):
        own: dict[str, int] = {}
        for key, value in node.value:
            here = (*path, str(key.value))
            name, line = ".".join(map(str, here)), key.start_mark.line + 1
            if name in own and key.value != "<<":
                repeated.append(Mistake(name, f"stands twice; first on line {own[name]}", line))
            lines[name] = own[name] = line
            _collect_lines(value, here, lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = (*path, index)
            lines[".".join(map(str, here))] = value.start_mark.line + 1
            _collect_lines(value, here, lines, repeated)


def _placed(lines: dict[str, int], mistake: Mistake) -> Mistake:
    """With the line of its key, or of the nearest parent in the file; an override has line 0."""
    path = mistake.key.split(".")
    while path and mistake.line is None:
        if (line := lines.get(".".join(path))) is not None:
            return replace(mistake, line=line or None, is_set=line == 0)
        path.pop()
    return mistake


def _override(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise InputError(f"--set {cut(override)}: expected KEY=VALUE, such as --set training.learning_rate=1e-4")
    *sections, name = (
        key.split(".")
        if not key.startswith("search.space.")
        else ["search", "space", key.removeprefix("search.space.")]
    )
    if len(sections) >= MOST_LEVELS:
        raise InputError(f"--set {cut(override)}: is nested more than {MOST_LEVELS} levels deep")
    if key == "evaluation.metrics_file" and isinstance(raw.get("evaluation"), dict):
        raw["evaluation"].pop("metrics_text", None)  # it belongs to another file
    place = raw
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise InputError(f"--set {cut(override)}: {section} is no section of the study file")
    try:
        place[name] = read_yaml(value, _Loader)
    except NotYaml as error:
        raise InputError(f"--set {cut(override)}: {error.message}") from None


def _validate(raw: dict[str, Any], path: Path, lines: dict[str, int], found: list[Mistake]) -> StudySpec:
    mistakes = [*found, *_space_mistakes(raw)]
    spec = None
    try:
        spec = StudySpec.model_validate(raw)
        mistakes += cross_mistakes(spec)
    except ValidationError as error:
        wrong = field_mistakes(error, raw)
        mistakes += [*wrong, *mistakes_beside(raw, wrong)]
    if mistakes:
        raise StudyFileErrors(str(path), [_placed(lines, mistake) for mistake in mistakes])
    assert spec is not None
    return spec


def _space_mistakes(raw: dict[str, Any]) -> list[Mistake]:
    search = raw.get("search")
    space = search.get("space") if isinstance(search, dict) else None
    mistakes = []
    for knob, value in space.items() if isinstance(space, dict) else ():
        try:
            parameter = _PARAMETER.validate_python(value)
        except ValidationError:
            continue  # reported by the validation of the whole file
        key = f"search.space.{knob}"
        mistakes += [Mistake(key, message) for message in space_mistakes(str(knob), parameter)]
    return mistakes


_PARAMETER: TypeAdapter[ParameterSpec] = TypeAdapter(ParameterSpec)
