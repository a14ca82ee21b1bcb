"""A Ray cluster over HTTP: its head's answers, within seconds, or the reason why there is none.

This is the Job Submission API and, beside it, the State API (both on the dashboard's port). Ray Client (`ray://`) would
want the cluster's very versions of Python and Ray here, and to be there as long as the workers are.

Ray's JobSubmissionClient is used for its sign-in and TLS, and not for its addresses: it asks without a deadline, and
`$RAY_ADDRESS` overrules whatever cluster it is told (ray 2.60.0, dashboard/utils.py get_address_for_submission_client).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hpsearch.errors import HpsearchError

DEADLINE_S = 10.0
_SUBMIT_S = 90.0
"""The head's first job waits until its agents are ready."""
_DASHBOARD_PORT = 8265
_MOST_ROWS = 10_000
T = TypeVar("T")


def ray_module() -> Any:
    """Raises HpsearchError where Ray isn't installed."""
    try:
        import ray.job_submission
    except ImportError:
        raise HpsearchError("Ray isn't installed here: pip install 'hpsearch[ray]'") from None
    return ray


def find_cluster(address: str) -> str:
    """The dashboard's URL. `auto`: of the cluster that runs on this machine, or that `$RAY_ADDRESS` names."""
    ray_module()
    if address == "auto":
        return _within(DEADLINE_S, _find_here, "this machine (--address auto)")
    scheme, _, place = address.rpartition("://")
    host = place.rstrip("/")
    if scheme == "ray":
        host = host.partition(":")[0]  # the port is Ray Client's
    if scheme not in ("", "ray", "http", "https") or not host:
        raise HpsearchError(f"--address {address}: expected auto, or the dashboard's address, as http://HEAD:8265")
    with_port = host if re.search(r":\d+$", host) or scheme == "https" else f"{host}:{_DASHBOARD_PORT}"
    return f"{scheme if scheme.startswith('http') else 'http'}://{with_port}"


def is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


class RayCluster:
    """Every method raises HpsearchError where the cluster doesn't answer or refuses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = _client(url)

    def version(self) -> str:
        return str(self._ask("GET", "/api/version")["ray_version"])

    def nodes(self) -> list[dict[str, Any]]:
        """The living nodes, from the State API (ray.util.state.common.NodeState)."""
        return [node for node in self._rows("nodes", {}) if node["state"] == "ALIVE"]

    def grows(self) -> bool:
        """Whether nodes may be added when workers ask for them; also True where this is unknown.

        Without an autoscaler the monitor calls each node's type `node_ID` (ray 2.60.0, autoscaler/_private/readonly).
        """
        status = self._ask("GET", "/api/cluster_status")["data"]["clusterStatus"] or {}
        types = (status.get("autoscalerReport") or {}).get("nodeTypeMapping") or {}
        return not types or any(kind != f"node_{node}" for node, kind in types.items())

    def tasks(self, ray_job_id: str) -> list[dict[str, Any]]:
        """A row for each attempt (ray.util.state.common.TaskState)."""
        return self._rows("tasks", {"job_id": ray_job_id, "type": "NORMAL_TASK"})

    def job(self, submission_id: str) -> dict[str, Any] | None:
        """None: the cluster knows no such job."""
        return self._ask("GET", f"/api/jobs/{submission_id}", missing=True)  # type: ignore[no-any-return]

    def submit(self, submission_id: str, command: str, metadata: Mapping[str, str]) -> None:
        what = {"entrypoint": command, "submission_id": submission_id, "metadata": dict(metadata)}
        self._ask("POST", "/api/jobs/", seconds=_SUBMIT_S, json_data=what)

    def put(self, key: str, value: bytes) -> None:
        """Writes to the head's key-value store, which also holds packages: under `gcs://key`, which must end in
        `.zip`.
        """
        self._ask("PUT", f"/api/packages/gcs/{key}", data=value)

    def _rows(self, kind: str, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        filters = {
            "filter_keys": list(wanted),
            "filter_predicates": ["="] * len(wanted),
            "filter_values": list(wanted.values()),
        }
        params = {"limit": _MOST_ROWS, "timeout": int(DEADLINE_S), "detail": "true", **filters}
        answer = self._ask("GET", f"/api/v0/{kind}", params=params)
        if not answer["result"]:
            raise HpsearchError(f"the Ray cluster at {self.url} can't list its {kind}: {answer['msg']}")
        return list(answer["data"]["result"]["result"])

    def _ask(self, method: str, path: str, *, missing: bool = False, seconds: float | None = None, **more: Any) -> Any:
        answer = _within(seconds or DEADLINE_S, lambda: self._client._do_request(method, path, **more), self.url)
        if answer.status_code == 404 and missing:
            return None
        if answer.status_code != 200:
            raise HpsearchError(f"the Ray cluster at {self.url} answers {answer.status_code}: {_last(answer.text)}")
        return answer.json() if answer.content else None


def _client(url: str) -> Any:
    from ray.dashboard.modules.dashboard_sdk import SubmissionClient

    return _within(DEADLINE_S, lambda: SubmissionClient(address=url), url)


def _find_here() -> str:
    from ray.dashboard.utils import get_address_for_submission_client

    return str(get_address_for_submission_client("auto"))


def _within(seconds: float, ask: Callable[[], T], whom: str) -> T:
    """Runs `ask` in a thread that is left running after the deadline: neither GCS's client nor Ray's requests have one.
    Raises HpsearchError with what to do.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    raise HpsearchError(_words(whom, seconds, errors[0] if errors else None)) from None


def _words(whom: str, seconds: float, error: BaseException | None) -> str:
    kind = type(error).__name__
    if error is None or kind in ("ConnectTimeout", "ReadTimeout", "RpcError"):
        return f"Ray: no answer from {whom} within {seconds:g} s: is the head node up, and its port open from here?"
    if kind == "AuthenticationError":
        return (
            f"Ray: the cluster at {whom} wants a token: copy ~/.ray/auth_token from its head node to this machine, and "
            "export RAY_AUTH_MODE=token"
        )
    if isinstance(error, OSError):  # includes those of requests
        return (
            f"Ray: nothing answers at {whom}: is the cluster up (ray status, on its head), and its dashboard open "
            "from here (ray start --head --dashboard-host 0.0.0.0)? --address http://HEAD:8265 names another one"
        )
    return f"Ray: {whom}: {_last(str(error))}"


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
