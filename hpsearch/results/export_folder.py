"""Export folders: never overwrite foreign files, never half written, and recognized by what they were made from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from hpsearch.errors import InputError
from hpsearch.files import draft_of, share_weights, write_text
from hpsearch.jobs import ExportResult
from hpsearch.results.final import RunFolder
from hpsearch.trial import Record

RECORD = "hpsearch_export.json"
CARD = "README.md"
Dtype = Literal["bfloat16", "float16"]


class Made(Record):
    """The inputs of an export. Exports with equal inputs are equal."""

    kind: Literal["merged", "gguf"]
    run: str
    adapter_sha256: str
    dtype: Dtype


class ExportRecord(Record):
    """Stored in an export's folder."""

    made: Made
    result: ExportResult
    card_sha256: str | None = None

    def has_own_card(self, folder: Path) -> bool:
        """Whether the model card is unchanged since it was written: nobody has edited it."""
        return self.card_sha256 is not None and self.card_sha256 == _checksum(folder / CARD)


def made_of(folder: RunFolder, kind: Literal["merged", "gguf"], dtype: Dtype) -> Made:
    """Raises InputError where the run has no adapter."""
    digest = _checksum(folder.adapter / "adapter_model.safetensors")
    if digest is None:
        raise InputError(f"{folder.path} has no adapter: {folder.adapter / 'adapter_model.safetensors'} is gone")
    return Made(kind=kind, run=folder.path.name, adapter_sha256=digest, dtype=dtype)


def export_in(folder: Path) -> ExportRecord | None:
    """The record of the export in the folder, of any kind."""
    try:
        return ExportRecord.model_validate_json((folder / RECORD).read_text())
    except (OSError, ValidationError):
        return None


def check_target(target: Path, made: Made, *, force: bool) -> bool:
    """Whether the wanted export is there already.

    Raises:
        InputError: something else is there.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    there = export_in(target)
    if there is None:
        raise InputError(f"{target} holds something that is not an export: choose another folder with -o")
    if force:
        return False
    if there.made != made:
        of = f"{there.made.kind}, {there.made.dtype}, of run {there.made.run}"
        raise InputError(f"{target} holds another export ({of}): --force replaces it, or choose another with -o")
    return True


@contextmanager
def new_export(target: Path) -> Iterator[Path]:
    """A draft folder that becomes `target` on success and is deleted otherwise.

    Raises:
        InputError: nothing can be written there.
    """
    draft = draft_of(target)
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}") from None
    try:
        yield draft
        for weights in draft.rglob("*.safetensors"):
            share_weights(weights)
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_record(folder: Path, made: Made, result: ExportResult) -> None:
    record = ExportRecord(made=made, result=result, card_sha256=_checksum(folder / CARD))
    write_text(folder / RECORD, record.model_dump_json(indent=2))


def _checksum(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
