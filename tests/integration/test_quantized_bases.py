"""A base is quantized once: what is read from its copy is the very same model, and a broken copy is never used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from filelock import FileLock

from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.train import quantized
from hpsearch.train.adapters import attach
from hpsearch.train.bases import Base, find_base, load_base
from hpsearch.train.tasks import TASKS
from hpsearch.trial import GIB
from tests.integration.test_precision import learned, loss_of

GEMMA = ModelSpec(base="tiny:gemma3", dtype="bfloat16")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the copies, empty."""
    folder = tmp_path / "quantized"
    monkeypatch.setattr(quantized, "quantized_bases", lambda: folder)
    return folder


def load(spec: ModelSpec = GEMMA) -> Base:
    return load_base(TASKS["text-sft" if spec.base == "tiny:qwen2" else "vlm-sft"], spec, lambda *_: None)


def is_read(base: Base) -> bool:
    return bool(base.model.hf_quantizer.pre_quantized)  # type: ignore[union-attr]


def copies(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def trained_loss(base: Base, dtype: str) -> float:
    """After a step of a fresh adapter."""
    torch.manual_seed(0)
    model = attach(base.fresh_model(), LoraSpec(r=4, dropout=0.0))
    batch = learned(model)
    optimizer = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=0.1)
    with torch.autocast("cpu", dtype=getattr(torch, dtype), enabled=dtype != "float32"):
        model(**batch).loss.backward()
    optimizer.step()
    return loss_of(model, getattr(torch, dtype))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("tiny:qwen2", "float32"),
        ("tiny:gemma3", "float16"),
        ("tiny:qwen2-vl", "bfloat16"),
        ("tiny:qwen2.5-vl", "float32"),
    ],
)
def test_what_is_read_is_the_very_same_model(name: str, dtype: str, kept: Path) -> None:
    spec = ModelSpec(base=name, dtype=dtype)  # type: ignore[arg-type]
    first, second = load(spec), load(spec)
    assert (is_read(first), is_read(second)) == (False, True)
    assert len(copies(kept)) == 1
    assert first.fingerprint() == second.fingerprint()
    for (where, one), other in zip(first.model.named_modules(), second.model.modules(), strict=True):
        if isinstance(one, Linear4bit):
            assert isinstance(other, Linear4bit)
            ours, theirs = (layer.weight.quant_state.as_dict(packed=True) for layer in (one, other))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours if isinstance(ours[key], torch.Tensor)), (
                where
            )
    for one, other in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    is_tied = first.model.get_output_embeddings().weight is first.model.get_input_embeddings().weight
    assert (second.model.get_output_embeddings().weight is second.model.get_input_embeddings().weight) is is_tied
    assert first.model.config._attn_implementation == second.model.config._attn_implementation == "sdpa"
    assert first.model.name_or_path == second.model.name_or_path == find_base(spec, lambda *_: None)
    assert trained_loss(first, dtype) == trained_loss(second, dtype)


def cut(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def changed(copy: Path) -> None:
    file = copy / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5000] ^= 255
    file.write_bytes(bytes(content))


def emptied(copy: Path) -> None:
    (copy / "config.json").write_text("")


def without_its_fingerprint(copy: Path) -> None:
    (copy / "fingerprint.txt").unlink()


@pytest.mark.parametrize("damage", [cut, changed, emptied, without_its_fingerprint])
def test_a_torn_copy_is_dropped_and_made_again(damage: Callable[[Path], None], kept: Path) -> None:
    first = load()
    damage(copies(kept)[0])
    second = load()
    assert not is_read(second)
    assert second.fingerprint() == first.fingerprint()
    assert is_read(load())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory")])
def test_no_memory_is_no_fault_of_the_copy(error: Exception, kept: Path) -> None:
    load(ModelSpec(base="tiny:qwen2"))
    (copy,) = copies(kept)
    full = Mock(from_pretrained=Mock(side_effect=error))
    with pytest.raises(type(error)):
        quantized.read_copy(copy, "tiny:qwen2", full, {})
    assert copies(kept) == [copy]


def test_none_is_kept_of_what_has_none_or_can_t_be_distinguished(kept: Path, tmp_path: Path) -> None:
    assert not is_read(load(ModelSpec(base="tiny:qwen2")))
    (copy,) = copies(kept)
    itself = tmp_path / "quantized-itself"
    shutil.copytree(copy, itself)
    assert quantized.place_of(str(itself), {}, "", Linear4bit) is None
    assert quantized.place_of("nobody/knows-this-one", {}, "", Linear4bit) is None
    assert load(ModelSpec(base="tiny:qwen2", quantization="none")).model.dtype == torch.float32
    assert copies(kept) == [copy]


def test_another_base_type_or_file_is_another_copy(kept: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(find_base(ModelSpec(base="tiny:qwen2"), lambda *_: None), own)
    spec = ModelSpec(base=str(own))
    load(ModelSpec(base="tiny:qwen2"))
    for number, different in enumerate([spec, spec.model_copy(update={"dtype": "bfloat16"})], start=2):
        load_base(TASKS["text-sft"], different, lambda *_: None)
        assert len(copies(kept)) == number
    os.utime(own / "model.safetensors")  # saved again
    assert not is_read(load_base(TASKS["text-sft"], spec, lambda *_: None))
    assert len(copies(kept)) == 4


def test_a_full_disk_another_writer_or_a_forbidden_folder_hinder_no_trial(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.mkdir()
    with FileLock(kept / "writing.lock"):
        assert not is_read(load())
    with monkeypatch.context() as patch:
        patch.setattr(quantized.shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * GIB))
        assert not is_read(load())
    assert copies(kept) == []
    with monkeypatch.context() as patch:
        patch.setattr(quantized, "quantized_bases", lambda: kept / "writing.lock")
        assert not is_read(load())
    assert copies(kept) == []


def test_what_was_used_longest_ago_makes_room(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(GEMMA)
    (used,) = copies(kept)
    os.utime(used, (1, 1))
    load(ModelSpec(base="tiny:qwen2"))
    (unused,) = set(copies(kept)) - {used}
    os.utime(unused, (2, 2))
    assert is_read(load(GEMMA))
    monkeypatch.setattr(quantized, "_MOST_BYTES", sum(file.stat().st_size for file in kept.glob("*/*")))
    assert quantized._make_room(kept, 0)
    assert copies(kept) == sorted([used, unused])
    assert quantized._make_room(kept, 1)
    assert copies(kept) == [used]
    assert not quantized._make_room(kept, quantized._MOST_BYTES + 1)


def test_what_a_killed_trainer_left_is_cleared(kept: Path) -> None:
    (kept / f".torn.{'0' * 32}").mkdir(parents=True)
    load()
    assert [path.name for path in kept.glob(".*")] == []
