"""The ways as processes, seen from the race: started, given their turns, timed, ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil

from bench.race.setting import Setting
from hpsearch.bridge.trainer_process import _DEFAULTS as ENVIRONMENT

OURS = "hpsearch"
WAYS = {
    OURS: "ours",
    "the tutorial's loop": "tutorial",
    "Trainer.hyperparameter_search": "trainer_search",
    "Ray Tune": "ray_tune",
}
UNCOUNTED = ("Ray Tune",)
"""Ways whose processor time is not known: Ray kills the process of a trial that it stops, and with it what it took."""
_LEAVING_S = 20.0
_REPOSITORY = Path(__file__).parents[2]


@dataclass
class Seen:
    """Of one way: seconds until it was ready, and of each trial its seconds and its validation losses."""

    start_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    """Of each trial, on all cores, by the way's own processes: what others do on the machine is not in it."""

    def total_s(self) -> float:
        return self.start_s + sum(self.seconds)

    def trials_per_hour(self) -> float:
        return 3600 * len(self.seconds) / self.total_s()

    def pruned(self, setting: Setting) -> int:
        return sum(len(losses) < setting.reports for losses in self.losses)

    def steps(self, setting: Setting) -> int:
        """Optimizer steps done, pruned trials' among them."""
        return setting.steps_per_report * sum(map(len, self.losses))


def missing(module: str) -> str | None:
    """Why a way can't be measured."""
    if module == "ray_tune" and find_spec("ray") is None:
        return "Ray is not installed: pip install 'hpsearch[bench]'"
    return None


def processor_seconds(pid: int) -> float:
    """User and system time of a process and all that it started, those among them that have ended."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += sum(each.cpu_times()[:4])
    return total


class Racer:
    def __init__(self, name: str, module: str, folder: Path) -> None:
        self.name = name
        self.seen = Seen()
        self._log = folder / "log.txt"
        self._started = time.perf_counter()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=_REPOSITORY,
                env=ENVIRONMENT | os.environ,
            )

    def wait_until_ready(self) -> None:
        self._line()
        self.seen.start_s = time.perf_counter() - self._started

    def run_trial(self) -> None:
        assert self._process.stdin is not None
        started, used = time.perf_counter(), processor_seconds(self._process.pid)
        self._process.stdin.write("next\n")
        self._process.stdin.flush()
        losses = json.loads(self._line())["losses"]
        self.seen.seconds.append(time.perf_counter() - started)
        self.seen.processor_s.append(processor_seconds(self._process.pid) - used)
        self.seen.losses.append(losses)

    def _line(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline().strip():
            return line
        last_words = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}:\n{last_words}")

    def end(self) -> None:
        """Closes its stdin, which ends it with everything that it started; what does not end is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_LEAVING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def racers(folder: Path, ways: dict[str, str]) -> Iterator[dict[str, Racer]]:
    """One after the other, so that no start slows another one's down."""
    found = {}
    with ExitStack() as stack:
        for name, module in ways.items():
            (folder / module).mkdir()
            racer = Racer(name, f"bench.race.{module}", folder / module)
            stack.callback(racer.end)
            racer.wait_until_ready()
            found[name] = racer
        yield found
