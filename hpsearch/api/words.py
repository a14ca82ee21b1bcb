"""Errors in a notebook's words: an option of a verb is an argument of a function."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hpsearch.errors import InputError

_ARGUMENTS = {
    "--store": "store",
    "--image": "image",
    "--question": "question",
    "--run names one": "run names one",
    "write them to a JSONL file for --input": "give them to predict_rows",
}


@contextmanager
def in_python() -> Iterator[None]:
    """Within this, errors name an argument as in Python."""
    try:
        yield
    except InputError as error:
        words = re.sub("|".join(map(re.escape, _ARGUMENTS)), lambda found: _ARGUMENTS[found[0]], str(error))
        if words == str(error):
            raise
        raise InputError(words) from None
