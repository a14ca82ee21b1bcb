"""The contract of launchers, on every engine: real jobs with real workers. See hpsearch/launch/launcher.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import NOWHERE, SECRET, STUDY, Site

from hpsearch.launch.engines import ENGINES
from hpsearch.launch.launcher import JobState

WAITS = "can't be reached"
"""What a worker says of a store that doesn't answer."""


ENGINES_HERE = (  # what is a cluster has a fixture that starts one, NAME_cluster
    pytest.param("local"),
    pytest.param("ray", marks=pytest.mark.cluster),
    pytest.param("slurm", marks=pytest.mark.cluster),
)


@pytest.fixture(params=ENGINES_HERE)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.node.get_closest_marker("cluster"):
        request.getfixturevalue(f"{request.param}_cluster")
    site = Site(request.param, tmp_path)
    yield site
    site.close()


def test_every_engine_is_tested() -> None:
    assert {str(engine.values[0]) for engine in ENGINES_HERE} == set(ENGINES), "each needs its line in ENGINES_HERE"


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
    launch = site.start(site.order(num_workers=2))
    assert len({job.job_id for job in launch.jobs}) == 2
    for job in launch.jobs:
        assert SECRET not in site.until_said(job, WAITS)
    running = site.until(launch, lambda jobs: all(job.state is JobState.RUNNING for job in jobs))
    assert [job.job_id for job in running] == [job.job_id for job in launch.jobs]
    assert all(job.node for job in running)
    workers = site.workers()
    assert len(workers) == 2
    assert all(NOWHERE not in word for worker in workers for word in worker.cmdline())
    site.launcher.stop(launch, now=False)
    site.until(launch, lambda jobs: all(job.state is JobState.GONE for job in jobs))
    assert site.workers() == []
    site.launcher.stop(launch, now=False)
    assert set(site.states(launch)) == {JobState.GONE}


def test_a_stop_at_once_kills_worker_and_all(site: Site) -> None:
    launch = site.start(site.order(num_workers=1))
    site.until_said(launch.jobs[0], WAITS)
    (worker,) = site.workers()
    site.launcher.stop(launch, now=True)
    site.until(launch, lambda jobs: all(job.state is JobState.GONE for job in jobs))
    worker.wait(60)


def test_a_worker_that_is_killed_is_replaced_within_its_job(site: Site) -> None:
    launch = site.start(site.order(num_workers=1))
    site.until_said(launch.jobs[0], WAITS)
    (worker,) = site.workers()
    worker.kill()
    site.until_said(launch.jobs[0], "another one starts")
    site.until_said(launch.jobs[0], WAITS, times=2)
    assert [other.pid for other in site.workers()] != [worker.pid]
    assert site.states(launch) == [JobState.RUNNING]


def test_a_job_that_can_do_nothing_is_gone_with_the_reason(site: Site) -> None:
    launch = site.start(site.order(num_workers=1, study=STUDY.replace("text-sft", "text-sfd")))
    (job,) = site.until(launch, lambda jobs: all(job.state is JobState.GONE for job in jobs))
    assert "text-sfd" in site.said(launch)
    assert job.reason
