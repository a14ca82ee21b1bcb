"""The study files that come with hpsearch: those that run anywhere, without a GPU and without a download."""

from __future__ import annotations

from pathlib import Path

import hpsearch

EXAMPLES = ("quickstart", "breast_cancer_qa", "breast_cancer_classify", "preference")


def example_file(name: str) -> Path:
    """In a wheel it is inside the package, in a checkout beside it (pyproject.toml, force-include)."""
    package = Path(hpsearch.__file__).parent
    inside = package / "studies" / f"{name}.yaml"
    return inside if inside.exists() else package.parent / "studies" / inside.name
