"""An engine elsewhere, which does what the test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hpsearch.errors import HpsearchError
from hpsearch.launch.launcher import JobState, JobView, Order
from hpsearch.spec.base import Spec
from hpsearch.store import LaunchedJob, StoredLaunch


@dataclass
class Far:
    """An engine elsewhere that does what a test says: the outermost border."""

    class FarOptions(Spec):
        partition: str = "cpu"
        cpus: int = 1

    Options: ClassVar[type[Spec]] = FarOptions
    reaches_other_machines: ClassVar[bool] = True
    started: ClassVar[list[Order]] = []
    ended: ClassVar[list[tuple[list[str], bool]]] = []
    refusal: ClassVar[str] = ""
    state: ClassVar[JobState] = JobState.PENDING
    options: Spec = field(default_factory=FarOptions)

    def check(self, order: Order) -> None:
        del order
        if self.refusal:
            raise HpsearchError(self.refusal)

    def plan(self, order: Order) -> str:
        return f"{order.num_workers} times {' '.join(order.arguments)} on {self.options}"

    def start(self, order: Order) -> list[LaunchedJob]:
        self.started.append(order)
        return [LaunchedJob(job_id=f"7_{index}") for index in range(order.num_workers)]

    def jobs(self, launch: StoredLaunch) -> list[JobView]:
        self.check(None)  # type: ignore[arg-type]
        return [JobView(job.job_id, self.state, "Resources", "node3") for job in launch.jobs]

    def stop(self, launch: StoredLaunch, *, now: bool) -> None:
        self.check(None)  # type: ignore[arg-type]
        self.ended.append(([job.job_id for job in launch.jobs], now))
