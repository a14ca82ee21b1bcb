"""The parent of every spec: frozen, and strict about names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Spec(BaseModel):
    """What a person wrote. Unknown keys are mistakes; a changed value is a new object.

    Infinity and NaN are mistakes too: JSON, in which the store keeps a spec, has no word for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


Fraction = Annotated[float, Field(gt=0, le=1)]
"""A share of something, above 0 and at most 1."""
