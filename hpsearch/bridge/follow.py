"""Following a trainer through a job outside of a study: an inspection, an evaluation, the final run."""

from __future__ import annotations

from collections.abc import Callable

from hpsearch.bridge.protocol import Checkpoint, Continue, Done, Phase, Progress, Reported, Run
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.errors import HpsearchError, TrainingFailed
from hpsearch.folders import JobFolder
from hpsearch.jobs import Tell
from hpsearch.trial import Outcome, TrialResult

Watcher = Callable[[Phase | Progress | Reported], None]
"""Shows a person how a training goes."""


def do_job(folder: JobFolder, start_trainer: StartTrainer, tell: Tell) -> None:
    """Has a trainer of its own do the prepared job, one that reports no losses.

    Raises:
        HpsearchError: the job failed.
    """
    tell("starting the trainer", 0, 0)
    trainer = start_trainer()
    try:
        trainer.send(Run(folder=folder.path))
        while True:
            event = trainer.next_event(1.0)
            if isinstance(event, Phase):
                tell(event.name, event.done, event.total)
            if isinstance(event, Done):
                break
    finally:
        trainer.end()
    if failure := folder.failure():
        raise HpsearchError(f"{failure.reason}\nthe whole story is in {folder.log} and {folder.result}")


def run_to_end(folder: JobFolder, start_trainer: StartTrainer, stop: StopFlag, watch: Watcher) -> TrialResult:
    """Trains what the folder's config says.

    Raises:
        TrainingFailed: it crashed, ran out of memory or diverged; with the reason and the log.
        TrainerDied: the process ended without a result.
    """
    trainer = start_trainer()
    is_stopping = False
    try:
        trainer.send(Run(folder=folder.path))
        while True:
            event = trainer.next_event(0.5)
            if stop.urgent:
                return TrialResult(outcome=Outcome.STOPPED)
            if stop.requested and not is_stopping:
                is_stopping = True
                trainer.send(Checkpoint())
            match event:
                case Reported():
                    watch(event)
                    trainer.send(Continue())
                case Phase() | Progress():
                    watch(event)
                case Done():
                    break
    finally:
        trainer.end()
    result = folder.read(TrialResult)
    if result.outcome not in (Outcome.COMPLETE, Outcome.STOPPED):
        raise TrainingFailed(f"{result.outcome}: {result.reason}\nthe whole story is in {folder.log}")
    return result
