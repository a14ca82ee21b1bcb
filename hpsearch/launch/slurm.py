"""SLURM as an engine: a job array, in which each job keeps one worker running on the node that it gets.

A job is queued again, with the same id, when its time limit is reached, when it is preempted, and when its node is
lost; its trial continues on any free worker. There is no `srun`: a worker is one process, and the batch script ends
with it.

SLURM 22.05 was run; of its commands only sbatch, squeue, scontrol, scancel and sinfo are used, and no accounting.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from hpsearch.errors import HpsearchError, InputError, did_you_mean
from hpsearch.launch.launcher import JobView, Order
from hpsearch.launch.slurm_queue import ENDED, MAYBE_LATER, ask, log_of, rows_of, tell, view_of
from hpsearch.spec.base import Spec
from hpsearch.store import LaunchedJob, StoredLaunch
from hpsearch.store.workers import JOB_VARIABLE

_MINUTES = {"d": 24 * 60, "h": 60, "m": 1}
_TIME = r"(?:\d+[dhm])+|(?:\d+-)?\d+:\d\d:\d\d"
_LEAD_S = 120
"""Seconds before the time limit at which a worker is told to save; a fifth of the limit where that is less."""


def _as_time(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_TIME, value) and _minutes(value):
        return value
    raise ValueError(f"write 4h, 90m, 2d, '04:00:00' or 1-12:00:00, not {value!r}")  # 4:00:00 is a number to YAML


def _minutes(time: str) -> int:
    """A time limit in minutes, SLURM's unit: seconds are rounded up to the next one."""
    if parts := re.findall(r"(\d+)([dhm])", time):
        return sum(int(number) * _MINUTES[unit] for number, unit in parts)
    numbers = [int(part) for part in reversed(re.split("[-:]", time))]
    seconds, minutes, hours, days = [*numbers, 0, 0, 0][:4]
    return (days * 24 + hours) * 60 + minutes + (seconds > 0)


_Time = Annotated[str, BeforeValidator(_as_time), Field(json_schema_extra={"pattern": f"^({_TIME})$"})]
_Word = Annotated[str, Field(pattern=r"^\S+$", max_length=500)]


class SlurmOptions(Spec):
    """Workers as jobs of a SLURM cluster. Options that are not given come from the partition's defaults, or an SBATCH_
    variable.
    """

    time: _Time | None = Field(None, description="Time limit of a job, as 4h, 90m or 1-12:00:00.")
    partition: _Word | None = Field(None, description="Partition.")
    account: _Word | None = Field(None, description="Account that is charged.")
    qos: _Word | None = Field(None, description="Quality of service.")
    constraint: _Word | None = Field(None, description="Features that a node must have.")
    gres: _Word | None = Field(None, description="Generic resources of a worker, as gpu:a100:1.")
    gpus: Annotated[int, Field(ge=1)] | None = Field(None, description="GPUs of a worker.")
    cpus: Annotated[int, Field(ge=1)] | None = Field(None, description="Cores of a worker.")
    memory: Annotated[str, Field(pattern=r"^[1-9]\d*[KMGT]$")] | None = Field(
        None, description="Memory of a worker, as 64G."
    )
    setup: str | None = Field(None, description="Shell lines before a worker starts, as module load cuda.")


class Slurm:
    Options: ClassVar[type[Spec]] = SlurmOptions
    reaches_other_machines: ClassVar[bool] = True

    def __init__(self, options: SlurmOptions) -> None:
        self._options = options

    def check(self, order: Order) -> None:
        if shutil.which("sbatch") is None:
            raise HpsearchError("there is no sbatch in the path: launch from where jobs are submitted, a login node")
        try:
            ask("scontrol", "ping")
        except HpsearchError as error:
            raise HpsearchError(f"SLURM's controller doesn't answer. {error}") from None
        all_up = _check_partition(self._options)
        try:
            _submit(self._options, order, "--test-only")
        except HpsearchError as error:
            if all_up or MAYBE_LATER not in str(error):
                raise

    def plan(self, order: Order) -> str:
        return _script(self._options, order)

    def start(self, order: Order) -> list[LaunchedJob]:
        try:
            order.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HpsearchError(f"{order.logs}: {error.strerror}; jobs write their logs there") from None
        array = _submit(self._options, order, "--parsable").strip().partition(";")[0]
        ids = [(array, str(index)) for index in range(order.num_workers)]
        return [LaunchedJob(job_id="_".join(each), log=log_of(_log_pattern(order), *each)) for each in ids]

    def jobs(self, launch: StoredLaunch) -> list[JobView]:
        rows = rows_of(launch)
        return [view_of(job, rows.get(job.job_id)) for job in launch.jobs]

    def stop(self, launch: StoredLaunch, *, now: bool) -> None:
        """Running jobs first lose the permission to requeue: a preemption may come while they save."""
        rows = [row for row in rows_of(launch).values() if row.State not in ENDED]
        running = [] if now else [row.JobArrayID for row in rows if row.State == "RUNNING"]
        others = [row.JobArrayID for row in rows if row.JobArrayID not in running]
        tell(["scancel"], others)
        for job_id in running:
            tell(["scontrol", "update", "Requeue=0"], [f"JobId={job_id}"])
        tell(["scancel", "--batch", "--signal=USR2"], running)


def _check_partition(options: SlurmOptions) -> bool:
    """Whether all of its nodes are up. A job longer than the partition's limit would be accepted and wait forever
    (EnforcePartLimits, slurm.conf(5)).
    """
    lines = [line.strip().split("|") for line in ask("sinfo", "--noheader", "--format=%P|%l|%T").splitlines()]
    default = next((name for name, _, _ in lines if name.endswith("*")), "")
    asked = (options.partition or os.environ.get("SBATCH_PARTITION") or default).rstrip("*").split(",")
    limits = {name.rstrip("*"): limit for name, limit, _ in lines}
    if unknown := [name for name in asked if name and name not in limits]:
        raise InputError(f"--partition: this cluster has no {unknown[0]!r}; {did_you_mean(unknown[0], list(limits))}")
    allowed = [limits[name] for name in asked if name]
    if (
        options.time
        and allowed
        and all(each[0].isdigit() and _minutes(each) < _minutes(options.time) for each in allowed)
    ):
        reason = f"partition {', '.join(asked)} allows {', '.join(allowed)} ([days-]hours:minutes:seconds)"
        raise InputError(f"--time: {reason}: SLURM would never start a job of {options.time}")
    states = [state for name, _, state in lines if name.rstrip("*") in asked]
    return not any(state.startswith(("down", "drain", "fail", "unk")) or state.endswith("*") for state in states)


def _log_pattern(order: Order) -> str:
    return str(order.logs).replace("%", "%%") + "/slurm-%A_%a.txt"


def _arguments(options: SlurmOptions, order: Order) -> list[str]:
    """sbatch's options. They are in the script, for people to read, and on the command line, where they override a
    person's SBATCH_ variables. `--export` carries the environment, including secrets.
    """
    minutes = _minutes(options.time) if options.time else None
    lead_s = min(_LEAD_S, minutes * 60 // 5) if minutes else _LEAD_S
    said = {
        "job-name": f"hpsearch-{order.study}",
        "array": f"0-{order.num_workers - 1}",
        "nodes": 1,
        "ntasks": 1,
        "time": minutes,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gres": options.gres,
        "gpus": options.gpus,
        "cpus-per-task": options.cpus,
        "mem": options.memory,
        "signal": f"B:USR1@{lead_s}",
        "chdir": order.folder,
        "output": _log_pattern(order),
        "open-mode": "append",
        "export": "ALL",
    }
    return ["--requeue", *(f"--{name}={value}" for name, value in said.items() if value is not None)]


_SCRIPT = Path(__file__).with_name("slurm.sh")
_SETUP = """\

trap 'echo "setup failed with exit code $?: $BASH_COMMAND"' EXIT
set -e
{lines}
set +e
trap - EXIT

"""


def _script(options: SlurmOptions, order: Order) -> str:
    parts = {
        "OPTIONS": "\n".join(f"#SBATCH {shlex.quote(each)}" for each in _arguments(options, order)),
        "JOB": JOB_VARIABLE,
        "BIN": shlex.quote(str(Path(sys.executable).parent)),
        "SETUP": _SETUP.format(lines=options.setup.strip()) if options.setup else "",
        "COMMAND": shlex.join(["worker", *order.arguments, "--keep"]),
    }
    return re.sub("@([A-Z]+)@", lambda found: parts[found[1]], _SCRIPT.read_text())


def _submit(options: SlurmOptions, order: Order, *how: str) -> str:
    """Without this, a launch from within a job would pass that job's own SLURM_ variables on."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in _KEPT}
    command = ["sbatch", *how, *_arguments(options, order)]
    return ask(*command, script=_script(options, order), environment={**inherited, **order.environment})


_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
