"""A trainer's log begins with what concerns the person."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import pytest

from hpsearch.train.__main__ import _hush_missing_kernels

NAME = "bitsandbytes.backends.cpu.ops"


def test_a_missing_package_that_is_not_needed_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    _hush_missing_kernels()
    log = logging.getLogger(NAME)
    try:
        log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please …", "No module")
        log.warning("something else")
    finally:
        log.filters.pop()
    assert [record.message for record in caplog.records] == ["something else"]


def test_bitsandbytes_still_warns_so() -> None:
    """Else the filter is no longer needed."""
    found = find_spec("bitsandbytes")
    assert found is not None
    assert found.origin is not None
    source = (Path(found.origin).parent / "backends/cpu/ops.py").read_text()
    assert '"Failed to load CPU gemm_4bit_forward from kernels-community' in source
    assert "logger = logging.getLogger(__name__)" in source
