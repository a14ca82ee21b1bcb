"""Keeping one worker running: what a cluster's job, a container or a service runs (`hpsearch worker --keep`).

If the machine is lost, the engine that started it (SLURM, Ray, Kubernetes) starts it again elsewhere. If the worker
fails on a working machine, it is replaced here, after a longer wait each time, until it is given up with the reason.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from hpsearch.bridge.stopping import StopFlag
from hpsearch.launch.crew import Crew, supervise
from hpsearch.launch.process import start_worker
from hpsearch.store.workers import JOB_VARIABLE, own_worker_id

STOPPED = 130
"""The exit code after a stop from outside: the process that sent it starts the worker again if it wants it back."""
SAVE = signal.SIGUSR2
"""The signal of `hpsearch stop`, which may be repeated: save and leave. A second SIGTERM would mean to leave without
saving.
"""


def keep_worker(arguments: list[str], environment: dict[str, str], stop: StopFlag, say: Callable[[str], None]) -> int:
    """`arguments` are those of `hpsearch worker`; `environment` overrides this process's own.

    Returns the exit code: STOPPED, or the last worker's own (0: the study has no work left, or `hpsearch stop` asked
    for it).
    """
    signal.signal(SAVE, lambda _number, _frame: stop.order(now=False))
    job = {JOB_VARIABLE: os.environ.get(JOB_VARIABLE) or own_worker_id()}  # the engine's id, or else this process
    crew = Crew(lambda _: start_worker(arguments, environment | job, None), 1, say)
    supervise(crew, stop, say)
    return STOPPED if stop.requested else crew.exit_code
