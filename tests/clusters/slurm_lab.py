"""A person's folder on a cluster: a study of real 4-bit training, a PostgreSQL, `hpsearch` as installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hpsearch.launch.launcher import JobState, JobView
from hpsearch.launch.roll import call_roll
from hpsearch.search.view import StudyView, read_view
from hpsearch.store import Store, StoredWorker
from hpsearch.store.engine import parse_url
from tests.clusters.slurm_cluster import SlurmCluster
from tests.integration.command import Ended, Start, ended

PATIENCE_S = 900.0
SECRET = "s3cr3t"
T = TypeVar("T")


def study_file(name: str, trials: int, steps: int) -> str:
    return f"""\
study: {name}
task: text-sft
model: {{base: "tiny:qwen2"}}
data: {{source: rows.jsonl, max_tokens: 64}}
training: {{batch_size: 4, gradient_checkpointing: false}}
budget: {{max_steps: {steps}, reports: 2}}
search:
  trials: {trials}
  pruner: none
  space: {{training.learning_rate: {{low: 1e-4, high: 1e-2, log: true}}}}
"""


class Lab:
    def __init__(self, folder: Path, url: str, cluster: SlurmCluster, start: Start) -> None:
        self.folder, self.url, self.cluster = folder, url, cluster
        self._start = start
        self.store = Store(parse_url(url, from_argv=False))
        rows = [{"question": f"Is {i} even or odd?", "answer": "odd" if i % 2 else "even"} for i in range(40)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(self, name: str, trials: int = 1, steps: int = 400) -> str:
        (self.folder / f"{name}.yaml").write_text(study_file(name, trials, steps))
        return f"{name}.yaml"

    def hpsearch(self, *arguments: str, **environment: str) -> Ended:
        given = {"HPSEARCH_STORE": self.url, "PGPASSWORD": SECRET} | self.cluster.environment | environment
        return ended(self._start("hpsearch", *arguments, folder=self.folder, **given))

    def says(self, *arguments: str) -> str:
        answer = self.hpsearch(*arguments)
        assert answer.code == 0, answer.said + answer.complained
        return answer.said

    def launch(self, study: str, *options: str) -> str:
        """One job: its id."""
        self.says("launch", f"{study}.yaml", "--on", "slurm", *options)
        return list(self.jobs(study))[-1]

    @contextmanager
    def drained(self) -> Iterator[None]:
        """No node takes jobs meanwhile."""
        nodes = f"NodeName={','.join(self.cluster.nodes)}"
        self.cluster.ask("scontrol", "update", nodes, "State=drain", "Reason=test")
        try:
            yield
        finally:
            self.cluster.ask("scontrol", "update", nodes, "State=resume")

    def view(self, study: str) -> StudyView:
        found = self.store.studies.find(study)
        assert found is not None
        return read_view(self.store, found)

    def jobs(self, study: str) -> dict[str, JobView]:
        """All jobs of a study, the first launch's first."""
        found = self.store.studies.find(study)
        assert found is not None
        called = call_roll(self.store, found.study_id)
        assert not any(each.silence for each in called), called
        return {job.job_id: job for each in called for job in each.jobs}

    def until(self, study: str, look: Callable[[], T | None]) -> T:
        """What `look` gives, once it gives something."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"it never came to that: {self.jobs(study)}\n{self.said(study)}")
            time.sleep(0.2)
        return found

    def until_state(self, study: str, job_id: str, state: JobState) -> JobView:
        def look() -> JobView | None:
            job = self.jobs(study)[job_id]
            is_ending = state is JobState.RUNNING and job.reason
            return job if job.state is state and not is_ending else None

        return self.until(study, look)

    def training(self, study: str, *job_ids: str) -> tuple[StoredWorker, int]:
        """A worker of one of the jobs, in the first half of a trial, and the trial's number."""

        def look() -> tuple[StoredWorker, int] | None:
            view = self.view(study)
            assert not view.is_finished, f"{study} was finished too early for this test: give it more steps"
            for worker in view.live_workers:
                does = worker.activity
                is_training = does.doing == "training" and 0 < does.done < does.total / 2
                if worker.job in job_ids and is_training and does.trial is not None:
                    return worker, does.trial
            return None

        return self.until(study, look)

    def hasten(self, job_id: str, **changes: str) -> None:
        """A job that is queued again would wait two minutes for its turn. Not in the same second: a node that still
        ends it refuses to begin it ("launch failed requeued held", "Job credential revoked")."""
        changed = [f"{name}={value}" for name, value in changes.items()]
        self.cluster.ask("scontrol", "update", f"JobId={job_id}", "StartTime=now+10", *changed)

    def said(self, study: str) -> str:
        logs = sorted((self.folder / "storage" / "logs" / study).glob("slurm-*"))
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def close(self) -> None:
        self.store.close()
