"""The driver: what a launch's one Ray job runs on the cluster. It starts a task for each worker, and waits.

It holds no state: if it dies, Ray ends its tasks, their workers save and leave, and everything is in the store.

Orders come and stops are asked for through Ray's internal key-value store, in the head's memory. What a job is given in
its runtime environment or its metadata, anyone who may list jobs reads, and Ray logs it on each node
(ray 2.60.0, dashboard/modules/job/job_head.py; dashboard/runtime_env_redaction.py hides it from browsers alone).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch.errors import HpsearchError
from hpsearch.launch.keep import STOPPED
from hpsearch.launch.leash import GENTLY, Ending, Tethered, start_leash
from hpsearch.store.workers import JOB_VARIABLE
from hpsearch.trial import Record

_LOOK_EVERY_S = 1.0


class ClusterOrder(Record):
    """Workers to start, for the driver: one task each, with these resources."""

    job_ids: Sequence[str]
    logs: Sequence[str]
    arguments: Sequence[str]
    study_text: str
    environment: Mapping[str, str]
    folder: str
    setup: str
    num_gpus: float
    num_cpus: int
    memory: int

    def tethered(self, index: int) -> Tethered:
        return Tethered(
            arguments=self.arguments,
            study_text=self.study_text,
            environment={**self.environment, JOB_VARIABLE: self.job_ids[index]},
            setup=self.setup,
            folder=self.folder,
            log=self.logs[index],
        )


class WorkerEnded(HpsearchError):
    """A worker ended for good, and its job with it."""


def order_key(launch: str) -> str:
    return f"hpsearch-order-{launch}.zip"


def stop_key(launch: str) -> str:
    return f"hpsearch-stop-{launch}.zip"


def main() -> None:
    import ray

    launch = sys.argv[1]
    ray.init(logging_level=logging.WARNING)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())  # `ray job stop`, after ray.init, which sets its own
    try:
        order = ClusterOrder.model_validate_json(_take(order_key(launch)))
        sys.exit(_run(launch, order, asked))
    finally:
        _forget(stop_key(launch))


def _run(launch: str, order: ClusterOrder, asked: threading.Event) -> int:
    """The exit code: 0, or 1 where a worker ended for another reason than that no work is left."""
    import ray

    task: Any = ray.remote(hold_worker)
    options = {"num_cpus": order.num_cpus, "num_gpus": order.num_gpus, "memory": order.memory or None}
    spread = {"scheduling_strategy": "SPREAD", "max_retries": -1}
    waiting = {
        task.options(name=f"{launch}/{index}", **options, **spread).remote(launch, order.tethered(index)): index
        for index in range(len(order.job_ids))
    }
    print(f"{len(waiting)} workers, in {order.logs[0]} and so on", flush=True)
    code, is_stopped = 0, False
    while waiting:
        if asked.is_set():
            _put(stop_key(launch), GENTLY)
            asked.clear()
        if not is_stopped and _read(stop_key(launch)):
            is_stopped = True
            for waits in waiting:
                ray.cancel(waits)  # a pending task never starts; a running one is told, and reads the same key
        for ended in ray.wait(list(waiting), num_returns=len(waiting), timeout=_LOOK_EVERY_S)[0]:
            code |= _tell_end(waiting.pop(ended), ended)
    return code


def _tell_end(index: int, ended: Any) -> int:
    import ray

    try:
        print(f"worker {index}: {ray.get(ended)}", flush=True)
        return 0
    except ray.exceptions.TaskCancelledError:
        print(f"worker {index}: stopped")
        return 0
    except ray.exceptions.RayError as error:
        print(f"worker {index}: {str(error).strip().splitlines()[-1]}")
        return 1


def hold_worker(launch: str, task: Tethered) -> str:
    """A Ray task: keeps a worker until it ends or a stop is requested. It repeats the worker's output, so that `ray job
    logs` has it where no folder is shared.

    Raises WorkerEnded, which Ray doesn't retry; it does retry when the node is lost.
    """
    log = Path(task.log)
    said = log.stat().st_size if log.exists() else 0
    leash, answer = start_leash(task), b""
    with leash:
        while not answer.endswith(b"\n"):
            with contextlib.suppress(KeyboardInterrupt):  # from ray.cancel: the key has the same request, and its kind
                _pass_on(leash, _read(stop_key(launch)))
                said = _say_new(log, said)
                answer += _hear(leash)
    _say_new(log, said)
    ending = Ending.model_validate_json(answer)
    if ending.code not in (0, STOPPED):
        raise WorkerEnded(ending.said or f"exit code {ending.code}")
    return ending.said


def _pass_on(leash: subprocess.Popen[bytes], word: bytes | None) -> None:
    if word and leash.stdin:
        with contextlib.suppress(BrokenPipeError):  # it has just ended
            leash.stdin.write(word + b"\n")


def _hear(leash: subprocess.Popen[bytes]) -> bytes:
    assert leash.stdout is not None
    readable, _, _ = select.select([leash.stdout], [], [], _LOOK_EVERY_S)
    if not readable:
        return b""
    if not (said := os.read(leash.stdout.fileno(), 65536)):
        raise WorkerEnded("the process that kept the worker was killed")
    return said


def _say_new(log: Path, said: int) -> int:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(said)
        new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        sys.stdout.write(new.decode(errors="replace"))
        sys.stdout.flush()
        said += len(new)
    return said


def _take(key: str) -> bytes:
    """Reads and removes: a second driver of the same job finds nothing, and the password stays nowhere."""
    found = _read(key)
    if not found:
        raise HpsearchError("the cluster no longer has this launch: launch again")
    _forget(key)
    return found


def _read(key: str) -> bytes | None:
    """None also while the head doesn't answer."""
    from ray.experimental import internal_kv

    try:
        return internal_kv._internal_kv_get(_uri(key))  # type: ignore[no-any-return]
    except Exception:
        return None


def _put(key: str, value: bytes) -> None:
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(_uri(key), value)


def _forget(key: str) -> None:
    from ray.experimental import internal_kv

    with contextlib.suppress(Exception):
        internal_kv._internal_kv_del(_uri(key))


def _uri(key: str) -> str:
    """In the form of Ray's package names, which clients outside of the cluster may write (ray.py)."""
    return f"gcs://{key}"


if __name__ == "__main__":
    from hpsearch.launch import ray_driver  # under this name nodes find the task's function

    ray_driver.main()
