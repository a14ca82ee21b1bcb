"""The warm trainer: kept from trial to trial while it is clean, thrown away when it is not."""

from __future__ import annotations

import logging

from hpsearch.bridge.trainer_process import StartTrainer, Trainer
from hpsearch.bridge.witness import DevicePeak, device_bytes
from hpsearch.trial import TrialConfig, TrialResult

log = logging.getLogger("hpsearch.worker")


class WarmTrainer:
    """At most one trainer process at a time, replaced after `trials_per_process` trials; None: only when necessary."""

    def __init__(self, start: StartTrainer, trials_per_process: int | None) -> None:
        self._start = start
        self._limit = trials_per_process
        self._trainer: Trainer | None = None
        self._peak = DevicePeak(0)
        self._key = ""
        self._num_trials = 0

    @property
    def pid(self) -> int:
        """0 when there is no process."""
        return self._trainer.pid if self._trainer else 0

    @property
    def device(self) -> str:
        return self._trainer.device if self._trainer else "none"

    def for_(self, config: TrialConfig) -> Trainer:
        """The running trainer, or a new one where there is none or this trial can't share it."""
        if self._trainer is None or self._key != config.process_key:
            self.end()
            self._trainer = self._start()
            self._key = config.process_key
            self._num_trials = 0
        self._peak = DevicePeak(self.pid)
        return self._trainer

    def look(self) -> None:
        """Samples the trainer's device memory from outside: called repeatedly while a trial runs."""
        self._peak.look()

    def after(self, result: TrialResult, config: TrialConfig, *, is_clean: bool) -> TrialResult:
        """The result with the device memory as the driver sees it; a trainer that isn't clean is ended."""
        self._num_trials += 1
        if result.ledger is not None:
            seen = {"witnessed_device_bytes": device_bytes(self.pid), "witnessed_peak_bytes": self._peak.num_bytes}
            ledger = result.ledger.model_copy(update=seen)
            result = result.model_copy(update={"ledger": ledger})
            if ledger.not_given_back:
                log.warning("memory was not freed: %s; a new trainer starts", ", ".join(ledger.not_given_back))
        if not is_clean or config.taints_process or (self._limit and self._num_trials >= self._limit):
            self.end()
        return result

    def end(self) -> None:
        if self._trainer is not None:
            self._trainer.end()
            self._trainer = None
