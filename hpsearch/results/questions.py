"""Rows without an answer, for predictions: from a JSONL file with the study's columns, or from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch.data.formats import Message, as_text, chat_messages, conversation_column, turns_asked
from hpsearch.data.image_lists import ImageLists, image_names, images_mistake
from hpsearch.data.images import CheckedImage, address_problem
from hpsearch.data.manifest import Manifest
from hpsearch.data.rows import Row
from hpsearch.errors import InputError
from hpsearch.jobs import Tell
from hpsearch.spec.data import DataSpec
from hpsearch.spec.study import StudySpec
from hpsearch.spec.tasks import Images
from hpsearch.spec.template import find

Values = dict[str, Any]
Seen = tuple[CheckedImage, ...]
Lines = Mapping[int, Values | str]
"""Line number, from 1 → row, or the text of a line that is no valid row."""
_UNKNOWN: Message = {"role": "assistant", "content": "?"}
"""Placeholder for a row's answer: the model never sees it."""


def read_lines(file: Path) -> Lines:
    """The rows of a JSONL file. Raises InputError where it can't be read, or has none."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text in UTF-8"
        raise InputError(f"{file}: can't be read: {reason}") from None
    found = {number: _values(line) for number, line in enumerate(lines, start=1) if line.strip()}
    if not any(isinstance(values, dict) for values in found.values()):
        raise InputError(f"{file}: has no rows; each line must be a JSON object with the study's columns")
    return found


def _values(line: str) -> Values | str:
    try:
        values = json.loads(line)
        json.dumps(values, ensure_ascii=False).encode()  # a lone surrogate (\\ud800) is no text
    except (ValueError, RecursionError):
        return line
    return values if isinstance(values, dict) else line


def asked_rows(spec: StudySpec, manifest: Manifest, images: Sequence[Path], questions: Sequence[str]) -> list[Values]:
    """The person's questions as rows with the study's columns."""
    columns, task = spec.data.columns, spec.task_facts
    if wants_image(spec, manifest) and not images:
        raise InputError("--image is missing: every training row of this run has one")
    if images and not task.has_images:
        raise InputError(f"--image: task {spec.task} takes no images")
    if len(images) > 1 and task.images == "one":
        raise InputError(f"--image: task {spec.task} takes one image")
    for image in images:
        if image.parts and image.parts[0] in ("http:", "https:"):  # a path has lost the second slash
            url = str(image).replace(":/", "://", 1)
            raise InputError(f"--image: {url} is a URL; download the image first, and name the file")
    seen: Values = {columns.image: list(map(str, images))} if columns.image else {}
    whole = conversation_column(spec.data)
    name = whole or columns.text or _question_column(spec)
    if name is None:
        if questions:
            raise InputError(f"--question: this run always asks {spec.data.prompt!r}, as in its training")
        return [seen]
    if not questions:
        raise InputError("--question is missing")
    if whole:
        return [{**seen, name: [{"role": "user", "content": question}]} for question in questions]
    return [{**seen, name: question} for question in questions]


def _question_column(spec: StudySpec) -> str | None:
    """The column that holds the question; for a prompt over columns its only required one."""
    template = spec.data.template
    if not template.columns:
        return spec.data.columns.prompt or spec.data.columns.question
    if len(template.required) != 1:
        names = ", ".join(template.columns)
        raise InputError(f"this run is asked over several columns ({names}): write them to a JSONL file for --input")
    return template.required[0]


def wants_image(spec: StudySpec, manifest: Manifest) -> bool:
    """Whether every row that the run learned from had an image."""
    return spec.task_facts.has_images and not manifest.num_images.get("train", {}).get(0)


def asked_columns(data: DataSpec, *, needs_image: bool) -> dict[str, str]:
    """Column → its name in the study file, for the columns that a row needs to be answered."""
    columns = data.columns
    whole = conversation_column(data)
    named: list[tuple[str, str | None]] = [
        (role, column) for role, column in columns.named().items() if column == whole
    ]
    named += [("prompt", columns.prompt), ("question", columns.question)]
    named += [("text", columns.text), *([("image", columns.image)] if needs_image else [])]
    asked = {column: f"data.columns.{role}" for role, column in named if column is not None}
    return asked | dict.fromkeys(data.template.required, "data.prompt")


def check_columns(source: str, lines: Lines, wanted: dict[str, str]) -> None:
    """Raises InputError for a column that no row has."""
    rows = [values for values in lines.values() if isinstance(values, dict)]
    known = list(dict.fromkeys(name for values in rows for name in values))
    for name, key in wanted.items():
        if name not in known and all(find(name, values) is None for values in rows):
            raise InputError(
                f"{source}: no row has a column {name!r}, which the study's {key} names; there are: {', '.join(known)}"
            )


def question_rows(
    lines: Lines, data: DataSpec, folder: Path, image_store: Path, tell: Tell, images: Images
) -> dict[int, Row | str]:
    """For each line a row to answer, or what is wrong with it. Relative image paths start at `folder`."""
    seen: list[Seen | str] = [()] * len(lines)
    if images != "none" and data.columns.image:
        seen = list(_images(lines, data.columns.image, folder, image_store, tell))
    numbered = zip(lines.items(), seen, strict=True)
    return {number: _row(number, values, found, data, images) for (number, values), found in numbered}


def _images(lines: Lines, column: str, folder: Path, image_store: Path, tell: Tell) -> Iterator[Seen | str]:
    from datasets import Dataset, Features, List, Value

    named = [image_names(values.get(column)) if isinstance(values, dict) else [] for values in lines.values()]
    have_address = [any(map(address_problem, names)) for names in named]
    files = [[] if has_address else names for names, has_address in zip(named, have_address, strict=True)]
    table = Dataset.from_dict({column: files}, features=Features({column: List(Value("string"))}))
    images = ImageLists(table, column, folder, image_store, tell)
    for position, has_address in enumerate(have_address):
        yield "image is a URL, not a file" if has_address else images.of(position)


def _row(number: int, values: Values | str, found: Seen | str, data: DataSpec, images: Images) -> Row | str:
    messages = "no JSON object" if isinstance(values, str) else _messages(values, data)
    if isinstance(messages, str):
        return messages
    if isinstance(found, str):
        return found
    if data.columns.image and (mistake := images_mistake(messages, len(found), images)):
        return mistake
    return Row(id=str(number), messages=messages, images=found, group=None, label=None, split=None)


def _messages(values: Values, data: DataSpec) -> list[Message] | str:
    columns, whole = data.columns, conversation_column(data)
    if whole:
        turns = values.get(whole)
        if isinstance(turns, list) and turns and isinstance(turns[-1], dict) and turns[-1].get("role") != "assistant":
            turns = [*turns, _UNKNOWN]
        return chat_messages(turns, has_images=columns.image is not None)
    if columns.text:
        text = as_text(values.get(columns.text))
        return [{"role": "user", "content": text}, _UNKNOWN] if text and text.strip() else "empty text"
    asked = turns_asked(values, data)
    return asked if isinstance(asked, str) else chat_messages([*asked, _UNKNOWN], has_images=columns.image is not None)
