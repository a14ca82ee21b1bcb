"""The result of preparing a study, kept beside its rows, so that the final training need not prepare anything again."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from hpsearch.data.held_out import holds_out
from hpsearch.data.manifest import Manifest
from hpsearch.data.prepared import DataFolder, are_unchanged
from hpsearch.data.source import local_source
from hpsearch.errors import UnreadableFile
from hpsearch.files import draft_of, read_file, write_text
from hpsearch.spec import StudyFile
from hpsearch.trial import Record

_YOUNGER = ("group_duplicates", "answers", "examples")
_YOUNGER_COLUMNS = ("text", "chosen", "rejected", "desirable")
"""Left out where they are not used, so that what earlier versions prepared is still found."""
log = logging.getLogger("hpsearch.preparation")


class Preparation(Record):
    """The manifest is stored beside it, and the record of the files that the rows came from."""

    prepared_from: str
    """SHA-256 of everything in a study file that decides which rows there are and how they are split."""
    linear_layers: dict[str, list[str]]
    """Base → names that target_modules may hold. No row is too long for any of these bases."""


def keep_preparation(
    file: StudyFile, manifest: Manifest, linear_layers: dict[str, list[str]], storage: DataFolder
) -> None:
    folder = storage.of(manifest.sha256)
    draft = draft_of(folder / "manifest.json.gz")
    draft.write_bytes(manifest.to_bytes())
    draft.replace(folder / "manifest.json.gz")
    found = Preparation(prepared_from=_prepared_from(file), linear_layers=linear_layers)
    write_text(folder / "preparation.json", found.model_dump_json())


def find_preparation(file: StudyFile, storage: DataFolder) -> tuple[Manifest, dict[str, list[str]]] | None:
    """The manifest and the linear layers of each base, where this machine has rows prepared for exactly such a study
    and their sources are unchanged.
    """
    wanted = file.spec.data.manifest
    folders = [storage.of(wanted)] if wanted else sorted(path for path in storage.path.glob("*") if path.is_dir())
    for folder in folders:
        if (folder / "preparation.json").exists():
            try:
                found = _found(file, folder)
            except UnreadableFile as error:
                log.warning("%s: the study is prepared again", error)
                continue
            if found and wanted in (None, found[0].sha256):
                return found
    return None


def _found(file: StudyFile, folder: Path) -> tuple[Manifest, dict[str, list[str]]] | None:
    found = read_file(folder / "preparation.json", Preparation.model_validate_json)
    models = (file.spec.model.model_copy(update={"base": base}) for base in file.spec.bases())
    bases = {model.found_from(file.path.parent).base for model in models}
    known = set(found.linear_layers)
    fits = bases <= known if file.spec.data.manifest else bases == known
    if not fits or found.prepared_from != _prepared_from(file) or not are_unchanged(folder / "files.json"):
        return None
    manifest = read_file(folder / "manifest.json.gz", Manifest.from_bytes)
    held_out = file.spec.data.held_out
    if held_out and not holds_out(file.path.parent / held_out, manifest.splits["test"]):
        return None
    return manifest, {base: found.linear_layers[base] for base in bases}


def _prepared_from(file: StudyFile) -> str:
    spec = file.spec
    data = local_source(spec.data, file.path.parent).model_dump(mode="json", exclude={"manifest", "feature_cache_gib"})
    for place, names in ((data, _YOUNGER), (data["columns"], _YOUNGER_COLUMNS)):
        for name in names:
            if not place[name]:
                del place[name]
    parts = [spec.task, spec.model.revision, data, spec.curriculum.model_dump(mode="json")]
    if spec.model.adapter_sha256 is not None:  # whether the adapter fits the base was checked as well
        parts.append(spec.model.adapter_sha256)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
