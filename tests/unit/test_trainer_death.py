"""A trainer dies with its worker, also where it hangs and reads no pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

CHILD = """
import signal
from hpsearch.train.__main__ import _die_with_parent
_die_with_parent()
print("ready", flush=True)
signal.pause()
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_a_trainer_that_hangs_dies_with_its_worker() -> None:
    worker = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    trainer = psutil.Process(int(worker.stdout.readline()))
    trainer.suspend()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    try:
        trainer.wait(timeout=30)
    finally:
        if trainer.is_running():
            trainer.kill()
