"""Values as a person would write them in a study file, on one line of YAML."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml


def scalar(value: Any) -> str:
    """`value` on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str):
        is_plain = re.fullmatch(r"[A-Za-z][\w./@+-]*(:[\w./-]+)*", value, re.ASCII) and yaml.safe_load(value) == value
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def number(value: float) -> str:
    """2e-5, not 2e-05 or 0.00002."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return repr(value)
    mantissa, exponent = f"{value:.10g}".split("e") if "e" in f"{value:.10g}" else f"{value:.9e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"
