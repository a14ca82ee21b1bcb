"""Features of images: the output of a frozen vision tower, computed once, kept on disk, and given to the model instead
of pixels.

With large images and short answers, the tower and its projector are most of a step's work. When they are frozen and
have no adapter, their output for an image is the same in every step, trial, validation and evaluation.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from importlib.metadata import version
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hpsearch.data.decoding import DECODED_AS
from hpsearch.data.images import CheckedImage
from hpsearch.spec.data import ImageSize
from hpsearch.train.adapters import adapts_vision
from hpsearch.train.bases import Base, compute_dtype
from hpsearch.train.encoding import Encoder
from hpsearch.train.identity import identity_of
from hpsearch.train.images import Outputs, Picture, Resized
from hpsearch.train.tensor_cache import TensorCache
from hpsearch.trial import CacheConfig, RowsConfig

_MODEL_TYPES = ("gemma3", "qwen2_vl", "qwen2_5_vl")
"""Models whose forward uses only the `pooler_output` of an image; Qwen3-VL's also uses intermediate layers."""
_FEATURES = "features"
_PIXELS = "pixel_values"


class Features:
    """Runs one base's vision tower. Always on a single image, in evaluation mode and with the study's precision, so
    that the result depends neither on the caller nor on other images.
    """

    def __init__(self, base: Base, size: ImageSize | None, cache: TensorCache | None) -> None:
        self._base = base
        self._tower: Any = None
        assert base.model.name_or_path is not None, "whoever loads a base names it"
        identity = identity_of(base.model.name_or_path, base.spec.revision)
        self._cache = cache if identity else None
        self._folder = _key(base, size, identity)

    @staticmethod
    def fit(base: Base) -> bool:
        """Whether the base accepts features instead of pixels."""
        return base.model.config.model_type in _MODEL_TYPES

    def find(self, image: CheckedImage) -> tuple[Picture, Outputs] | None:
        if self._cache is None:
            return None
        found = self._cache.read(f"{self._folder}/{image.sha256}")
        if found is None or _FEATURES not in found:
            return None
        features = found.pop(_FEATURES)
        return Picture(image.sha256, {}, features, is_mapped=True), found

    def picture(self, image: CheckedImage, outputs: Outputs) -> Picture:
        return Picture(image.sha256, outputs)

    def given(self, pictures: list[Picture]) -> dict[str, BaseModelOutputWithPooling]:
        """The model's `mm_encoder_outputs` (transformers 5.24, modeling_gemma3.py, `Gemma3Model.forward`).

        Gemma 3 takes one tensor of shape (images and their crops, tokens, width), the Qwens a list of (tokens, width).
        """
        for picture in pictures:
            self._give_features(picture, pictures)
        features = [picture.features for picture in pictures if picture.features is not None]
        together: Any = torch.cat(features) if features[0].dim() == 3 else features
        return {"image": BaseModelOutputWithPooling(pooler_output=together)}

    def _give_features(self, picture: Picture, beside: list[Picture]) -> None:
        """Sets the picture's features: they may exist already, from another row with this image or another worker."""
        if picture.features is not None:
            return
        twin = next((other for other in beside if other.name == picture.name and other.features is not None), None)
        if twin is None:
            twin = self._kept(picture.name) or self._ask(picture)
        picture.features, picture.is_mapped, picture.pixels = twin.features, twin.is_mapped, {}

    def _kept(self, name: str) -> Picture | None:
        found = self._cache.read(f"{self._folder}/{name}") if self._cache else None
        return Picture(name, {}, found[_FEATURES], is_mapped=True) if found and _FEATURES in found else None

    def _ask(self, picture: Picture) -> Picture:
        features = self._run_tower(picture.pixels)
        if self._cache is None:
            return Picture(picture.name, {}, features)
        others = {name: value for name, value in picture.pixels.items() if not name.startswith(_PIXELS)}
        self._cache.write(f"{self._folder}/{picture.name}", others | {_FEATURES: features})
        return self._kept(picture.name) or Picture(picture.name, {}, features)

    @torch.no_grad()
    def _run_tower(self, outputs: Outputs) -> torch.Tensor:
        """The tower's result for one image's `outputs`: Gemma 3's (image and its crops, tokens, width), the Qwens'
        (tokens, width); on the CPU, in the compute dtype.
        """
        if self._tower is None:
            self._tower = self._base.fresh_model().eval().base_model
        ask = self._tower.get_image_features
        device, dtype = self._base.model.device, compute_dtype(self._base.spec)
        taken = inspect.signature(ask).parameters
        inputs = {name: value.to(device) for name, value in outputs.items() if name in taken}
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            found = ask(**inputs, return_dict=True).pooler_output
        whole = found if isinstance(found, torch.Tensor) else torch.cat(found)
        # CUDA's autocast makes layer norms return float32, and Gemma 3's projector casts its 16-bit product to that.
        return whole.to(dtype).cpu()


def make_encoder(
    base: Base, model: PeftModel | PreTrainedModel, rows: RowsConfig, images: CacheConfig | None, *, has_images: bool
) -> Encoder:
    """For `model`, which is the base or has an adapter on it."""
    cache = TensorCache(images) if images and images.limit_bytes else None
    features = resized = None
    if has_images and Features.fit(base) and not adapts_vision(model):
        features = Features(base, rows.image_size, cache)
    elif has_images and cache and rows.image_size:
        resized = Resized(cache, rows.image_size)
    processor = base.fresh_processor()
    return Encoder(processor, rows, has_images=has_images, features=features, resized=resized, kept=base.rows)


def _key(base: Base, size: ImageSize | None, identity: str | None) -> str:
    """The folder's name: a digest of everything that features depend on besides the image."""
    cuda = torch.cuda.is_available()
    facts = [
        base.model.name_or_path if identity is None else identity,
        base.spec.quantization,
        str(compute_dtype(base.spec)),
        base.spec.attention,
        size,
        DECODED_AS,
        base.processor.image_processor.to_json_string(),
        torch.cuda.get_device_name() if cuda else f"cpu {torch.backends.cpu.get_cpu_capability()}",
        [version(name) for name in ("torch", "transformers", "bitsandbytes")],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
