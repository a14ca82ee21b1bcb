"""Ray as an engine, as far as it goes without a cluster: options, addresses, and words for what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpsearch.errors import HpsearchError, InputError
from hpsearch.launch.launcher import JobState, Order
from hpsearch.launch.ray import Ray, RayOptions, _job_view
from hpsearch.launch.ray_cluster import RayCluster, find_cluster
from hpsearch.launch.sites import make_launcher
from hpsearch.store import LaunchedJob

NOBODY = "http://127.0.0.1:1"
JOB = LaunchedJob(job_id=f"demo-1/0@{NOBODY}")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("memory", "64", "as 64G"),
        ("memory", "lots", "as 64G"),
        ("gpus", 1.5, "whole GPUs, or a part of one"),
        ("gpus", -1, "at least 0"),
        ("cpus", 0, "at least 1"),
        ("partition", "gpu", "ray has no such option"),
    ],
)
def test_an_option_that_ray_can_not_follow_is_reported(option: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=f"{option}: .*{words}"):
        make_launcher("ray", {option: value})


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    with pytest.raises(HpsearchError, match=r"pip install 'hpsearch\[ray\]'"):
        find_cluster("auto")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("http://head:9000/", "http://head:9000"),
        ("https://ray.lab", "https://ray.lab"),
        ("head", "http://head:8265"),
        ("ray://head:10001", "http://head:8265"),
    ],
)
def test_an_address_is_the_dashboards(address: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://another:8265")
    assert find_cluster(address) == url


def test_an_address_of_no_cluster_is_reported() -> None:
    with pytest.raises(HpsearchError, match="http://HEAD:8265"):
        find_cluster("ftp://head")


def test_a_cluster_that_is_not_there_is_reported_with_its_address(tmp_path: Path) -> None:
    order = Order("demo", 1, [str(tmp_path / "demo.yaml")], {}, tmp_path, tmp_path)
    with pytest.raises(HpsearchError, match=f"nothing answers at {NOBODY}"):
        Ray(RayOptions(address=NOBODY)).check(order)


WAITS = {"state": "PENDING_NODE_ASSIGNMENT"}
FAILED = {"state": "FAILED", "error_type": "TASK_EXECUTION_EXCEPTION"}


@pytest.mark.parametrize(
    ("status", "task", "state", "reason"),
    [
        ("RUNNING", None, JobState.PENDING, "its driver starts"),
        ("RUNNING", WAITS, JobState.PENDING, "waits for 1 GPU, 2 CPU"),
        ("RUNNING", {"state": "RUNNING"}, JobState.RUNNING, ""),
        ("RUNNING", {"state": "FAILED", "error_type": "NODE_DIED"}, JobState.REQUEUED, "lost: NODE_DIED"),
        ("RUNNING", WAITS | {"attempt_number": 1}, JobState.REQUEUED, "waits for 1 GPU, 2 CPU"),
        ("RUNNING", {"state": "RUNNING", "attempt_number": 3}, JobState.RUNNING, ""),
        ("RUNNING", FAILED | {"error_message": "Traceback\nx.WorkerEnded: no space"}, JobState.GONE, "no space"),
        ("FAILED", {"state": "RUNNING"}, JobState.GONE, "python3: No module named hpsearch"),
        ("STOPPED", None, JobState.GONE, "python3: No module named hpsearch"),
    ],
)
def test_what_ray_says_of_a_task_is_a_state_and_a_reason(
    status: str, task: dict[str, object] | None, state: JobState, reason: str
) -> None:
    job = {"status": status, "message": "failed, last logs:\npython3: No module named hpsearch\n"}
    whole = {"attempt_number": 0, "error_type": None, "error_message": None, "node_id": "n1"}
    whole |= {"required_resources": {"GPU": 1.0, "CPU": 2.0}} | (task or {})
    view = _job_view(JOB, job, whole if task else None, {"n1": "gpu-7"})
    assert (view.state, view.reason) == (state, reason)
    assert view.node == ("gpu-7" if state is JobState.RUNNING else "")


@pytest.mark.parametrize(
    ("types", "grows"),
    [({"a1": "node_a1", "b2": "node_b2"}, False), ({"10.0.0.1": "headgroup"}, True), ({}, True), (None, True)],
)
def test_a_cluster_whose_nodes_nobody_adds_is_known(
    types: dict[str, str] | None, grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first as `ray start` makes it; tests/clusters/test_ray.py has a real one."""
    status = {"autoscalerReport": {"nodeTypeMapping": types}} if types is not None else None
    monkeypatch.setattr(RayCluster, "_ask", lambda *_: {"data": {"clusterStatus": status}})
    assert RayCluster(NOBODY).grows() is grows
