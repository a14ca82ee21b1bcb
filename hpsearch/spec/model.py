"""Which base model a trial fine-tunes, and how the LoRA adapter on it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hpsearch.spec.base import Spec

TINY_BASES = ("tiny:qwen2", "tiny:gemma3", "tiny:qwen2-vl", "tiny:qwen2.5-vl")
"""Bases that hpsearch builds itself; see `train/tiny`."""

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


class ModelSpec(Spec):
    base: str = Field(description="a hub name, a local folder, or one of the tiny bases (tiny:gemma3 …)")
    revision: str | None = Field(None, description="branch, tag or commit of a hub base")
    adapter: str | None = Field(
        None, description="a LoRA adapter to go on from: a final run's name or folder, an adapter's folder, a hub name"
    )
    adapter_revision: str | None = Field(None, description="branch, tag or commit of a hub adapter")
    adapter_sha256: str | None = Field(None, description="that the adapter must have; `hpsearch best` writes it")
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="nf4: 4-bit NormalFloat with double quantization (QLoRA); none: plain LoRA"
    )
    dtype: Dtype = Field("auto", description="compute type; auto is bfloat16 where the hardware has it")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="attention kernel")
    trust_remote_code: bool = Field(False, description="run Python code that comes with a hub base")

    @property
    def without_adapter(self) -> ModelSpec:
        """The base alone, which is the same whatever adapter a training goes on from."""
        return self.model_copy(update={"adapter": None, "adapter_revision": None, "adapter_sha256": None})

    def found_from(self, folder: Path) -> ModelSpec:
        """With an absolute path where the base is a folder; relative paths count from the study file's `folder`."""
        path = (folder / self.base).expanduser()
        is_local = path.is_dir() and not self.base.startswith("tiny:")
        return self.model_copy(update={"base": str(path.resolve())}) if is_local else self


class HeadSpec(Spec):
    """A classifier: two layers on the mean of the last hidden states, padding left out."""

    hidden: Annotated[int, Field(ge=1, description="width of the layer in between")] = 256
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout before each layer")] = 0.1
    balance_beta: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="class-balanced loss (Cui et al. 2019, https://arxiv.org/abs/1901.05555): rows of a class with "
        "n training rows weigh (1 - beta) / (1 - beta^n); none: all rows weigh the same",
    )


class LoraSpec(Spec):
    """See Hu et al. 2021 (https://arxiv.org/abs/2106.09685)."""

    r: Annotated[int, Field(ge=1, description="rank of the adapter's matrices")] = 16
    alpha: Annotated[int, Field(ge=1, description="the update is scaled by alpha / r")] = 32
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout on the adapter's input")] = 0.05
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all-linear", description="all-linear, or a list of linear layers' names such as [q_proj, v_proj]"
    )
    rslora: bool = Field(False, description="scale by alpha / sqrt(r) instead (https://arxiv.org/abs/2312.03732)")
    vision: bool = Field(False, description="adapt the vision encoder too; false leaves it frozen")
