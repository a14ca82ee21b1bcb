"""A real SLURM for tests: munged, slurmctld and a slurmd per node on this host, as root, on free ports, in one folder.

Debian's build has `slurmd -N` (several nodes on one host). Nothing of the machine's own SLURM or munge is touched.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
PATIENCE_S = 60.0
CPUS = 4
"""Of each node, more than there may really be: jobs of tests are small."""


def refusal() -> str | None:
    """Why no cluster can be started here."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no {', '.join(missing)} here: apt-get install slurm-wlm munge"
    return None if os.getuid() == 0 else "SLURM's daemons change users: only root can start them"


class SlurmCluster:
    """`num_nodes` nodes in the partition `main` (the default), and `urgent`, which preempts it; `short` has a limit of
    five minutes. `environment` makes SLURM's commands speak to this cluster."""

    def __init__(self, num_nodes: int = 2) -> None:
        # Not pytest's folder: munged wants one that everybody may look into.
        self.folder = Path(tempfile.mkdtemp(prefix="hpsearch-slurm-"))
        self.folder.chmod(0o755)
        self.nodes = [f"node{index + 1}" for index in range(num_nodes)]
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SlurmCluster:
        with ExitStack() as undo:
            undo.callback(self.close)
            self._configure()
            self._start_munge()
            self._start_slurm()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, *command: str) -> str:
        """What a command of SLURM's says."""
        return subprocess.run(
            command, env=os.environ | self.environment, check=True, capture_output=True, text=True, timeout=PATIENCE_S
        ).stdout

    def close(self) -> None:
        """Ends the jobs, then the daemons."""
        if len(self._daemons) > 2 and self._daemons[1].poll() is None:
            self.end_jobs()
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def end_jobs(self) -> None:
        """All of them, and waits for it."""
        subprocess.run(["scancel", "--user=root"], env=os.environ | self.environment, check=False, timeout=PATIENCE_S)
        self._until(lambda: not self.ask("squeue", "--noheader"), "jobs end")

    def _configure(self) -> None:
        for name in ("state", *self.nodes):
            (self.folder / name).mkdir()
        ports = _free_ports(1 + len(self.nodes))
        host = socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory=4000 "
            f"Feature=cpu,{name}"
            for name, port in zip(self.nodes, ports[1:], strict=True)
        )
        text = _CONFIGURATION.format(folder=self.folder, host=host, port=ports[0], nodes=nodes)
        (self.folder / "slurm.conf").write_text(text)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {name: self.folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        options = [
            f"--socket={files['socket']}",
            f"--key-file={key}",
            f"--pid-file={files['pid']}",
            f"--log-file={files['log']}",
            f"--seed-file={files['seed']}",
        ]
        self._start("munged", "--foreground", "--force", *options)
        self._until(files["socket"].exists, "munged listens")

    def _start_slurm(self) -> None:
        self._start("slurmctld", "-D", "-i")
        for name in self.nodes:
            self._start("slurmd", "-D", "-N", name)
        self._until(lambda: self._num_idle() == len(self.nodes), "all nodes are idle")

    def _num_idle(self) -> int:
        try:
            said = self.ask("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T")
        except subprocess.CalledProcessError:
            return 0
        return said.split().count("idle")

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("ab") as output:
            daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | self.environment,
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            over = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            said = "\n".join(file.read_text(errors="replace")[-2000:] for file in self.folder.glob("*.out"))
            assert not over, f"{over} ended\n{said}"
            assert time.monotonic() < deadline, f"it never came to that: {what}\n{said}"
            time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as sockets:
        ports = []
        for _ in range(number):
            bound = sockets.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            ports.append(bound.getsockname()[1])
        return ports


def _path() -> str:
    """Daemons are in sbin, which isn't in every user's path, and hpsearch is beside this Python."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"])


_CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=0
KillWait=20
MinJobAge=10
SlurmctldTimeout=30
SlurmdTimeout=30
DefMemPerCPU=10
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL PriorityTier=1 MaxTime=5 State=UP
"""
