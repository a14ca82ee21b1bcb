"""Study files out of other tools' training files: `hpsearch new --from`.

A reader (one file per tool) asks a `ForeignFile` for each key that it understands and fills a `Draft`; keys that it did
not ask for are reported as not kept. `data` finds out how the rows can be read, `space` proposes what to search, and
`writing` makes the commented text, which must be a valid study file before it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hpsearch.convert import axolotl, llamafactory, llamafactory_v1
from hpsearch.convert.data import put_data
from hpsearch.convert.draft import Draft
from hpsearch.convert.file import ForeignFile, read_foreign
from hpsearch.convert.reasons import COMMON
from hpsearch.convert.writing import study_text
from hpsearch.spec.load import check_study_text

__all__ = ["TOOLS", "NewStudy", "new_study"]

TOOLS: dict[str, tuple[Callable[[dict[str, Any]], bool], Callable[[ForeignFile], Draft]]] = {
    axolotl.TOOL: (axolotl.is_mine, axolotl.read),
    llamafactory.TOOL: (llamafactory.is_mine, llamafactory.read),
    llamafactory_v1.TOOL: (llamafactory_v1.is_mine, llamafactory_v1.read),
}
"""Tool → (whether the keys are its own, how to read its file)."""


@dataclass(frozen=True)
class NewStudy:
    """A study made from another tool's file; `script` converts its data and is written beside it, if needed."""

    tool: str
    text: str
    script: str | None
    script_name: str
    not_kept: list[str]
    to_do: list[str]


def new_study(path: Path, output: Path) -> NewStudy:
    """The study for `output`; writes nothing.

    Raises:
        InputError: no file of a known tool, or one that can't be converted, with the reason.
    """
    file = read_foreign(path)
    draft = _reader(file)(file)
    _put_budget(draft)
    script = output.with_name(f"{output.stem}_data.py")
    validation = file.number("val_set_size", 0.0) or file.number("val_size", 0.0)
    script_text = put_data(draft, script, validation)
    draft.not_kept += file.left_over(COMMON)
    text = study_text(draft, _study_name(output))
    check_study_text(text, path)
    return NewStudy(draft.tool, text, script_text, script.name, list(map(str, draft.not_kept)), draft.to_do)


def _reader(file: ForeignFile) -> Callable[[ForeignFile], Draft]:
    found = next((read for is_mine, read in TOOLS.values() if is_mine(file.values)), None)
    return found or _refuse_unknown(file)


def _refuse_unknown(file: ForeignFile) -> NoReturn:
    if {"study", "search"} <= set(file.values):
        file.refuse("is a study file already; look at it with  hpsearch show")
    if "compute_environment" in file.values or "distributed_type" in file.values:
        file.refuse("is a launch configuration of accelerate: it says how to start processes, not what to train")
    keys = ", ".join(list(file.values)[:6]) or "nothing"
    file.refuse(
        "is neither a LLaMA-Factory file (model_name_or_path with finetuning_type, template …) nor an Axolotl file "
        f"(base_model); found: {keys}"
    )


def _put_budget(draft: Draft) -> None:
    draft.set("budget.epochs", 1.0)
    draft.set("budget.train_fraction", 0.25, "enough rows for losses to differ, few enough for many trials")
    draft.set("budget.reports", 4)


def _study_name(output: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", output.stem).lstrip("._-")
    return name[:100] or "study"
