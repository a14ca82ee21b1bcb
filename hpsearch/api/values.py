"""What a notebook gives, as a JSONL file would have it: images as paths, and None for what is missing."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from hpsearch.data.images import keep_image, place_of
from hpsearch.data.prepared import DataFolder
from hpsearch.errors import InputError
from hpsearch.folders import StorageFolder


def picture_files(pictures: Any, storage: StorageFolder) -> list[str]:
    """The paths of no, one or several images."""
    if pictures is None:
        return []
    return [_as_file(each, storage) for each in (pictures if isinstance(pictures, list | tuple) else [pictures])]


def _as_file(picture: Any, storage: StorageFolder) -> str:
    """The path of an image; a PIL image is written to the folder of images that came as bytes."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    if not isinstance(picture, Image.Image):
        raise InputError(f"image: expected a path or a PIL image, found {type(picture).__name__}")
    upright, content = ImageOps.exif_transpose(picture), io.BytesIO()
    try:
        upright.save(content, "PNG")
    except OSError:  # PNG has no such mode, for example CMYK
        upright.convert("RGB").save(content, "PNG")
    path = place_of(hashlib.sha256(content.getvalue()).hexdigest(), DataFolder(storage.path).images)
    keep_image(content.getvalue(), path)
    return str(path)


def plain(value: Any, storage: StorageFolder) -> Any:
    """A cell's value as in a JSONL file: paths for images, lists for arrays, and None for NaN, NaT and NA."""
    if isinstance(value, np.ndarray | np.generic):  # pandas reads a Parquet file's lists as arrays
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(each, storage) for each in value]
    if isinstance(value, Mapping):
        return {name: plain(each, storage) for name, each in value.items()}
    if isinstance(value, os.PathLike | Image.Image):
        return _as_file(value, storage)
    return None if value is not None and pd.isna(value) else value
