"""The worker of the storms, `hpsearch worker` with a stand-in: real signals, leases, relay and trainer process.

python -m bench.faults.worker STUDY        with HPSEARCH_STORE and HPSEARCH_STORAGE in the environment
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.faults.pace import hurry
from bench.faults.scripted import ScriptedTrainer, training
from bench.faults.standin import expected_reports
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import Trainer, TrainerProcess
from hpsearch.data.manifest import Manifest
from hpsearch.folders import StorageFolder
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.workers import own_worker_id
from hpsearch.study.open import OpenStudy
from hpsearch.trial import TrialConfig
from hpsearch.worker.endings import EXIT_CODES
from hpsearch.worker.patience import patiently
from hpsearch.worker.worker import Worker

WAIT_LIMIT_S = 900.0
WITHOUT_PROCESS = "FAULTS_WITHOUT_PROCESS"
"""Named in a worker's environment: its trainer is the scripted fake, where a crowd is the point."""


def begin(study: str, log: Path, environment: Mapping[str, str]) -> None:
    """The worker's process from its first moment: a group of its own, its output in `log`."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.environ.update(environment)
    sys.exit(work(study))


def work(name: str) -> int:
    """Works as `hpsearch worker` does; its exit code."""
    logging.basicConfig(format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    log = logging.getLogger("hpsearch")
    log.setLevel(logging.INFO)
    hurry()
    stop = StopFlag()
    stop.install(watch_parent=False)
    url = parse_url(os.environ["HPSEARCH_STORE"], from_argv=False)
    storage = StorageFolder(Path(os.environ["HPSEARCH_STORAGE"]))
    worker_id = own_worker_id()
    with stop.preparing():
        store = patiently(lambda: Store(url), WAIT_LIMIT_S, stop, log.warning)
        study = patiently(lambda: open_stored(store, name, storage), WAIT_LIMIT_S, stop, log.warning)
    with store:
        trainer_log = storage.trainer_log(worker_id.replace(":", "-"))
        step = Worker(
            study,
            store,
            worker_id,
            lambda: _trainer(trainer_log),
            stop,
            wait_limit_s=WAIT_LIMIT_S,
        ).run()
    log.info("%s", step.value)
    return EXIT_CODES[step]


def _trainer(log: Path) -> Trainer:
    if WITHOUT_PROCESS in os.environ:
        return ScriptedTrainer(training(_losses))
    return TrainerProcess(log, module="bench.faults.standin")


def _losses(config: TrialConfig) -> list[float]:
    number = int(config.name.rpartition(" ")[2])
    return list(expected_reports(number, config.training.learning_rate, config.budget.reports).values())


def open_stored(store: Store, name: str, storage: StorageFolder) -> OpenStudy:
    """A study without data: stand-ins read none."""
    with store.reaching():
        stored = store.studies.find(name)
    assert stored is not None
    rows = storage.path / "rows"
    manifest = Manifest.from_bytes(stored.manifest)
    return OpenStudy(stored.spec, stored.study_id, stored.uid, manifest, rows, rows, storage, storage.path)


if __name__ == "__main__":
    sys.exit(work(sys.argv[1]))
