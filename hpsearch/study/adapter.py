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
"""Fields of `lora` that differ for the same adapter, where one machine has the run that made it and another doesn't."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_COPIES = re.compile(r"(-unsloth)?-bnb-4bit$")
"""Ends the hub's names of copies of a base that are quantized already."""


def with_adapter(file: StudyFile, storage: StorageFolder) -> StudyFile:
    """The file with all that its adapter says; without an adapter, as it is.

    From then on the spec's `lora` is the adapter's, and its place is absolute, or a name on the hub.

    Raises:
        StudyFileErrors: there is no such adapter, it is another than it was, none that training can go on from, one of
            another base, or one that the file's own `lora` contradicts.
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
    """A note where the run whose adapter it is was trained on rows that this study validates or tests on.

    Rows are known by their content: a question is not, where it has another answer or stands among preferences.
    """
    manifest = Path(model.adapter or "").parent / "manifest.json.gz"
    if model.adapter is None or not manifest.exists():
        return []
    learned = {sha256 for _, sha256 in read_file(manifest, Manifest.from_bytes).splits["train"]}
    names: tuple[SplitName, ...] = ("validation", "test")
    counts = {name: sum(row.sha256 in learned for row in splits[name]) for name in names}
    told = " and ".join(f"{count} {name} rows" for name, count in counts.items() if count)
    return [f"model.adapter was trained on {told}: take its split, seed or data.held_out"] if told else []


def _place(name: str, folder: Path, storage: StorageFolder) -> str:
    """Paths count from the study file's `folder`. Raises FieldError."""
    for path in ((folder / name).expanduser(), storage.runs / name):
        if path.is_dir():
            own = JobFolder(path).adapter
            return str((own if (own / CONFIG).exists() else path).resolve())
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        there = f"no folder {(folder / name).expanduser().resolve()} on this machine"
        raise FieldError(KEY, f"{name!r}: there is {there}, and no final run of that name in {storage.runs}")
    return name


def _check_base(adapter: Adapter, model: ModelSpec) -> None:
    """Raises FieldError where both have names that surely mean two models. Folders may be called anything: whether
    the adapter fits one is seen when it is laid onto it."""
    names = [_known_name(name) for name in (adapter.base or "", model.base)]
    if None not in names and names[0] != names[1]:
        raise FieldError(
            KEY,
            f"{model.adapter} is an adapter of {adapter.base}, not of {model.base}; where this is a copy of that base "
            "under another name, give it as a folder",
        )


def _known_name(base: str) -> str | None:
    """What a base is called whoever keeps it; None where that is a folder's name."""
    if base.startswith("tiny:"):
        return base
    is_name = _HUB_NAME.fullmatch(base) and not base.startswith(".") and not Path(base).exists()
    return _COPIES.sub("", base.rpartition("/")[2].lower()) if is_name else None


def _lora(file: StudyFile, own: LoraSpec) -> LoraSpec:
    """The adapter's values; the dropout may be the file's. Raises StudyFileErrors for others that the file gives.

    A file with the adapter's checksum may call its layers as the run did that made it: the adapter alone doesn't know.
    """
    given = file.spec.lora
    kept = {"dropout", *(IN_THE_RUN_S_WORDS if file.spec.model.adapter_sha256 else ())} & given.model_fields_set
    mistakes = []
    for name in sorted(given.model_fields_set - kept):
        wanted, found = getattr(given, name), getattr(own, name)
        if not _are_alike(wanted, found):
            words = f"is {found} in the adapter, which training goes on from as it is, not {wanted}: leave it out"
            mistakes += file.mistake(f"lora.{name}", words).mistakes
    if mistakes:
        raise StudyFileErrors(str(file.path), mistakes)
    return own.model_copy(update={name: getattr(given, name) for name in kept})


def _are_alike(a: object, b: object) -> bool:
    return sorted(a) == sorted(b) if isinstance(a, list) and isinstance(b, list) else a == b
