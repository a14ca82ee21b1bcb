"""SLURM's answers: the state of its jobs, from squeue, and its refusals in plain words. Each within seconds."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from hpsearch.errors import HpsearchError
from hpsearch.launch.launcher import JobState, JobView
from hpsearch.launch.process import last_line
from hpsearch.store import LaunchedJob, StoredLaunch

_ANSWER_S = 15.0
_SUBMIT_S = 60.0
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING")
ENDED = {
    "COMPLETED": "",
    "FAILED": "",
    "CANCELLED": "cancelled",
    "TIMEOUT": "its time limit was reached before the worker had saved",
    "OUT_OF_MEMORY": "it took more memory than it was given (--memory)",
    "NODE_FAIL": "its node was lost",
    "PREEMPTED": "preempted, and not queued again",
    "BOOT_FAIL": "its node did not boot",
    "DEADLINE": "its deadline has passed",
    "REVOKED": "revoked",
}
_NO_LOG = 53
"""The signal that slurmstepd reports where it can't open a job's log."""


class Row(NamedTuple):
    """A job in squeue's output, with squeue's names."""

    JobArrayID: str
    State: str
    RestartCnt: str
    NodeList: str
    exit_code: str
    STDOUT: str
    Reason: str


_WIDTH = {"STDOUT": 1024, "Reason": 256}


def rows_of(launch: StoredLaunch) -> dict[str, Row]:
    """What SLURM still knows; some minutes after a job's end nothing (MinJobAge). A job with another log belongs to
    another cluster with the same id.
    """
    widths = [_WIDTH.get(field, 64) for field in Row._fields]
    wanted = ",".join(f"{field}:{width}" for field, width in zip(Row._fields, widths, strict=True))
    array = launch.jobs[0].job_id.partition("_")[0]
    try:
        said = ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={array}", f"--Format={wanted}")
    except HpsearchError as error:
        if "Invalid job id" in str(error):
            return {}
        raise
    ends = list(accumulate(widths))
    rows: dict[str, Row] = {}
    for line in said.splitlines():
        padded = line.encode()  # padded to a width in bytes
        row = Row(*(padded[end - width : end].decode().strip() for end, width in zip(ends, widths, strict=True)))
        for job in launch.jobs:
            is_meant = row.JobArrayID in (job.job_id, array)  # an array that is cancelled while it waits is one row
            if is_meant and job.log == log_of(row.STDOUT, *job.job_id.split("_")):
                rows[job.job_id] = row
    return rows


def view_of(job: LaunchedJob, row: Row | None) -> JobView:
    if row is None or row.State in ENDED:
        return JobView(job.job_id, JobState.GONE, _why_gone(job, row), row.NodeList if row else "", job.log)
    if row.State in _WAITING:
        state = JobState.REQUEUED if int(row.RestartCnt) else JobState.PENDING
        held = "held" in row.Reason.lower()
        reason = f"{row.Reason}: scontrol release {job.job_id} lets it start" if held else row.Reason
        return JobView(job.job_id, state, reason, "", job.log)
    return JobView(
        job.job_id, JobState.RUNNING, "" if row.State == "RUNNING" else row.State.lower(), row.NodeList, job.log
    )


def _why_gone(job: LaunchedJob, row: Row | None) -> str:
    said = last_line(Path(job.log)) if job.log else ""
    if row is None:
        return said or "SLURM no longer knows it, and it wrote nothing"
    code, number = int(row.exit_code) >> 8, int(row.exit_code) & 127  # as wait(2) has it
    if number == _NO_LOG:
        return f"its log can't be written on {row.NodeList}: storage must be in a folder that the nodes share"
    how = ENDED[row.State] or (f"killed by signal {number}" if number else f"exit code {code}" if code else "")
    return ": ".join(part for part in (how, said) if part)


def log_of(pattern: str, array: str, index: str) -> str:
    letters = {"%": "%", "A": array, "a": index}
    return re.sub("%([%Aa])", lambda found: letters[found[1]], pattern)


def ask(*command: str, script: str = "", environment: Mapping[str, str] | None = None) -> str:
    """The output of a SLURM command. Raises HpsearchError with its message where it fails, or where it does not
    answer.
    """
    seconds = _ANSWER_S if environment is None else _SUBMIT_S
    try:
        ended = subprocess.run(
            command, input=script, env=environment, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except FileNotFoundError:
        raise HpsearchError(f"there is no {command[0]} in the path of {socket.gethostname()}") from None
    except subprocess.TimeoutExpired:
        message = f"SLURM gave no answer to {command[0]} within {seconds:g} s; scontrol ping says how its controller is"
        raise HpsearchError(message) from None
    if ended.returncode:
        raise HpsearchError(_plain(ended.stderr or ended.stdout, command[0]))
    return ended.stdout


def tell(command: list[str], job_ids: list[str]) -> None:
    """Sends a command to jobs, ignoring those that have ended."""
    try:
        if job_ids:
            ask(*command, *job_ids)
    except HpsearchError as error:
        if not any(word in str(error).lower() for word in ("already complet", "invalid job id", "finished")):
            raise


MAYBE_LATER = "node configuration is not available"
"""`sbatch --test-only` also says this when suitable nodes are down: sbatch itself then accepts the job."""
_HINTS = {
    "Invalid partition name": "--partition",
    "Invalid account": "--account, --partition: these two don't go together, or you have no right to them",
    "Invalid qos": "--qos",
    "Invalid feature": "--constraint: no node has it",
    "generic resource": "--gres, --gpus: the nodes have no such thing",
    "time limit is invalid": "--time: more than you may ask for",
    "Invalid job array": "--workers: more than a job array of this cluster may have",
    MAYBE_LATER: "--cpus, --memory, --gpus, --constraint: no node of the partition has that much",
    "accounting/QOS policy": "--account, --qos, --time: more than your account may have",
}
_PREFIXES = re.compile(r"^(?:\w+: |error: |fatal: |allocation failure: |Batch job submission failed: )+")


def _plain(stderr: str, command: str) -> str:
    """SLURM's last line without its prefix, after the option that it is about."""
    lines = [_PREFIXES.sub("", line).strip("* ") for line in stderr.splitlines() if line.strip("* \t")]
    said = lines[-1] if lines else "it failed without a message"
    hint = next((hint for words, hint in _HINTS.items() if words in said), None)
    return f"{hint}\n{command}: {said}" if hint else f"{command}: {said}"
