"""Following one training job outside of a study: the final run. Its reports go to a person, not to a pruner."""

from __future__ import annotations

from collections.abc import Callable

from hpsearch.errors import TrainingFailed
from hpsearch.folders import TrialFolder
from hpsearch.protocol import Checkpoint, Continue, Done, Phase, Progress, Reported, Run
from hpsearch.trial import Outcome, TrialResult
from hpsearch.worker.opening import StartTrainer
from hpsearch.worker.stopping import StopFlag

Watcher = Callable[[Phase | Progress | Reported], None]


def run_to_end(folder: TrialFolder, start_trainer: StartTrainer, stop: StopFlag, watch: Watcher) -> TrialResult:
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
