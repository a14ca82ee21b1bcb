"""What a task says: which classes load its models and processors, and whether its rows have images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    model_class: Any
    """The transformers auto class whose `from_pretrained` loads the model."""
    processor_class: Any
    """The auto class for its tokenizer or processor."""
    has_images: bool
