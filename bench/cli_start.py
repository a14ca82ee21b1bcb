"""How soon the command line answers, against the import of torch alone: the control plane must not pay for it."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.comparison import Comparison, Finding, Say, Side

NUM_PAIRS = 7


def measure(say: Say) -> list[Finding]:
    own_s, torch_s = [], []
    for pair in range(NUM_PAIRS + 1):
        own, other = _seconds("-m", "hpsearch", "--help"), _seconds("-c", "import torch")
        if pair:  # the first pair is thrown away: it reads files from the disk that later ones find in memory
            own_s.append(own)
            torch_s.append(other)
            say(f"pair {pair}: hpsearch --help {own:.2f} s, import torch {other:.2f} s")
    measured = "seconds until the process has ended"
    return [Comparison(measured, "s", Side("hpsearch --help", own_s), Side('python -c "import torch"', torch_s))]


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
