"""Searches on a real Ray cluster: stopped, killed process by process and node by node, and run to their end."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hpsearch.errors import HpsearchError
from hpsearch.folders import JobFolder
from hpsearch.launch.launcher import JobState, Order
from hpsearch.launch.ray import Ray, RayOptions
from hpsearch.launch.ray_cluster import RayCluster
from hpsearch.launch.roll import call_roll
from hpsearch.search.view import StudyView, TrialView, read_view
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from tests.clusters.ray_cluster import RayTestCluster
from tests.contract.contract_servers import PostgreSql
from tests.integration.command import Start, commands, ended

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PASSWORD = "s3cr3t"
NUM_TRIALS = 16
PATIENCE_S = 240.0
FILE = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: rows.jsonl, max_tokens: 64}
training: {batch_size: 4, gradient_checkpointing: false}
budget: {max_steps: 24, reports: 6}
search:
  trials: 16
  pruner: none
  space: {training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""


class Lab:
    """A folder with a study, a database of its own, and the cluster."""

    def __init__(self, folder: Path, url: str, start: Start) -> None:
        self.folder, self._url, self._start = folder, url, start
        rows = [{"question": f"Is {i} even or odd?", "answer": "odd" if i % 2 else "even"} for i in range(80)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "demo.yaml").write_text(FILE)

    def hpsearch(self, *arguments: str) -> str:
        answer = ended(self._start("hpsearch", *arguments, folder=self.folder, HPSEARCH_STORE=self._url))
        assert answer.code == 0, answer.said + answer.complained
        return answer.said

    def make_trials_long(self) -> None:
        (self.folder / "demo.yaml").write_text(
            FILE.replace("max_steps: 24, reports: 6", "max_steps: 2000, reports: 200")
        )

    def view(self) -> StudyView:
        with Store(parse_url(self._url, from_argv=False)) as store:
            found = store.studies.find("demo")
            assert found is not None
            return read_view(store, found)

    def states(self) -> list[JobState]:
        """Of the last launch's jobs."""
        with Store(parse_url(self._url, from_argv=False), only_to_read=True) as store:
            called = call_roll(store, self.view().study.study_id)[-1]
        assert called.silence is None
        return [job.state for job in called.jobs]

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            logs = "\n".join(log.read_text()[-2000:] for log in self.folder.glob("storage/logs/demo/ray-*"))
            assert time.monotonic() < deadline, f"it never came to that: {what}; {self.states()}\n{logs}"
            time.sleep(0.2)

    def running(self, num_reports: int = 2, outcome: str = "running") -> list[TrialView]:
        """Trials that run, have that many losses stored, and so have a checkpoint: it is written after the answer."""
        there = self.view().trials
        return [trial for trial in there if trial.outcome == outcome and len(trial.reports) >= num_reports]

    def lose_a_node(self, cluster: RayTestCluster) -> int:
        """In the middle of a trial, whose number it gives. The node is frozen to look whether it is."""
        while True:
            for worker in self.view().live_workers:
                node = cluster.node_of(int(worker.worker_id.split(":")[1]))
                cluster.freeze(node)
                if worker.activity.trial in [trial.number for trial in self.running() if len(trial.reports) < 6]:
                    cluster.kill_node(node)
                    return int(worker.activity.trial or 0)
                cluster.thaw(node)
                time.sleep(0.2)

    def attempt(self, trial: int, number: int) -> JobFolder:
        (folder,) = self.folder.glob(f"storage/trials/demo-*/{trial:04d}/attempt-{number}")
        return JobFolder(folder)

    def goes_on_from(self, trial: int) -> int:
        """The step at which the trial's second attempt began; 0 where it hasn't."""
        logs = self.folder.glob(f"storage/trials/demo-*/{trial:04d}/attempt-2/log.txt")
        found = re.search(r"training continues from step (\d+)", "".join(log.read_text() for log in logs))
        return int(found[1]) if found else 0


@pytest.fixture
def lab(ray_cluster: RayTestCluster, postgresql: PostgreSql, tmp_path: Path) -> Iterator[Lab]:
    del ray_cluster
    name = postgresql.create(postgresql.template)
    url = postgresql.url(name).replace(":@", f":{PASSWORD}@")
    assert PASSWORD in url
    with commands() as start:
        yield Lab(tmp_path, url, start)


def ours(cluster: RayTestCluster) -> list[psutil.Process]:
    """Workers, those who keep them, and trainers."""
    found = []
    for process in cluster.processes():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "hpsearch" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_node_is_lost_in_the_middle_of_trials_and_none_of_them_is(lab: Lab, ray_cluster: RayTestCluster) -> None:
    said = lab.hpsearch("launch", "demo.yaml", "--on", "ray", "--workers", "2")
    assert "2 workers for demo on ray" in said
    lab.until(lambda: len(lab.running()) == 2, "two trials run")
    told = json.dumps([ray_cluster.ask("/api/jobs/"), ray_cluster.ask("/api/v0/tasks?limit=1000&detail=true")])
    assert "demo" in told
    assert PASSWORD not in told, "who may list jobs reads the store's password"

    lost = lab.lose_a_node(ray_cluster)
    lab.until(lambda: JobState.REQUEUED in lab.states(), "its job waits")
    ray_cluster.add_node(log_monitor=True)
    lab.until(lambda: lab.states() == [JobState.RUNNING] * 2, "its job runs on the new node")
    lab.until(lambda: lab.view().slots.finished == NUM_TRIALS, "the search ends")

    seen = lab.view()
    assert [trial.number for trial in seen.trials] == list(range(NUM_TRIALS))
    assert [trial.outcome for trial in seen.trials] == ["complete"] * NUM_TRIALS
    assert {len(trial.reports) for trial in seen.trials} == {6}
    again = [trial.number for trial in seen.trials if trial.facts["attempts"] > 1]
    assert again == [lost]
    assert lab.goes_on_from(lost) >= 4, "it began anew"
    lab.until(lambda: lab.states() == [JobState.GONE] * 2, "the jobs end")
    lab.until(lambda: ours(ray_cluster) == [], "nobody is left")
    assert PASSWORD not in ray_cluster.said()


def test_a_stop_saves_and_a_stop_at_once_does_not(lab: Lab, ray_cluster: RayTestCluster) -> None:
    lab.make_trials_long()
    assert "hpsearch.launch.ray_driver" in lab.hpsearch("launch", "demo.yaml", "--on", "ray", "--dry-run")
    assert "demo" not in lab.hpsearch("status"), "--dry-run made a study"
    lab.hpsearch("launch", "demo.yaml", "--on", "ray", "--workers", "3")
    lab.until(lambda: len(lab.running()) == 2, "two trials run")
    assert sorted(lab.states()) == [JobState.PENDING, JobState.RUNNING, JobState.RUNNING], "there are two cores"
    assert "waits for 0 GPU, 1 CPU" in lab.hpsearch("status", "demo")
    said = lab.hpsearch("stop", "demo")
    assert "3 jobs are ended" in said
    lab.until(lambda: lab.states() == [JobState.GONE] * 3, "all jobs end")
    lab.until(lambda: ours(ray_cluster) == [], "nobody is left")
    stopped = {trial.number: lab.attempt(trial.number, 1).last_step() for trial in lab.running(outcome="waiting")}
    assert sorted(stopped) == [0, 1]

    lab.hpsearch("launch", "demo.yaml", "--on", "ray", "--workers", "2")
    lab.until(lambda: all(lab.goes_on_from(number) for number in stopped), "both go on from a checkpoint")
    assert {number: lab.goes_on_from(number) for number in stopped} == stopped, "a step was trained twice"
    lab.hpsearch("stop", "demo", "--now")
    lab.until(lambda: ours(ray_cluster) == [], "all of them are killed")
    lab.until(lambda: lab.states() == [JobState.GONE] * 2, "all jobs end")


def test_the_death_of_a_tasks_process_leaves_no_worker_behind(lab: Lab, ray_cluster: RayTestCluster) -> None:
    """Ray kills it for many reasons. Its worker saves and leaves, and the task begins again, with another one."""
    lab.make_trials_long()
    lab.hpsearch("launch", "demo.yaml", "--on", "ray", "--workers", "1")
    lab.until(lambda: len(lab.running()) == 1, "a trial runs")
    (worker,) = lab.view().live_workers
    (trial,) = lab.running()
    tasks = ray_cluster.ask("/api/v0/tasks?limit=1000&detail=true")["data"]["result"]["result"]
    (task,) = [task for task in tasks if task["state"] == "RUNNING" and task["func_or_class_name"] == "hold_worker"]
    psutil.Process(task["worker_pid"]).kill()
    pid = int(worker.worker_id.split(":")[1])
    lab.until(lambda: not psutil.pid_exists(pid), "the worker leaves")
    lab.until(lambda: lab.goes_on_from(trial.number) > 0, "the trial goes on")
    assert lab.goes_on_from(trial.number) == lab.attempt(trial.number, 1).last_step(), "nothing was saved"
    assert len(lab.view().live_workers) == 1
    lab.hpsearch("stop", "demo", "--now")
    lab.until(lambda: ours(ray_cluster) == [], "all end")


def order(folder: Path, *more: str) -> Order:
    (folder / "demo.yaml").write_text(FILE)
    return Order("demo", 1, [str(folder / "demo.yaml"), *more], {}, folder, folder / "logs")


def test_what_no_node_has_is_refused(ray_cluster: RayTestCluster, tmp_path: Path) -> None:
    del ray_cluster
    with pytest.raises(HpsearchError, match=r"(?s)no node .* \(1 GPU, 1 CPU\).*\n.*: 0 GPU, 1 CPU"):
        Ray(RayOptions(gpus=1)).check(order(tmp_path))
    with pytest.raises(HpsearchError, match=r"0 GPU, 1 CPU, 9999\.0 GiB of memory"):
        Ray(RayOptions(memory="9999G")).check(order(tmp_path))
    with pytest.raises(HpsearchError, match="--workers-per-device 2"):
        Ray(RayOptions(gpus=0.5)).check(order(tmp_path))
    with pytest.raises(HpsearchError, match="no node"):
        Ray(RayOptions(gpus=0.5)).check(order(tmp_path, "--workers-per-device", "2"))


def test_a_cluster_of_another_version_is_refused(
    ray_cluster: RayTestCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del ray_cluster
    monkeypatch.setattr(RayCluster, "version", lambda _: "2.99.0")
    with pytest.raises(HpsearchError, match=r"runs Ray 2\.99\.0, and here is 2\..*pip install"):
        Ray(RayOptions()).check(order(tmp_path))


def test_the_runtime_environment_of_a_job_is_still_shown_to_everyone(ray_cluster: RayTestCluster) -> None:
    """Why orders don't travel in it: once it isn't, ray_driver.py's keys can go."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(ray_cluster.url)
    job = client.submit_job(entrypoint="true", runtime_env={"env_vars": {"SECRET": PASSWORD}})
    assert PASSWORD in json.dumps(ray_cluster.ask(f"/api/jobs/{job}"))


def test_a_cluster_without_the_token_is_reported(ray_cluster: RayTestCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = RayCluster(ray_cluster.url)
    monkeypatch.setattr(cluster._client, "_headers", {})
    with pytest.raises(HpsearchError, match="RAY_AUTH_MODE=token"):
        cluster.version()


def test_a_head_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.launch.ray_cluster.DEADLINE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster = RayCluster(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(HpsearchError, match="no answer from"):
            cluster.version()
