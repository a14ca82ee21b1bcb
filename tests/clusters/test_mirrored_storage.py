"""Machines that share no folder, on a real S3 server (moto's, over HTTP): real workers, real 4-bit training.

A machine is a cache folder of its own; all of them see the same store.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from hpsearch.checkpoints import MARKER, last_checkpoint
from hpsearch.folders import JobFolder, number_of
from hpsearch.search.view import StudyView, read_view
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.trial import Outcome, TrialResult
from tests.integration.command import Command, Start, commands, ended

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

STUDY = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: "sklearn:breast_cancer", columns: {question: question, answer: answer, label: answer}, max_tokens: 256}
training: {batch_size: 4, gradient_checkpointing: false}
budget: {max_steps: 120, reports: 12, validation_fraction: 0.1}
final: {max_steps: 60, reports: 6, validation_fraction: 0.1}
search:
  trials: 1
  pruner: none
  space: {training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""
LIMIT_S = 240.0


@dataclass
class Site:
    """A bucket, a store that all machines see, and machines by their names."""

    folder: Path
    start: Start
    s3: Any
    endpoint: str

    def run(self, machine: str, *arguments: str, **environment: str) -> Command:
        cache = self.folder / machine
        cache.mkdir(exist_ok=True)
        usual = {
            "HPSEARCH_STORAGE": "s3://lab/studies",
            "HPSEARCH_STORE": f"sqlite:///{self.folder}/hpsearch.db",
            "HPSEARCH_CACHE": str(cache),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        return self.start("hpsearch", *arguments, folder=self.folder, **(usual | environment))

    def names(self, below: str = "") -> set[str]:
        """Of the files in the bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="lab", Prefix=f"studies/{below}")
        return {each["Key"] for page in pages for each in page.get("Contents", [])}

    def sealed(self, below: str, folder: str) -> bool:
        """Whether a whole checkpoint of that folder is there."""
        return any(f"/{folder}/" in name and name.endswith(f"/{MARKER}") for name in self.names(below))

    def until(self, condition: Callable[[], Any], process: Command) -> None:
        until = time.monotonic() + LIMIT_S
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "it never came to that"
            time.sleep(0.1)

    def view(self) -> StudyView:
        with Store(parse_url(f"sqlite:///{self.folder}/hpsearch.db", from_argv=False)) as store:
            stored = store.studies.find("demo")
            assert stored is not None
            return read_view(store, stored)

    def attempt(self, machine: str, number: int) -> JobFolder:
        (found,) = (self.folder / machine / "storage").glob(f"*/trials/demo-*/0000/attempt-{number}")
        return JobFolder(found)

    def final(self, machine: str) -> JobFolder:
        (found,) = (self.folder / machine / "storage").glob("*/runs/demo")
        return JobFolder(found)


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def site(server: ThreadedMotoServer, tmp_path: Path) -> Iterator[Site]:
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="someone",
        aws_secret_access_key="hunter2",
        region_name="us-east-1",
    )
    s3.create_bucket(Bucket="lab")
    (tmp_path / "demo.yaml").write_text(STUDY)
    with commands() as start:
        site = Site(tmp_path, start, s3, endpoint)
        yield site
    for name in site.names():
        s3.delete_object(Bucket="lab", Key=name)
    s3.delete_bucket(Bucket="lab")


def begun_at(folder: JobFolder) -> int:
    """The step from which an attempt continued, by its trainer's log."""
    (said,) = (line for line in folder.log.read_text().splitlines() if "training continues from step" in line)
    return int(said.partition("step ")[2].partition(",")[0])


def killed(process: Command) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_trial_and_its_final_run_go_from_machine_to_machine(site: Site) -> None:
    first = site.run("a", "worker", "demo.yaml")
    site.until(lambda: site.sealed("trials/", "attempt-1"), first)
    killed(first)
    second = site.run("b", "worker", "demo.yaml")
    site.until(lambda: site.sealed("trials/", "attempt-2"), second)
    second.send_signal(signal.SIGTERM)
    stopped = ended(second)
    assert stopped.code == 130, stopped.complained
    saved = last_checkpoint(site.attempt("b", 2))
    assert saved is not None
    third = ended(site.run("c", "worker", "demo.yaml"))
    assert third.code == 0, third.complained
    assert begun_at(site.attempt("b", 2)) >= 10, "the killed worker's checkpoint was not found"
    assert begun_at(site.attempt("c", 3)) == number_of(saved), "its stop did not wait for the bucket"
    assert [point.step for point in site.attempt("c", 3).read_history()] == list(range(1, 121))
    (trial,) = site.view().trials
    assert (trial.outcome, trial.facts["attempts"], len(trial.reports)) == ("complete", 3, 12)
    assert "started_over" not in trial.facts
    assert not [name for name in site.names("trials/") if "/checkpoints/" in name], "nobody continues it"
    assert [name for name in site.names("trials/") if name.endswith("attempt-3/result.json")]

    final = site.run("a", "train", "demo")
    site.until(lambda: site.sealed("runs/", "demo"), final)
    killed(final)
    resumed = ended(site.run("b", "train", "demo", "--resume"))
    assert resumed.code == 0, resumed.complained
    assert begun_at(site.final("b")) >= 10
    asked = ended(site.run("c", "evaluate", "demo", "--limit", "4", "--without-base"))
    assert asked.code == 0, asked.complained
    assert site.final("c").read(TrialResult).outcome is Outcome.COMPLETE
    told = ended(site.run("a", "report", "demo", "-o", "report.html"))
    assert "evaluation" in told.said, told.complained

    gone = ended(site.run("a", "delete", "demo", "--yes"))
    assert gone.code == 0, gone.complained
    assert not site.names("trials/")
    assert site.names("runs/")


WRONG = {
    "no such bucket": ({"HPSEARCH_STORAGE": "s3://nowhere/x"}, "there is no such bucket: s3://nowhere/x"),
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
        "needs credentials, and none were found",
    ),
    "nobody there": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "can't be used: "),
    "no rights": ({"HPSEARCH_STORAGE": "s3://closed/x"}, "can't be written by you: "),
}


@pytest.mark.parametrize(("environment", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_bucket_is_reported_at_the_start(
    site: Site, environment: dict[str, str], said: str
) -> None:
    if "closed" in environment.get("HPSEARCH_STORAGE", ""):
        closed = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::closed/*"}
        site.s3.create_bucket(Bucket="closed")
        site.s3.put_bucket_policy(Bucket="closed", Policy=json.dumps({"Version": "2012-10-17", "Statement": [closed]}))
    told = ended(site.run("a", "worker", "demo.yaml", **environment))
    assert told.code in (1, 2)
    assert said in told.complained
    assert "Traceback" not in told.complained
    assert "hunter2" not in told.complained
    assert not (site.folder / "hpsearch.db").exists()
