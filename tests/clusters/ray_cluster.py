"""A real Ray cluster for tests: `ray start` once for the head and once for each node, on this host, on free ports.

It wants a token, as a cluster does that was started where one exists (~/.ray/auth_token). Nothing of another cluster
on the machine is touched: what belongs to a node is known by a variable that all its processes inherit.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

PATIENCE_S = 120.0
_OF_NODE = "HPSEARCH_TEST_RAY_NODE"
REPOSITORY = Path(__file__).parents[2]


class RayTestCluster:
    """A head that takes no work, and nodes that are added and killed. `environment` makes Ray's clients, and
    `hpsearch launch --on ray`, speak to this cluster."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hp-ray-"))  # a short path, because sockets are below it
        self.gcs, self.dashboard, agent, clients = _free_ports(4)
        self.url = f"http://127.0.0.1:{self.dashboard}"
        self._name = secrets.token_hex(4)
        self._num_nodes = 0
        self._started: list[subprocess.Popen[bytes]] = []
        self._token = secrets.token_hex(32)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_API_SERVER_ADDRESS": self.url,
        }
        head = ["--head", f"--port={self.gcs}", f"--dashboard-port={self.dashboard}", "--disable-usage-stats"]
        head += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={clients}", "--num-cpus=0"]
        self._start("head", *head, "--node-ip-address=127.0.0.1", f"--temp-dir={self.folder}")
        self._until(self._answers, "the head answers")

    def add_node(self, num_cpus: int = 1, log_monitor: bool = False) -> str:
        """Gives the node's name here. One log monitor is enough for a host."""
        self._num_nodes += 1
        node = f"node{self._num_nodes}"
        before = {each["node_id"] for each in self.alive()}
        options = [f"--address=127.0.0.1:{self.gcs}", "--node-ip-address=127.0.0.1", f"--num-cpus={num_cpus}"]
        options += [f"--include-log-monitor={str(log_monitor).lower()}"]
        self._start(node, *options, f"--dashboard-agent-listen-port={_free_ports(1)[0]}")
        self._until(lambda: bool({each["node_id"] for each in self.alive()} - before), f"{node} joins")
        self._until(self._tells_of_its_nodes, "the monitor reports")
        return node

    def kill_node(self, node: str) -> None:
        """As if its plug were pulled: raylet, Ray's workers, ours and their trainers."""
        for process in self.processes(node):
            process.kill()

    def freeze(self, node: str) -> None:
        for process in self.processes(node):
            process.suspend()

    def thaw(self, node: str) -> None:
        for process in self.processes(node):
            process.resume()

    def processes(self, node: str = "") -> list[psutil.Process]:
        """Those of one node, or of the whole cluster."""
        found = []
        for process in psutil.process_iter():
            try:
                of = process.environ().get(_OF_NODE, "")
            except psutil.Error:
                continue
            if of.startswith(f"{self._name}/{node}") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def node_of(self, pid: int) -> str:
        return psutil.Process(pid).environ()[_OF_NODE].partition("/")[2]

    def alive(self) -> list[dict[str, Any]]:
        nodes = self.ask("/api/v0/nodes?limit=1000&timeout=10&detail=true")["data"]["result"]["result"]
        return [node for node in nodes if node["state"] == "ALIVE" and not node["is_head_node"]]

    def ask(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self._token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def said(self) -> str:
        """All logs of Ray and of its jobs."""
        return "\n".join(file.read_text(errors="replace") for file in self.folder.rglob("*") if _is_log(file))

    def close(self) -> None:
        for process in self.processes():
            process.kill()
        for started in self._started:
            started.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("/api/version")) and self.alive() == []
        except OSError:
            return False

    def _tells_of_its_nodes(self) -> bool:
        """Whether the monitor has said which nodes there are: until then a launcher assumes that more may be added."""
        status = self.ask("/api/cluster_status")["data"]["clusterStatus"] or {}
        return bool((status.get("autoscalerReport") or {}).get("nodeTypeMapping"))

    def _start(self, node: str, *options: str) -> None:
        own = {
            _OF_NODE: f"{self._name}/{node}",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "RAY_memory_monitor_refresh_ms": "0",  # what else runs here may fill the memory
        }
        with (self.folder / f"{node}.out").open("ab") as output:
            started = subprocess.Popen(
                ["ray", "start", "--block", "--object-store-memory=80000000", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment, **own},
                start_new_session=True,
            )
        self._started.append(started)

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            said = "\n".join(file.read_text(errors="replace")[-2000:] for file in self.folder.glob("*.out"))
            assert time.monotonic() < deadline, f"it never came to that: {what}\n{said}"
            time.sleep(0.1)


def _is_log(file: Path) -> bool:
    return file.is_file() and "logs" in file.parts and file.suffix in (".log", ".out", ".err")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
