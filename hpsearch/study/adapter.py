"""Looking up the adapter that a study continues from: its path, checksum and LoRA settings are added to the spec."""

from __future__ import annotations

import re
from pathlib import Path

from hpsearch.adapter import CONFIG, KEY, Adapter, adapter_folder, read_adapter
from hpsearch.data.manifest import Manifest
from hpsearch.data.split import SplitName, Splits
from hpsearch.errors import FieldError, StudyFileErrors
from hpsearch.files import read_file
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.spec import StudyFile
from hpsearch.spec.model import LoraSpec, ModelSpec

IN_THE_RUN_S_WORDS = ("target_modules", "vision")
"""Fields of `lora` that may differ for the same adapter, when one machine has the run that made it and another has
not.
"""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_COPIES = re.compile(r"(-unsloth)?-bnb-4bit$")
"""Suffix of hub names of copies of a base that are quantized already."""


def with_adapter(file: StudyFile, storage: StorageFolder) -> StudyFile:
    """The file with its adapter's values filled in; without an adapter, unchanged.

    After that the spec's `lora` is the adapter's, and its path is absolute, or a name on the hub.

    Raises:
        StudyFileErrors: there is no such adapter, it has changed, training can't continue from it, it is for another
            base, or the file's own `lora` contradicts it.
    """
    spec = file.spec
    if spec.model.adapter is None:
        return file
    try:
        model = spec.model.model_copy(update={"adapter": _place(spec.model.adapter, file.path.parent, storage)})
        found = read_adapter(adapter_folder(model))
        _check_base(found, model)
    except FieldError as error:
        raise file.mistake(error.key, error.message) from None
    model = model.model_copy(update={"adapter_sha256": found.sha256})
    return StudyFile(file.path, spec.model_copy(update={"model": model, "lora": _lora(file, found.lora)}), file.lines)


def learned_before(model: ModelSpec, splits: Splits) -> list[str]:
    """A note where the run that made the adapter was trained on rows that this study validates or tests on.

    Rows are compared by content: the same question with another answer, or in preference data, counts as another row.
    """
    manifest = Path(model.adapter or "").parent / "manifest.json.gz"
    if model.adapter is None or not manifest.exists():
        return []
    learned = {sha256 for _, sha256 in read_file(manifest, Manifest.from_bytes).splits["train"]}
    names: tuple[SplitName, ...] = ("validation", "test")
    counts = {name: sum(row.sha256 in learned for row in splits[name]) for name in names}
    overlap = " and ".join(f"{count} {name} rows" for name, count in counts.items() if count)
    return [f"model.adapter was trained on {overlap}: take its split, seed or data.held_out"] if overlap else []


def _place(name: str, folder: Path, storage: StorageFolder) -> str:
    """Paths are relative to the study file's `folder`. Raises FieldError."""
    for path in ((folder / name).expanduser(), storage.runs / name):
        if path.is_dir():
            own = JobFolder(path).adapter
            return str((own if (own / CONFIG).exists() else path).resolve())
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        there = f"no folder {(folder / name).expanduser().resolve()} on this machine"
        raise FieldError(KEY, f"{name!r}: there is {there}, and no final run of that name in {storage.runs}")
    return name


def _check_base(adapter: Adapter, model: ModelSpec) -> None:
    """Raises FieldError where both have names that certainly mean two models. Folder names say nothing: whether the
    adapter fits such a base is seen when it is loaded onto it.
    """
    names = [_known_name(name) for name in (adapter.base or "", model.base)]
    if None not in names and names[0] != names[1]:
        raise FieldError(
            KEY,
            f"{model.adapter} is an adapter of {adapter.base}, not of {model.base}; where this is a copy of that base "
            "under another name, give it as a folder",
        )


def _known_name(base: str) -> str | None:
    """A base's name without its owner; None for a folder's name."""
    if base.startswith("tiny:"):
        return base
    is_name = _HUB_NAME.fullmatch(base) and not base.startswith(".") and not Path(base).exists()
    return _COPIES.sub("", base.rpartition("/")[2].lower()) if is_name else None


def _lora(file: StudyFile, own: LoraSpec) -> LoraSpec:
    """The adapter's values; the dropout may be the file's. Raises StudyFileErrors for others that the file gives.

    A file with the adapter's checksum may name its layers as the run that made it did: the adapter alone doesn't
    contain that.
    """
    given = file.spec.lora
    kept = {"dropout", *(IN_THE_RUN_S_WORDS if file.spec.model.adapter_sha256 else ())} & given.model_fields_set
    mistakes = []
    for name in sorted(given.model_fields_set - kept):
        wanted, found = getattr(given, name), getattr(own, name)
        if not _are_alike(wanted, found):
            words = f"is {found} in the adapter, which training continues unchanged, not {wanted}: leave it out"
            mistakes += file.mistake(f"lora.{name}", words).mistakes
    if mistakes:
        raise StudyFileErrors(str(file.path), mistakes)
    return own.model_copy(update={name: getattr(given, name) for name in kept})


def _are_alike(a: object, b: object) -> bool:
    return sorted(a) == sorted(b) if isinstance(a, list) and isinstance(b, list) else a == b
