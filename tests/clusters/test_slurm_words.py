"""Messages on a real SLURM: what it refuses, what would be submitted, why a job never started."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.launch.launcher import JobState
from hpsearch.store import LaunchedJob
from tests.clusters.slurm_cluster import SlurmCluster
from tests.clusters.slurm_lab import SECRET, Lab
from tests.contract.contract_servers import PostgreSql
from tests.integration.command import BIN, commands

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(slurm_cluster: SlurmCluster, postgresql: PostgreSql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    url = postgresql.url(postgresql.create(postgresql.template)).replace(":@", "@")
    with commands() as start:
        lab = Lab(tmp_path_factory.mktemp("lab"), url, slurm_cluster, start)
        lab.write("demo")
        yield lab
        lab.close()
    slurm_cluster.end_jobs()


REFUSALS = {
    "--partition=mian": "--partition: this cluster has no 'mian'; did you mean 'main'?",
    "--constraint=a100": "--constraint: no node has it\nsbatch: Invalid feature specification",
    "--gres=gpu:1": "--gres, --gpus: the nodes have no such thing\nsbatch: Invalid generic resource",
    "--gpus=1": "--gres, --gpus: the nodes have no such thing",
    "--gpus=0.5": "gpus: ",
    "--memory=900G": "--cpus, --memory, --gpus, --constraint: no node of the partition has that much",
    "--cpus=99": "--cpus, --memory, --gpus, --constraint: no node of the partition has that much",
    "--workers=5000": "--workers: more than a job array of this cluster may have",
    "--partition=short --time=1h": "--time: partition short allows 5:00 ([days-]hours:minutes:seconds): "
    "SLURM would never start a job of 1h",
    "--time=4": "time: write 4h, 90m, 2d, '04:00:00' or 1-12:00:00, not '4'",
    "--memory=64": "memory: ",
    "--partition=": "partition: ",
}


@pytest.mark.parametrize("options", REFUSALS)
def test_what_slurm_would_not_take_is_reported_and_nothing_is_begun(lab: Lab, options: str) -> None:
    answer = lab.hpsearch("launch", "demo.yaml", "--on", "slurm", *options.split())
    assert answer.code in (1, 2)
    assert REFUSALS[options] in answer.complained
    assert "Traceback" not in answer.complained
    assert lab.cluster.ask("squeue", "--noheader") == ""
    assert lab.store.studies.find("demo") is None


def test_no_sbatch_in_the_path(lab: Lab) -> None:
    answer = lab.hpsearch("launch", "demo.yaml", "--on", "slurm", PATH=str(BIN))
    assert "there is no sbatch in the path: launch from where jobs are submitted" in answer.complained


def test_a_controller_that_is_away(lab: Lab, tmp_path: Path) -> None:
    text = Path(lab.cluster.environment["SLURM_CONF"]).read_text().splitlines()
    changed = ["SlurmctldPort=1" if line.startswith("SlurmctldPort=") else line for line in text]
    (tmp_path / "slurm.conf").write_text("\n".join(changed) + "\n")
    answer = lab.hpsearch("launch", "demo.yaml", "--on", "slurm", SLURM_CONF=str(tmp_path / "slurm.conf"))
    assert answer.code == 1
    assert "SLURM's controller doesn't answer" in answer.complained


def test_a_dry_run_shows_the_script_without_secrets_and_submits_nothing(lab: Lab) -> None:
    said = lab.says("launch", "demo.yaml", "--on", "slurm", "--workers", "3", "--time", "4h", "--dry-run")
    assert said.startswith("#!/bin/bash\n#SBATCH --requeue\n")
    for line in ("--array=0-2", "--time=240", "--signal=B:USR1@120", "--open-mode=append"):
        assert f"#SBATCH {line}\n" in said
    assert SECRET not in said
    assert lab.url not in said
    assert lab.cluster.ask("squeue", "--noheader") == ""
    assert lab.store.studies.find("demo") is None


def test_nodes_that_are_down_are_no_refusal_and_status_says_what_a_job_waits_for(lab: Lab) -> None:
    with lab.drained():
        job_id = lab.launch("demo")
        job = lab.jobs("demo")[job_id]
        assert job.state is JobState.PENDING
        assert job.reason
        # SLURM finds another reason as time goes by, and its words hold single blanks
        assert re.search(rf"{job_id} +slurm +pending +\S+", lab.says("status", "demo"))
        assert "1 job is ended: waiting jobs now" in lab.says("stop", "demo")
        assert lab.until_state("demo", job_id, JobState.GONE).reason == "cancelled"


@pytest.mark.parametrize(
    ("setup", "reason"),
    {
        "echo first\nexit 7": "exit code 7: setup failed with exit code 7: exit 7",
        "module load cuda\necho later": "exit code 127: setup failed with exit code 127: module load cuda",
    }.items(),
)
def test_a_setup_that_fails_is_reported(lab: Lab, setup: str, reason: str) -> None:
    job_id = lab.launch("demo", "--setup", setup)
    assert lab.until_state("demo", job_id, JobState.GONE).reason == reason
    assert reason in lab.says("status", "demo")
    assert "later" not in lab.said("demo")


def test_a_job_that_may_not_be_queued_again_says_what_to_do(lab: Lab) -> None:
    out_of_time = "scontrol update JobId=$SLURM_JOB_ID Requeue=0\nkill -USR1 $$\nsleep 100"
    job_id = lab.launch("demo", "--setup", out_of_time)
    reason = lab.until_state("demo", job_id, JobState.GONE).reason
    assert reason.endswith("is out of time, or preempted, and may not be queued again: launch again")


def test_a_log_that_a_node_cannot_write_is_reported(lab: Lab) -> None:
    with lab.drained():
        job_id = lab.launch("demo")
        shutil.rmtree(lab.folder / "storage" / "logs" / "demo")
    reason = lab.until_state("demo", job_id, JobState.GONE).reason
    assert reason == "its log can't be written on node1: storage must be in a folder that the nodes share"


def test_a_job_that_slurm_holds_says_how_it_is_released(lab: Lab) -> None:
    with lab.drained():
        job_id = lab.launch("demo")
        lab.cluster.ask("scontrol", "hold", job_id)
        job = lab.jobs("demo")[job_id]
        assert (job.state, job.reason) == (JobState.PENDING, f"JobHeldAdmin: scontrol release {job_id} lets it start")
        lab.cluster.ask("scancel", job_id)


def test_jobs_that_slurm_has_forgotten_are_gone_and_another_clusters_are_let_be(lab: Lab) -> None:
    """An id alone is not enough: another cluster uses the same ids."""
    job_id = lab.launch("demo", "--setup", "exit 7")
    lab.until_state("demo", job_id, JobState.GONE)
    lab.until("demo", lambda: not lab.jobs("demo")[job_id].reason.startswith("exit code"))  # MinJobAge
    assert lab.jobs("demo")[job_id].reason == "setup failed with exit code 7: exit 7"
    other = lab.cluster.ask("sbatch", "--parsable", "--array=0", "--output=/dev/null", "--wrap", "sleep 100").strip()
    found = lab.store.studies.find("demo")
    assert found is not None
    log = str(lab.folder / "storage" / "logs" / "demo" / f"slurm-{other}_0.txt")
    lab.store.launches.add(found.study_id, "slurm", {}, [LaunchedJob(job_id=f"{other}_0", log=log)])
    assert lab.jobs("demo")[f"{other}_0"].state is JobState.GONE
    lab.says("stop", "demo")
    assert lab.cluster.ask("squeue", "--noheader", f"--jobs={other}", "--format=%T").strip() in ("PENDING", "RUNNING")
    lab.cluster.ask("scancel", other)
