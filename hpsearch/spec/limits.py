"""Limits: how much time and money a study may use, and how long a trainer may be silent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from hpsearch.spec.base import Spec

Positive = Annotated[float, Field(gt=0)]


class LimitsSpec(Spec):
    """Looked at before each trial begins: one that runs is not cut off."""

    hours: Positive | None = Field(None, description="while any worker was there, from the first one's start on")
    until: datetime | None = Field(None, description="2026-12-24 08:00, by the worker's clock and time zone")
    device_hours: Positive | None = Field(None, description="the hours of all workers together, one device each")
    cost: Positive | None = Field(None, description="at the price below, in its currency")
    price_per_device_hour: Positive | None = Field(None, description="what one device costs in an hour")

    @field_validator("until", mode="before")
    @classmethod
    def _is_no_number(cls, until: object) -> object:
        """pydantic takes one for seconds since 1970, so that `until: 2026` would be long past."""
        if str(until).replace(".", "").isdigit():
            raise ValueError("expected a date and a time, as 2026-12-24 08:00")
        return until

    @model_validator(mode="after")
    def _has_a_price(self) -> LimitsSpec:
        if self.cost is not None and self.price_per_device_hour is None:
            raise ValueError("cost needs price_per_device_hour: what one device costs in an hour")
        return self


class SilenceSpec(Spec):
    """After how many minutes without a sign of life a trainer counts as hung: it is ended, its trial goes on from the
    last checkpoint in a new one."""

    starting_minutes: Positive = Field(10.0, description="the libraries are imported")
    loading_minutes: Positive = Field(60.0, description="the base is downloaded, loaded, compiled; rows are encoded")
    training_minutes: Positive = Field(30.0, description="from one optimizer step to the next")
