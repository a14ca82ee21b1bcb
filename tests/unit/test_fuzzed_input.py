"""Broken input is refused in words, in time and without secrets; and the fuzzer would notice if it were not."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from bench.faults import fuzz as fuzz_module
from bench.faults.fuzz import SECRETS, Tally, fuzz, run_case
from bench.faults.inputs import KINDS
from hpsearch.errors import InputError


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:  # noqa: ARG001
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)


@pytest.mark.parametrize("kind", KINDS)
def test_broken_input_ends_in_words(kind: str, tmp_path: Path) -> None:
    (tally,) = fuzz(60 if kind == "study files" else 40, seed=0, folder=tmp_path, kinds=[kind])
    assert tally.is_clean, tally.found
    assert tally.cases >= 40
    assert tally.refused >= 5
    assert tally.accepted >= 1


def test_the_same_seed_breaks_the_same_files(tmp_path: Path) -> None:
    found = [fuzz(40, seed, tmp_path / name, ["folders"])[0] for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    counts = [(tally.refused, tally.accepted) for tally in found]
    assert counts[0] == counts[1]


def come_to(kind: str) -> Tally:
    """What the fuzzer makes of a case that goes wrong like this."""

    def case(_: Random) -> None:
        if kind == "secret":
            raise InputError(f"no store at {SECRETS['HPSEARCH_STORE']}")
        while kind == "hang":
            pass
        raise KeyError(kind)

    tally = Tally(kind)
    run_case(tally, 0, case, Random(0))
    return tally


def test_a_traceback_is_counted() -> None:
    tally = come_to("traceback")
    assert (tally.tracebacks, tally.is_clean, list(tally.found)) == (1, False, ["KeyError at case"])


def test_a_hang_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_module, "DEADLINE_S", 0.01)
    tally = come_to("hang")
    assert (tally.hangs, tally.is_clean, list(tally.found)) == (1, False, ["hang"])


def test_a_secret_is_counted() -> None:
    tally = come_to("secret")
    assert (tally.refused, tally.secrets, tally.is_clean) == (1, 1, False)
