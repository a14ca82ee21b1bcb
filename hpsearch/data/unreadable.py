"""Why a source of rows can't be read: where, and what to do. The libraries' own words tell neither."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

_ROWS = (".jsonl", ".json", ".csv", ".parquet")
_SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")
"""What `datasets` writes into the folder of a saved data set (5.2, arrow_dataset.py, dataset_dict.py)."""


ROW = 'write each as {"question": "…", "answer": "…"}'


def holds_no_objects(path: Path) -> bool:
    """Whether a JSON file is a list of anything but objects: `datasets` reads them as a column `text` (5.2,
    packaged_modules/json/json.py).
    """
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith(b"[") and not start[1:].lstrip().startswith(b"{")


def why_unreadable(error: Exception, path: Path | None) -> str:
    """`path`: the file or folder; None for a data set on the hub. `error`: what reading it raised."""
    cause = error.__cause__ or error
    first_line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    words = None
    if "corresponds to no data" in first_line:  # of a CSV with a header only (datasets 5.2, arrow_reader.py)
        return "has no rows"
    if path is not None:
        words = _of_folder(path) if path.is_dir() else _of_file(path, first_line)
    return words or f"can't be read: {first_line}"


def is_of_rows(file: Path) -> bool:
    """By its name; our own JSON schemas lie beside study files."""
    return file.suffix in _ROWS and not file.name.endswith(".schema.json")


def _of_folder(path: Path) -> str | None:
    if any((path / name).exists() for name in _SAVED):
        return None
    files = sorted(file.name for file in path.iterdir() if is_of_rows(file))
    if files:
        return f"{path} is a folder; name the file of rows in it, such as {files[0]}"
    return f"{path} is a folder without a file of rows; if it holds images, write a CSV or JSONL file of their paths"


def _of_file(path: Path, first_line: str) -> str | None:
    if not os.access(path, os.R_OK):
        return f"{path.name} can't be read: no permission"
    if path.stat().st_size == 0:
        return f"{path.name} is empty"
    if path.suffix == ".parquet":
        return f"{path.name} can't be read as Parquet: {first_line}"
    try:
        return _of_text(path, first_line)
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        return f"{path.name}, line {line}: is no text in UTF-8; save the file as UTF-8"


def _of_text(path: Path, first_line: str) -> str | None:
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".csv":
        if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", first_line):
            expected, line, saw = found.groups()
            return (
                f"{path.name}, line {line}: has {saw} values, and the header names {expected}; put values with a comma "
                "in quotes"
            )
        return None
    return _of_json(path.name, text) if path.suffix == ".json" else _of_lines(path.name, text)


def _of_json(name: str, text: str) -> str | None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        return f"{name}, line {error.lineno}: is no JSON: {_at_column(error)}"
    rows = found if isinstance(found, list) else [found]
    return None if all(isinstance(row, dict) for row in rows) else f"{name}: some of its rows are no objects; {ROW}"


def _at_column(error: json.JSONDecodeError) -> str:
    return f"{error.msg.removesuffix(' at')} at column {error.colno}"


def _of_lines(name: str, text: str) -> str | None:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            return f"{name}, line {number}: is no JSON: {_at_column(error)}"
        if not isinstance(row, dict):
            return f"{name}, line {number}: is no row; {ROW}"
    return None
