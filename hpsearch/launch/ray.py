"""A Ray cluster as an engine: one Ray job for a launch, and in it one task for each worker (ray_driver.py).

Why not one Ray job per worker: a job ends with its node and is not restarted. A task is placed by its GPUs, cores and
memory over all nodes (SPREAD), and restarted elsewhere when its node is lost, without limit. So a launch is one job,
which starts the tasks and waits for them. It runs on the head node. If the head is lost, the cluster is lost: workers
save and leave, nothing is lost from the store, and the study can be launched again.

A task keeps its worker on a leash (leash.py), so that none stays behind. What a worker says goes to the launch's logs
folder, if nodes share it, and to the job's own log in any case: `ray job logs`.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from hpsearch.errors import HpsearchError
from hpsearch.launch.launcher import JobState, JobView, Order
from hpsearch.launch.leash import GENTLY, NOW
from hpsearch.launch.process import last_line
from hpsearch.launch.ray_cluster import RayCluster, find_cluster, is_local, ray_module
from hpsearch.launch.ray_driver import ClusterOrder, order_key, stop_key
from hpsearch.spec.base import Spec
from hpsearch.store import LaunchedJob, StoredLaunch

_GIB = 2**30
_UNITS = {"M": 2**20, "G": _GIB, "T": 2**40}
_OVER = ("STOPPED", "SUCCEEDED", "FAILED")
_OWN_ERRORS = ("TASK_EXECUTION_EXCEPTION", "TASK_CANCELLED")
"""Ends of a task that Ray doesn't retry; all others mean that a node or a process was lost."""


class RayOptions(Spec):
    """Workers on a Ray cluster. Ray places them by gpus, cpus and memory, and does not limit them to these."""

    address: str = Field("auto", description="The cluster: `auto`, or its dashboard's address, as `http://HEAD:8265`.")
    gpus: Annotated[float, Field(ge=0)] | None = Field(
        None, description="GPUs of a worker, or a part of one, as 0.5; by default one where the cluster has any."
    )
    cpus: Annotated[int, Field(ge=1)] = Field(1, description="Cores of a worker.")
    memory: Annotated[str, Field(json_schema_extra={"pattern": r"^\d+[MGT]$"})] | None = Field(
        None, description="Memory of a worker, as 64G."
    )
    setup: str | None = Field(None, description="Shell lines before a worker starts, as module load cuda.")

    @field_validator("memory")
    @classmethod
    def _is_size(cls, said: str | None) -> str | None:
        if said is not None and not (said[-1:] in _UNITS and said[:-1].isdecimal()):
            raise ValueError("expected a size, as 64G or 900M")
        return said

    @field_validator("gpus")
    @classmethod
    def _is_share(cls, said: float | None) -> float | None:
        if said is not None and said > 1 and said != int(said):
            raise ValueError("Ray gives whole GPUs, or a part of one, as 0.5")
        return said

    @property
    def bytes(self) -> int:
        return int(self.memory[:-1]) * _UNITS[self.memory[-1]] if self.memory else 0


class Ray:
    Options: ClassVar[type[Spec]] = RayOptions
    reaches_other_machines: ClassVar[bool] = True

    def __init__(self, options: RayOptions) -> None:
        self._options = options

    def check(self, order: Order) -> None:
        cluster = RayCluster(find_cluster(self._options.address))
        here, there = str(ray_module().__version__), cluster.version()
        if here != there:
            raise HpsearchError(
                f"the cluster at {cluster.url} runs Ray {there}, and here is {here}: "
                f"pip install 'ray[default]=={there}' here, or {here} on all of its nodes, and start it again"
            )
        self._check_room(order, cluster.nodes(), grows=cluster.grows())

    def _check_room(self, order: Order, nodes: Sequence[dict[str, Any]], *, grows: bool) -> None:
        """Raises HpsearchError where no node could ever hold a worker: it would wait forever."""
        gpus, parts = self._gpus(order, nodes), _parts(order)
        if 0 < gpus < 1 and round(1 / gpus) != parts:
            raise HpsearchError(
                f"--gpus {gpus:g} puts {round(1 / gpus)} workers on a card, and --workers-per-device says {parts}: "
                f"say --workers-per-device {round(1 / gpus)}"
            )
        wanted = {"GPU": gpus, "CPU": self._options.cpus, "memory": self._options.bytes}
        if not grows and not any(all(_has(node, name) >= much for name, much in wanted.items()) for node in nodes):
            has = "\n".join(f"  {node['node_name']}: {_told({n: _has(node, n) for n in wanted})}" for node in nodes)
            raise HpsearchError(
                f"no node of the cluster has the resources that a worker needs ({_told(wanted)}), so it would wait for "
                f"ever; there are\n{has}"
            )

    def plan(self, order: Order) -> str:
        cluster = RayCluster(find_cluster(self._options.address))
        given = self._cluster_order(order, cluster, "NAME")
        wanted = {"GPU": given.num_gpus, "CPU": given.num_cpus, "memory": given.memory}
        lines = [
            f"one job for the Ray cluster at {cluster.url}: {_command(f'{order.study}-…')}",
            f"in it {order.num_workers} tasks, restarted on another node if one is lost; {_told(wanted)} each:",
            *(f"  {line}" for line in given.setup.splitlines()),
            f"  hpsearch worker {' '.join(order.arguments)} --keep",
            f"in {order.folder}, with logs in {order.logs}",
        ]
        return "\n".join(lines)

    def start(self, order: Order) -> list[LaunchedJob]:
        cluster = RayCluster(find_cluster(self._options.address))
        name = f"{order.study}-{secrets.token_hex(4)}"
        given = self._cluster_order(order, cluster, name)
        cluster.put(order_key(name), given.model_dump_json().encode())
        try:
            cluster.submit(name, _command(name), {"study": order.study})
        except BaseException:  # the job may still start after the deadline: it finds no order, or a stop
            with contextlib.suppress(HpsearchError):
                cluster.put(order_key(name), b"")
                cluster.put(stop_key(name), NOW)
            raise
        return [LaunchedJob(job_id=job, log=log) for job, log in zip(given.job_ids, given.logs, strict=True)]

    def jobs(self, launch: StoredLaunch) -> list[JobView]:
        name, url = _name_and_url(launch)
        cluster = RayCluster(url)
        if (job := cluster.job(name)) is None:
            return [_view_of_stranger(each, launch.host, url) for each in launch.jobs]
        tasks = _last_attempts(cluster.tasks(job["job_id"])) if job["job_id"] else {}
        nodes = {node["node_id"]: node["node_name"] for node in cluster.nodes()} if tasks else {}
        return [_job_view(each, job, tasks.get(each.job_id.partition("@")[0]), nodes) for each in launch.jobs]

    def stop(self, launch: StoredLaunch, *, now: bool) -> None:
        name, url = _name_and_url(launch)
        cluster = RayCluster(url)
        job = cluster.job(name)
        if job is not None and job["status"] not in _OVER:
            cluster.put(stop_key(name), NOW if now else GENTLY)

    def _gpus(self, order: Order, nodes: Sequence[dict[str, Any]]) -> float:
        if self._options.gpus is not None:
            return self._options.gpus
        return 1 / _parts(order) if any(_has(node, "GPU") for node in nodes) else 0

    def _cluster_order(self, order: Order, cluster: RayCluster, name: str) -> ClusterOrder:
        """A job's name includes its cluster, which `auto` may not find later."""
        numbers = range(order.num_workers)
        return ClusterOrder(
            job_ids=[f"{name}/{index}@{cluster.url}" for index in numbers],
            logs=[str(order.logs / f"ray-{name}-{index}.txt") for index in numbers],
            arguments=order.arguments,
            study_text=Path(order.arguments[0]).read_text(),
            environment=order.environment,
            folder=str(order.folder),
            setup=self._options.setup or "",
            num_gpus=self._gpus(order, cluster.nodes()),
            num_cpus=self._options.cpus,
            memory=self._options.bytes,
        )


def _command(name: str) -> str:
    return f"python3 -m hpsearch.launch.ray_driver {name}"


def _parts(order: Order) -> int:
    """Workers that share each card."""
    words = list(order.arguments)
    return int(words[words.index("--workers-per-device") + 1]) if "--workers-per-device" in words else 1


def _has(node: dict[str, Any], resource: str) -> float:
    return float(node["resources_total"].get(resource, 0))


def _told(resources: dict[str, float]) -> str:
    gpus, cpus, memory = resources["GPU"], resources["CPU"], resources["memory"]
    return f"{gpus:g} GPU, {cpus:g} CPU" + (f", {memory / _GIB:.1f} GiB of memory" if memory else "")


def _name_and_url(launch: StoredLaunch) -> tuple[str, str]:
    task, _, url = launch.jobs[0].job_id.partition("@")
    return task.rpartition("/")[0], url


def _last_attempts(tasks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {task["name"]: task for task in sorted(tasks, key=lambda task: int(task["attempt_number"]))}


def _job_view(each: LaunchedJob, job: dict[str, Any], task: dict[str, Any] | None, nodes: dict[str, str]) -> JobView:
    """A row of the State API is seconds old: the job's own state has priority."""
    if job["status"] in _OVER:
        return _view(each, JobState.GONE, _why_gone(each, job, task))
    if task is None:
        return _view(each, JobState.PENDING, "its driver starts")
    begun_before = int(task["attempt_number"]) > 0
    if task["state"] == "FINISHED" or (task["state"] == "FAILED" and task["error_type"] in _OWN_ERRORS):
        return _view(each, JobState.GONE, _why_gone(each, job, task))
    if task["state"] == "FAILED":
        return _view(each, JobState.REQUEUED, f"lost: {task['error_type']}")
    if task["state"].startswith("RUNNING"):
        return _view(each, JobState.RUNNING, "", nodes.get(task["node_id"], task["node_id"]))
    waits = {"GPU": 0.0, "CPU": 0.0, "memory": 0.0} | (task["required_resources"] or {})
    return _view(each, JobState.REQUEUED if begun_before else JobState.PENDING, f"waits for {_told(waits)}")


def _why_gone(each: LaunchedJob, job: dict[str, Any], task: dict[str, Any] | None) -> str:
    """The worker's last output, from its log if it can be read here, else from its task's error; or the job's."""
    if task is not None and task["error_type"] == "TASK_CANCELLED":
        return "stopped"
    if words := last_line(Path(each.log or "")):
        return words
    message = str((task or {}).get("error_message") or job["message"] or "").strip()
    return message.splitlines()[-1].partition("WorkerEnded: ")[2] or message.splitlines()[-1] if message else "ended"


def _view_of_stranger(job: LaunchedJob, host: str, url: str) -> JobView:
    """For a job that the cluster doesn't know: the cluster was restarted, or `url` is another cluster here than where
    the job was launched.
    """
    if is_local(url) and host != socket.gethostname():
        return _view(job, JobState.UNKNOWN, f"ask on {host}: here {url} is another cluster")
    return _view(job, JobState.GONE, "its cluster was restarted")


def _view(job: LaunchedJob, state: JobState, reason: str, node: str = "") -> JobView:
    return JobView(job.job_id, state, reason, node, job.log)
