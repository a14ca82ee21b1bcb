"""The contract of launchers, on every engine: real jobs with real workers. See hpsearch/launch/launcher.py."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import NOWHERE, SECRET, STUDY, Site

from hpsearch.errors import HpsearchError
from hpsearch.launch.engines import ENGINES
from hpsearch.launch.launcher import JobState
from hpsearch.store import workers
from hpsearch.store.workers import JOB_VARIABLE
from tests import conftest

WAITS = "can't be reached"
"""What a worker says of a store that doesn't answer."""
STARTED = "after start()"
STOPPING, AT_ONCE = "stopping …", "stopping at once"
"""What its keeper says of a stop: the worker may save, or not."""


ENGINES_HERE = (  # what is a cluster has a fixture NAME_cluster in tests/conftest.py, which starts one
    pytest.param("local"),
    pytest.param("ray", marks=pytest.mark.cluster),
    pytest.param("slurm", marks=pytest.mark.cluster),
)


@pytest.fixture(params=ENGINES_HERE)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.node.get_closest_marker("cluster"):
        request.getfixturevalue(f"{request.param}_cluster")
    with started_processes() as started:
        site = Site(request.param, tmp_path)
        try:
            yield site
            site.close()
        finally:
            for process in started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)  # Python warns at its end of those whose end nobody asked for


@contextlib.contextmanager
def started_processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Those that a launcher starts as children of this process."""
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen.__init__

    def start_and_note(process: Any, *arguments: Any, **named: Any) -> None:
        start(process, *arguments, **named)
        started.append(process)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(subprocess.Popen, "__init__", start_and_note)
        yield started


def test_every_engine_is_tested() -> None:
    assert {str(engine.values[0]) for engine in ENGINES_HERE} == set(ENGINES), "each needs its line in ENGINES_HERE"
    clusters = [
        str(engine.values[0]) for engine in ENGINES_HERE if any(mark.name == "cluster" for mark in engine.marks)
    ]
    assert len(clusters) >= 2
    lacking = [f"{engine}_cluster" for engine in clusters if not hasattr(conftest, f"{engine}_cluster")]
    assert lacking == [], "fixtures that start a cluster are in tests/conftest.py, for all folders"


HERE_ONLY = [
    each for each in ENGINES_HERE if not getattr(ENGINES.get(str(each.values[0])), "reaches_other_machines", True)
]


def test_a_plan_shows_the_command_and_no_secret_and_starts_nothing(site: Site) -> None:
    order = site.order()
    site.launcher.check(order)
    plan = site.launcher.plan(order)
    assert "hpsearch worker" in plan
    assert str(site.folder / "study.yaml") in plan
    assert "--keep" in plan
    assert SECRET not in plan
    assert site.workers() == []


def test_workers_start_and_a_stop_ends_them(site: Site) -> None:
    order = site.order(num_workers=2)
    launch = site.start(order)
    assert len({job.job_id for job in launch.jobs}) == 2, "each job has an id of its own"
    assert len({job.log for job in launch.jobs}) == 2, "each job has a log of its own"
    for job in launch.jobs:
        assert job.log, "status and logs read it"
        assert Path(job.log).is_relative_to(order.logs), "logs lie in the order's folder"
        assert SECRET not in site.until_said(job, WAITS, STARTED)
    running = site.until_all(launch, JobState.RUNNING, STARTED)
    assert [job.job_id for job in running] == [job.job_id for job in launch.jobs], "jobs() keeps the launch's order"
    assert [job.job_id for job in running if not job.node] == [], "jobs that run have a node: JobView.node"
    workers = site.workers()
    assert len(workers) == 2, "each of two jobs runs one worker"
    assert all(NOWHERE not in word for worker in workers for word in worker.cmdline()), "a command line has the secret"
    known = {worker.environ().get(JOB_VARIABLE) for worker in workers}
    assert known == {job.job_id for job in launch.jobs}, "a worker's $HPSEARCH_JOB is the id that start() returned"
    site.launcher.stop(launch, now=False)
    site.until_all(launch, JobState.GONE, "after stop(now=False)")
    assert site.workers() == [], "jobs are gone, and their workers are still there"
    site.launcher.stop(launch, now=False)
    assert set(site.states(launch)) == {JobState.GONE}, "stop() of jobs that are gone does nothing"


def test_a_stop_at_once_kills_worker_and_all(site: Site) -> None:
    launch = site.start(site.order(num_workers=1))
    site.until_said(launch.jobs[0], WAITS, STARTED)
    worker = site.worker()
    worker.suspend()  # it can't leave by itself when its keeper is gone
    site.launcher.stop(launch, now=True)
    site.until_all(launch, JobState.GONE, "after stop(now=True)")
    site.until_ended([worker], "stop(now=True) kills a job with all that it started")


def test_a_stop_that_is_repeated_still_lets_a_worker_save(site: Site) -> None:
    """A second SIGTERM would mean to leave without saving: see SAVE in hpsearch/launch/keep.py."""
    launch = site.start(site.order(num_workers=1))
    site.until_said(launch.jobs[0], WAITS, STARTED)
    worker = site.worker()
    worker.suspend()  # it saves for as long as the second stop needs to arrive
    site.launcher.stop(launch, now=False)
    site.until_said(launch.jobs[0], STOPPING, "after stop(now=False)")
    site.launcher.stop(launch, now=False)
    worker.resume()
    site.until_all(launch, JobState.GONE, "after stop(now=False), twice")
    assert AT_ONCE not in site.said(launch), "a second stop(now=False) must let the worker save, as the first does"


@pytest.mark.parametrize("site", HERE_ONLY, indirect=True)
def test_where_one_job_can_t_be_started_none_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster is given all jobs of an order at once."""
    order, started = site.order(num_workers=2), 0

    class Full(subprocess.Popen):  # type: ignore[type-arg]
        """The machine is full after one."""

        def __init__(self, command: object, *more: Any, **named: Any) -> None:
            nonlocal started
            started += order.arguments[0] in str(command)
            if started == 2:
                raise OSError(11, "Resource temporarily unavailable", "python")
            super().__init__(command, *more, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", Full)
    raised: Exception | None = None
    try:
        site.launcher.start(order)
    except (HpsearchError, OSError) as error:
        raised = error
    told = "where a job can't be started, start() must raise HpsearchError with the system's own reason"
    assert isinstance(raised, HpsearchError), f"{told}; it raised {raised!r}"
    assert "Resource temporarily unavailable" in str(raised), told
    assert started == 2
    site.until_ended(site.processes(), "start() raised, so that jobs that it had started before are ended")


@pytest.mark.parametrize("site", HERE_ONLY, indirect=True)
def test_a_process_of_another_machine_is_unknown_and_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id may be that of another process here. Ids with their machine: store/workers.py, `worker_id_of`."""
    launch = site.start(site.order(num_workers=1))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        elsewhere.setattr(workers, "_place", lambda: "elsewhere")
        assert site.states(launch) == [JobState.UNKNOWN], "of a process of another machine jobs() must say UNKNOWN"
        site.launcher.stop(launch, now=True)
    site.until_said(launch.jobs[0], WAITS, STARTED)
    assert site.states(launch) == [JobState.RUNNING], "stop() of another machine's job must end no process here"


def test_a_worker_that_is_killed_is_replaced_within_its_job(site: Site) -> None:
    launch = site.start(site.order(num_workers=1))
    site.until_said(launch.jobs[0], WAITS, STARTED)
    worker = site.worker()
    worker.kill()
    site.until_said(launch.jobs[0], "another one starts", "after its worker was killed")
    site.until_said(launch.jobs[0], WAITS, "after its worker was killed", times=2)
    assert site.worker().pid != worker.pid
    assert site.states(launch) == [JobState.RUNNING], "a job whose worker is replaced runs on"


def test_a_job_that_can_do_nothing_is_gone_with_the_reason(site: Site) -> None:
    launch = site.start(site.order(num_workers=1, study=STUDY.replace("text-sft", "text-sfd")))
    (job,) = site.until_all(launch, JobState.GONE, "after a worker that ends because of a mistake in the study file")
    assert "text-sfd" in site.said(launch), "the job's log has what its worker said"
    assert job.reason, "JobView.reason of a job that is gone: the engine's own, or the last line of its log"
