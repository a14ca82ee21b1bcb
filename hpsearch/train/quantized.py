"""Quantized bases on disk: a base is quantized by the first trainer that needs it, and read by all others.

A copy is the frozen model as transformers saves it: the 4-bit weights with their quantization state, and the others as
they are, with the fingerprint of the saved model. Loading compares the fingerprint: a copy that is incomplete, or that
these libraries read differently, is deleted, and the base is quantized again. A copy gets its final name only when it
is complete; everything that its weights depend on is part of the name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from transformers import AutoConfig, PreTrainedModel

from hpsearch.checkpoints import clear_drafts, drop, replace_folder
from hpsearch.files import draft_of
from hpsearch.folders import quantized_bases
from hpsearch.train.failure import is_out_of_memory
from hpsearch.train.identity import identity_of
from hpsearch.trial import GIB

_LIBRARIES = ("torch", "transformers", "bitsandbytes", "hpsearch")
_MOST_BYTES = 48 * GIB
"""Limit for all copies together; the least recently used are deleted. A 7B base takes 6 to 7 GiB."""
_LEAVES_FREE_BYTES = 10 * GIB
"""Disk space to leave free for checkpoints and results, which matter more than copies."""
_FINGERPRINT = "fingerprint.txt"


def place_of(location: str, revision: dict[str, str], settings: Any, model_class: type) -> Path | None:
    """The path of a base's copy, existing or not; `settings` are everything that its weights depend on besides the
    base.

    None where no copy is made: the base is quantized itself, comes with Python code, or its commit is unknown.
    """
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False, **revision)
    except (OSError, ValueError):  # loading the base will report what is wrong with it
        return None
    if getattr(config, "quantization_config", None) is not None or getattr(config, "auto_map", None) is not None:
        return None
    state = identity_of(location, revision.get("revision"))
    if state is None:
        return None
    libraries = [f"{name} {version(name)}" for name in _LIBRARIES]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = f"{location} {state} {model_class.__name__} {settings} {device} {libraries}"
    name = Path(location).name
    return quantized_bases() / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def read_copy(place: Path, name: str, model_class: Any, options: dict[str, Any]) -> tuple[PreTrainedModel, str] | None:
    """(the model, its expected fingerprint), under its own name again; None: there is no copy that loads."""
    if not place.is_dir():
        return None
    try:
        wanted = (place / _FINGERPRINT).read_text()
        model = model_class.from_pretrained(place, **options)
    except Exception as error:  # any error of JSON and safetensors readers on a broken file
        if is_out_of_memory(error):
            raise
        reject(place, f"{type(error).__name__}: {error}")
        return None
    with contextlib.suppress(OSError):  # another user's copy, or a read-only disk
        os.utime(place)  # marks it as recently used
    model.name_or_path = model.config._name_or_path = name  # the name that adapters are saved with
    return model, wanted


def reject(place: Path, why: str) -> None:
    """Another worker may have deleted it already."""
    print(f"the quantized copy {place} is dropped: {why}", flush=True)
    try:
        drop(place)
    except OSError as error:
        print(f"it can't be removed: {error}", flush=True)


def keep(model: PreTrainedModel, place: Path, fingerprint: str) -> None:
    """Writes the copy, unless it exists, a worker is writing one now, or the disk is nearly full. An error here fails
    no trial.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.parent / "writing.lock", timeout=0):  # two copies at once could fill the disk together
            clear_drafts(place.parent)
            if not place.exists() and _make_room(place.parent, _num_bytes(model)):
                _write(model, place, fingerprint)
    except Timeout:
        return
    except OSError as error:
        print(f"no quantized copy of the base is kept: {error}", flush=True)


def _write(model: PreTrainedModel, place: Path, fingerprint: str) -> None:
    draft = draft_of(place)
    try:
        model.save_pretrained(draft)
        (draft / _FINGERPRINT).write_text(fingerprint)
        replace_folder(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _num_bytes(model: PreTrainedModel) -> int:
    """The approximate file size: the quantization state is less than a byte per 64 weights."""
    return sum(weight.nbytes + weight.nbytes // 16 for weight in model.parameters())


def _make_room(folder: Path, num_bytes: int) -> bool:
    """Deletes the least recently used copies until one of this size is within the limits; False: impossible."""
    copies = sorted(
        (path for path in folder.iterdir() if path.is_dir() and (path / _FINGERPRINT).exists()),
        key=lambda path: path.stat().st_mtime,
    )
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in copies}
    while copies and sum(sizes.values()) + num_bytes > _MOST_BYTES:
        oldest = copies.pop(0)
        sizes.pop(oldest)
        drop(oldest)
    has_room = shutil.disk_usage(folder).free - num_bytes >= _LEAVES_FREE_BYTES and num_bytes <= _MOST_BYTES
    if not has_room:
        print("no quantized copy of the base is kept: the disk is nearly full", flush=True)
    return has_room
