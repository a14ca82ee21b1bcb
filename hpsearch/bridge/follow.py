"""Following a trainer through a job: the one loop for trials, final runs, evaluations and inspections.

An exception raised here means that the trainer can't be used any more; the caller who started it ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hpsearch.bridge.protocol import Continue, Done, Event, Phase, Progress, Prune, Reported, Run, Stop
from hpsearch.bridge.silence import Silence
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import StartTrainer, Trainer
from hpsearch.errors import HpsearchError, Interrupted, TrainingFailed
from hpsearch.folders import JobFolder
from hpsearch.jobs import Tell
from hpsearch.spec.limits import SilenceSpec
from hpsearch.trial import STARTING, Outcome, TrialResult

TICK_S = 0.5

Watcher = Callable[[Phase | Progress | Reported], None]
"""Shows a person the progress of a training."""


class Listener:
    """Receives the events of a job; an exception from it ends the job."""

    def hears(self, event: Event) -> None:
        """Called with each event of the trainer."""

    def goes_on(self, report: Reported) -> bool:
        """The answer to a validation loss, for which the trainer waits."""
        del report
        return True

    def tick(self) -> None:
        """Called at least twice a second, with or without an event."""


def follow(
    trainer: Trainer,
    folder: JobFolder,
    stop: StopFlag,
    listener: Listener,
    silence: SilenceSpec,
    clock: Callable[[], float] = time.monotonic,
) -> Done:
    """Has the trainer do the prepared job. The first stop asks it for a checkpoint.

    Raises:
        TrainerDied: it ended, or was silent for too long.
        Interrupted: a second stop, which ends it at once.
    """
    watch = Silence(silence, clock, is_ready=trainer.device != STARTING)
    is_stopping = False
    trainer.send(Run(folder=folder.path))
    while True:
        event = trainer.next_event(TICK_S)
        if event is None:
            watch.check()
        else:
            watch.heard(event)
            listener.hears(event)
        listener.tick()
        if stop.urgent:
            raise Interrupted("asked twice to stop: the steps since the last checkpoint are lost")
        if stop.requested and not is_stopping:
            is_stopping = True
            trainer.send(Stop())
        match event:
            case Reported():
                trainer.send(Continue() if listener.goes_on(event) else Prune())
            case Done():
                return event


class _Teller(Listener):
    """Shows the current phase, again at each tick: `tell` may raise after a stop."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._now: tuple[str, int, int] = ("starting the trainer", 0, 0)

    def hears(self, event: Event) -> None:
        if isinstance(event, Phase):
            self._now = (event.name, event.done, event.total)

    def tick(self) -> None:
        self._tell(*self._now)


def do_job(folder: JobFolder, start_trainer: StartTrainer, tell: Tell) -> None:
    """Does the prepared job in a trainer process of its own; the job reports no losses.

    Raises:
        HpsearchError: the job failed.
    """
    tell("starting the trainer", 0, 0)
    trainer = start_trainer()
    try:
        follow(trainer, folder, StopFlag(), _Teller(tell), SilenceSpec())
    finally:
        trainer.end()
    if failure := folder.failure():
        raise HpsearchError(f"{failure.reason}\ndetails are in {folder.log} and {folder.result}")


class _Shower(Listener):
    def __init__(self, watch: Watcher) -> None:
        self._watch = watch

    def hears(self, event: Event) -> None:
        if isinstance(event, Phase | Progress | Reported):
            self._watch(event)


def run_to_end(
    folder: JobFolder, start_trainer: StartTrainer, stop: StopFlag, watch: Watcher, silence: SilenceSpec
) -> TrialResult:
    """Trains by the folder's config, outside of a study: reports are shown to a person; no pruner.

    Raises:
        TrainingFailed: it crashed, ran out of memory or diverged; with the reason and the log.
        TrainerDied: the process ended without a result.
    """
    trainer = start_trainer()
    try:
        follow(trainer, folder, stop, _Shower(watch), silence)
    except Interrupted:
        return TrialResult(outcome=Outcome.STOPPED)
    finally:
        trainer.end()
    result = folder.read(TrialResult)
    if result.outcome not in (Outcome.COMPLETE, Outcome.STOPPED):
        raise TrainingFailed(f"{result.outcome}: {result.reason}\ndetails are in {folder.log}")
    return result
