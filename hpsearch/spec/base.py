"""The parent of every spec: frozen, and strict about names."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """Base class of what a person wrote. Unknown keys are mistakes; objects are immutable.

    Infinity and NaN are mistakes too: the store keeps a spec as JSON, which can't express them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, found: Any) -> Any:
        """Makes true and false errors for numbers: pydantic takes true for 1 unless it is strict, and a strict float
        accepts no 1.
        """
        if not isinstance(found, dict):
            return found
        return {
            key: str(value).lower() if isinstance(value, bool) and _takes_numbers(cls, key) else value
            for key, value in found.items()
        }


def _takes_numbers(spec: type[Spec], key: Any) -> bool:
    kinds = _kinds(spec.model_fields[key].annotation) if key in spec.model_fields else set()
    return bool not in kinds and not kinds.isdisjoint({int, float})


def _kinds(annotation: Any) -> set[type]:
    own = {annotation} if isinstance(annotation, type) else set()
    return own.union(*map(_kinds, get_args(annotation)))


Fraction = Annotated[float, Field(gt=0, le=1)]
"""A share of something, above 0 and at most 1."""
