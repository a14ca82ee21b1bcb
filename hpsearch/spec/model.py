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
    base: str = Field(
        description=f"Base model: a hub name, a local folder, or a tiny model built here ({', '.join(TINY_BASES)})."
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit of a base on the hub; its main branch by default."
    )
    adapter: str | None = Field(
        None,
        description="LoRA adapter to continue from: a final run's name or folder, a PEFT folder, or a hub name.",
    )
    adapter_revision: str | None = Field(None, description="Branch, tag or commit of an adapter on the hub.")
    adapter_sha256: str | None = Field(
        None, description="SHA-256 that the adapter must have; `hpsearch best` writes it."
    )
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="nf4: 4-bit NormalFloat with double quantization (QLoRA); none: plain LoRA."
    )
    dtype: Dtype = Field("auto", description="Compute dtype; auto is bfloat16 where the hardware has it.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", description="Attention implementation of transformers."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with a base from the hub.")

    @property
    def without_adapter(self) -> ModelSpec:
        """The base alone: it does not depend on the adapter that training continues from."""
        return self.model_copy(update={"adapter": None, "adapter_revision": None, "adapter_sha256": None})

    def found_from(self, folder: Path) -> ModelSpec:
        """With an absolute path where the base is a folder; relative paths start at the study file's `folder`."""
        path = (folder / self.base).expanduser()
        is_local = path.is_dir() and not self.base.startswith("tiny:")
        return self.model_copy(update={"base": str(path.resolve())}) if is_local else self


class HeadSpec(Spec):
    """A classifier: two layers on the mean of the last hidden states, without padding."""

    hidden: Annotated[int, Field(ge=1, description="Units of the hidden layer.")] = 256
    dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout probability before each of the two layers.")] = 0.1
    balance_beta: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="Class-balanced loss: a row of a class with n training rows weighs (1 - beta) / (1 - beta^n) "
        "(Cui et al. 2019, https://arxiv.org/abs/1901.05555); without it all rows weigh the same.",
    )


class LoraSpec(Spec):
    """The LoRA adapter (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    r: Annotated[int, Field(ge=1, description="Rank of the adapter's matrices.")] = 16
    alpha: Annotated[int, Field(ge=1, description="Scale of the adapter: its output is multiplied by alpha / r.")] = 32
    dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout probability on the adapter's input.")] = 0.05
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all-linear",
        description="Layers with an adapter: all-linear, or names of linear layers such as [q_proj, v_proj].",
    )
    rslora: bool = Field(
        False,
        description="Multiply by alpha / sqrt(r) instead of alpha / r (rsLoRA, https://arxiv.org/abs/2312.03732).",
    )
    vision: bool = Field(False, description="Adapt the vision encoder too; false leaves it frozen.")
