"""Seconds per trial with a warm base against a process per trial.

The point: in a study of forty trials, a process per trial imports the libraries and loads and quantizes the very
same base forty times.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

from bench.comparison import Comparison, Finding, Say, Side
from bench.searches import RunningSearch, running_search
from bench.shapes import chosen

NUM_TRIALS_SHOWN = 40


def measure(say: Say) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = chosen(folder, say)
        trials = shape.warm_base_pairs + 1
        with (
            running_search(folder / "warm", shape, trials, None) as warm,
            running_search(folder / "fresh", shape, trials, 1) as fresh,
        ):
            start_s = _seconds(warm)
            _seconds(fresh)  # thrown away: files that nobody has read yet would count for one side only
            warm_s, fresh_s = [], []
            for pair in range(shape.warm_base_pairs):
                warm_s.append(_seconds(warm))
                fresh_s.append(_seconds(fresh))
                say(f"pair {pair + 1}: warm {warm_s[-1]:.2f} s, a new process {fresh_s[-1]:.2f} s")
    trial = f"a trial of {shape.steps} steps, {shape.name}"
    later = NUM_TRIALS_SHOWN - 1
    return [
        Comparison(f"seconds per trial, {trial}", "s", Side("warm base", warm_s), Side("process per trial", fresh_s)),
        Comparison(
            f"seconds for {NUM_TRIALS_SHOWN} such trials, from the medians and the first start",
            "s",
            Side("warm base", [start_s + later * median(warm_s)]),
            Side("process per trial", [NUM_TRIALS_SHOWN * median(fresh_s)]),
        ),
    ]


def _seconds(search: RunningSearch) -> float:
    started = time.perf_counter()
    search.run_trial()
    return time.perf_counter() - started
