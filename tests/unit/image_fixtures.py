"""Images, and rows that name them or hold them."""

from __future__ import annotations

import io
from typing import Any

import datasets
from PIL import Image

COLUMNS = {"image": "i", "question": "q", "answer": "a"}


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (colour, 255 - colour, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def rows_with(*images: Any) -> list[dict[str, Any]]:
    return [{"i": image, "q": f"Q{i}?", "a": "a"} for i, image in enumerate(images)]


def embedded(*images: bytes | None) -> datasets.Dataset:
    features = datasets.Features({"i": datasets.Image(), "q": datasets.Value("string"), "a": datasets.Value("string")})
    values = [image and {"bytes": image, "path": None} for image in images]
    columns = {"i": values, "q": [f"Q{i}?" for i in range(len(images))], "a": ["a"] * len(images)}
    return datasets.Dataset.from_dict(columns, features=features)
