"""The parent of every spec: frozen, and strict about names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Spec(BaseModel):
    """What a person wrote. Unknown keys are mistakes; a changed value is a new object."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


Fraction = Annotated[float, Field(gt=0, le=1)]
"""A share of something, above 0 and at most 1."""
