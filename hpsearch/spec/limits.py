"""Limits: how much time and money a study may use, and how long a trainer may be silent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from hpsearch.spec.base import Spec

_DAY, _TIME = r"\d{4}-\d{2}-\d{2}", r"\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
Moment = Annotated[
    datetime, WithJsonSchema({"type": "string", "pattern": rf"^{_DAY}([Tt _]{_TIME}( ?[Zz]|[+-]\d{{2}}:?\d{{2}})?)?$"})
]
"""A date, with or without a time; JSON schema's own date-time requires seconds and a time zone."""
Positive = Annotated[float, Field(gt=0)]


class LimitsSpec(Spec):
    """What a study may use besides trials. Checked before each trial begins: running trials are not cut off."""

    hours: Positive | None = Field(None, description="Hours during which at least one worker was running.")
    until: Moment | None = Field(
        None,
        description="Time after which no trial begins, as 2026-12-24 08:00, by the worker's clock and zone.",
    )
    device_hours: Positive | None = Field(
        None, description="Hours of all workers together, each of which has one device."
    )
    cost: Positive | None = Field(
        None, description="Cost of the device hours at price_per_device_hour, in its currency."
    )
    price_per_device_hour: Positive | None = Field(
        None, description="What one device costs in an hour, in any currency."
    )

    @field_validator("until", mode="before")
    @classmethod
    def _is_no_number(cls, until: object) -> object:
        """pydantic reads a number as seconds since 1970, so that `until: 2026` would be long past."""
        if str(until).replace(".", "").isdigit():
            raise ValueError("expected a date and a time, as 2026-12-24 08:00")
        return until

    @model_validator(mode="after")
    def _has_a_price(self) -> LimitsSpec:
        if self.cost is not None and self.price_per_device_hour is None:
            raise ValueError("cost needs price_per_device_hour: what one device costs in an hour")
        return self


class SilenceSpec(Spec):
    """After how many minutes without a sign of life a trainer counts as hung. It is ended, and its trial continues from
    its last checkpoint in a new one."""

    starting_minutes: Positive = Field(10.0, description="Minutes while the libraries are imported.")
    loading_minutes: Positive = Field(
        60.0, description="Minutes while the base is downloaded, loaded and compiled, and rows are encoded."
    )
    training_minutes: Positive = Field(30.0, description="Minutes from one optimizer step to the next.")
