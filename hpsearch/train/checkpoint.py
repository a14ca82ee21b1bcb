"""Saving a model so that other tools can read it, with the files of the base that it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import PreTrainedModel

from hpsearch.files import draft_of, sync, write_text
from hpsearch.jobs import Tell
from hpsearch.spec.model import ModelSpec
from hpsearch.train.bases import find_base

_OWN_FILES = (
    "tokenizer*",
    "*.model",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "*processor_config.json",
    "generation_config.json",
    "LICENSE*",
    "NOTICE*",
)

_PROBE_BYTES = 2**20


def save_like_base(model: PreTrainedModel, processor: Any, spec: ModelSpec, folder: Path, tell: Tell) -> None:
    """Writes weights, config, and the base's own tokenizer, processor and generation files.

    Training changes none of these, and other tools know the base's own. transformers 5 writes different ones, and no
    tokenizer.model, which llama.cpp reads for Gemma.
    """
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in _own_files(spec, tell):
        shutil.copyfile(file, folder / file.name)
    _name_special_tokens(folder / "tokenizer_config.json")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raises the OSError of a full or read-only disk, whatever error a library turns it into.

    torch 2.15 says "unexpected pos 64 vs 0" (caffe2/serialize/inline_container.cc, https://github.com/pytorch/pytorch),
    safetensors 0.8 raises an error of its own.
    """
    try:
        yield
    except (RuntimeError, SafetensorError):
        folder.mkdir(parents=True, exist_ok=True)
        probe = draft_of(folder / "probe")
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
            sync(probe)
        finally:
            probe.unlink(missing_ok=True)
        raise


def _own_files(spec: ModelSpec, tell: Tell) -> list[Path]:
    location = find_base(spec, tell)
    if not Path(location).is_dir():
        location = snapshot_download(location, revision=spec.revision, allow_patterns=list(_OWN_FILES))
    return [file for file in sorted(Path(location).iterdir()) if any(map(file.match, _OWN_FILES)) and file.is_file()]


def _name_special_tokens(file: Path) -> None:
    """Renames additional special tokens to names that transformers 4 and 5 both accept.

    5 writes a list under a name that is a dict for 4 ("'list' object has no attribute 'keys'"); llama.cpp's converter
    runs with 4.57 (its requirements/requirements-convert_legacy_llama.txt).
    """
    if not file.exists():
        return
    content = json.loads(file.read_text())
    if isinstance(content.get("extra_special_tokens"), list):
        content["additional_special_tokens"] = content.pop("extra_special_tokens")
        write_text(file, json.dumps(content, indent=2, ensure_ascii=False))
