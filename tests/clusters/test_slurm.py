"""A search on a real SLURM: however its jobs are ended, every trial ends once, and none starts over."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hpsearch.folders import JobFolder
from hpsearch.launch.launcher import JobState
from tests.clusters.slurm_cluster import SlurmCluster
from tests.clusters.slurm_lab import Lab
from tests.contract.contract_servers import PostgreSql
from tests.integration.command import commands

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NUM_TRIALS = 16
STEPS = 600
"""Of a trial: so many that the first worker, alone until its time is over, leaves enough for the other faults."""
OUT_OF_TIME = "is queued again"
LAUNCH_YAML = """\
lab:
  on: slurm
  workers: 2
  time: 30m
  partition: main
  cpus: 1
  memory: 500M
  constraint: cpu
  setup: |
    umask 077
    export FROM_SETUP=yes
"""


@pytest.fixture
def lab(slurm_cluster: SlurmCluster, postgresql: PostgreSql, tmp_path: Path) -> Iterator[Lab]:
    url = postgresql.url(postgresql.create(postgresql.template)).replace(":@", "@")
    with commands() as start:
        lab = Lab(tmp_path, url, slurm_cluster, start)
        yield lab
        lab.close()
    slurm_cluster.end_jobs()


@pytest.mark.timeout(1500)
def test_a_search_survives_time_limits_requeues_lost_nodes_and_preemption(lab: Lab) -> None:
    file = lab.write("demo", NUM_TRIALS, steps=STEPS)
    (lab.folder / "launch.yaml").write_text(LAUNCH_YAML)
    lab.says("launch", file, "--on", "slurm", "--time", "2m")
    (brief,) = lab.jobs("demo")
    struck = [_out_of_time(lab, brief)]
    lab.says("launch", file, "--profile", "lab")
    _, first, second = lab.jobs("demo")
    struck += [
        _requeued(lab, first),
        _node_lost(lab, second),
        _preempted(lab, first, second),
    ]
    lab.until("demo", lambda: lab.view("demo").is_finished)
    for job_id in (brief, first, second):
        lab.until_state("demo", job_id, JobState.GONE)

    view = lab.view("demo")
    assert [trial.number for trial in view.trials] == list(range(NUM_TRIALS))
    assert [trial.outcome for trial in view.trials] == ["complete"] * NUM_TRIALS
    assert view.slots.finished == view.slots.wanted == NUM_TRIALS
    assert {worker.job for worker in view.workers} == {brief, first, second}
    attempts = {trial.number: trial.facts["attempts"] for trial in view.trials}
    assert all(attempts[number] > 1 for number in struck), (attempts, struck)
    for number in range(NUM_TRIALS):
        _goes_on(lab, number, attempts[number])


def _goes_on(lab: Lab, number: int, attempts: int) -> None:
    """Each attempt that trained continued where those before it had stopped: all were asked before they were ended.

    One that was ended while it still loaded its model has a log, and no step.
    """
    (trial,) = lab.folder.glob(f"storage/trials/*/{number:04}")
    steps = 0
    for k in range(1, attempts + 1):
        folder = JobFolder(trial / f"attempt-{k}")
        if steps and folder.last_step():
            said = folder.log.read_text()
            found = re.search(r"training continues from step (\d+)", said)
            assert found is not None, f"attempt {k} of trial {number} began anew, after step {steps}:\n{said[-3000:]}"
            assert int(found[1]) == steps
        steps = max(steps, folder.last_step())


def _strike(lab: Lab, *job_ids: str, how: object) -> tuple[str, int]:
    """Until it hits a trial in its middle: the job, queued again, and the trial's number."""
    while True:
        worker, number = lab.training("demo", *job_ids)
        assert worker.job is not None
        how(worker.job)  # type: ignore[operator]
        lab.until_state("demo", worker.job, JobState.REQUEUED)
        if not lab.view("demo").trials[number].is_finished:
            return worker.job, number
        lab.hasten(worker.job)


def _requeued(lab: Lab, job_id: str) -> int:
    _, number = _strike(lab, job_id, how=lambda job: lab.cluster.ask("scontrol", "requeue", job))
    said = lab.says("status", "demo")
    assert re.search(rf"{job_id} +slurm +requeued +BeginTime", said), said
    lab.hasten(job_id)
    return number


def _node_lost(lab: Lab, job_id: str) -> int:
    lost = []

    def lose(job: str) -> None:
        lost.append(lab.jobs("demo")[job].node)
        lab.cluster.ask("scontrol", "update", f"NodeName={lost[-1]}", "State=down", "Reason=test")

    _, number = _strike(lab, job_id, how=lose)
    lab.hasten(job_id)
    elsewhere = lab.until_state("demo", job_id, JobState.RUNNING)
    assert elsewhere.node != lost[-1]
    for node in lost:
        lab.cluster.ask("scontrol", "update", f"NodeName={node}", "State=resume")
    return number


def _preempted(lab: Lab, *job_ids: str) -> int:
    def preempt(job: str) -> None:
        node = lab.jobs("demo")[job].node
        options = ("--partition=urgent", f"--nodelist={node}", "--exclusive", "--time=5", "--output=/dev/null")
        lab.cluster.ask("sbatch", *options, "--wrap", "sleep 1")

    _, number = _strike(lab, *job_ids, how=preempt)
    for job in lab.jobs("demo").values():
        if job.state is JobState.REQUEUED:
            lab.hasten(job.job_id)
    return number


def _out_of_time(lab: Lab, job_id: str) -> int:
    """The limit strikes again and again; each time the job is queued again, until it hit a trial in its middle."""
    log = lab.folder / "storage" / "logs" / "demo" / f"slurm-{job_id}.txt"
    for strikes in itertools.count(1):
        lab.until("demo", partial(lambda wanted: log.read_text().count(OUT_OF_TIME) >= wanted, strikes))
        lab.until_state("demo", job_id, JobState.REQUEUED)
        view = lab.view("demo")
        number = [worker for worker in view.workers if worker.job == job_id][-1].activity.trial
        trial = None if number is None else view.trials[number]
        if trial is not None and (not trial.is_finished or trial.facts["attempts"] > 1):
            lab.hasten(job_id, TimeLimit="30")
            return trial.number
        lab.hasten(job_id)
    raise AssertionError


def test_a_stop_saves_and_no_job_comes_back(lab: Lab) -> None:
    lab.write("long", trials=1, steps=5000)
    runs = lab.launch("long")
    _, number = lab.training("long", runs)
    with lab.drained():
        waits = lab.launch("long")
        assert "2 jobs are ended" in lab.says("stop", "long")
        for job_id, reason in {runs: "has stopped", waits: "cancelled"}.items():
            assert lab.until_state("long", job_id, JobState.GONE).reason.endswith(reason)
    assert not lab.view("long").trials[number].is_finished

    again = lab.launch("long")
    lab.training("long", again)
    assert "1 job is ended" in lab.says("stop", "long", "--now")
    lab.until_state("long", again, JobState.GONE)
    _goes_on(lab, number, attempts=2)
