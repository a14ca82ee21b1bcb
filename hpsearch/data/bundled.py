"""Data sets that ship with scikit-learn, as questions and answers: nothing to download."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


def digits() -> Dataset:
    """1,797 handwritten digits, 8×8 pixels; columns image, question, answer, and `wrong`, another digit each."""
    import datasets
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = [
        Image.fromarray(np.uint8(np.round(pixels * (255 / 16))), mode=None).convert("RGB") for pixels in bunch.images
    ]
    columns = {
        "image": images,
        "question": ["Which digit is written here?"] * len(images),
        "answer": [str(target) for target in bunch.target],
        "wrong": [str((target + 1 + number % 9) % 10) for number, target in enumerate(bunch.target)],
    }
    text = datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), "question": text, "answer": text, "wrong": text})
    return datasets.Dataset.from_dict(columns, features=features)


def breast_cancer() -> Dataset:
    """569 tumours; the question lists the mean measurements, the answer is malignant or benign."""
    import datasets
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    names = [str(name) for name in bunch.feature_names[:10]]
    questions = [
        "Is this tumour malignant or benign? "
        + ", ".join(f"{name.removeprefix('mean ')} {value:.3g}" for name, value in zip(names, row, strict=False))
        for row in bunch.data
    ]
    answers = [str(bunch.target_names[target]) for target in bunch.target]
    return datasets.Dataset.from_dict({"question": questions, "answer": answers})


BUNDLED: dict[str, Callable[[], Dataset]] = {"digits": digits, "breast_cancer": breast_cancer}
