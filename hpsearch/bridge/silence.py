"""How long a trainer may be silent in each phase of its work, so that a hanging one is told apart from a slow one."""

from __future__ import annotations

from collections.abc import Callable

from hpsearch.bridge.protocol import Began, Event, Phase, Progress, Ready
from hpsearch.errors import TrainerDied
from hpsearch.spec.limits import SilenceSpec


class Silence:
    """Watches one job for silence. `clock` gives seconds."""

    def __init__(self, limits: SilenceSpec, clock: Callable[[], float], *, is_ready: bool) -> None:
        self._limits = limits
        self._clock = clock
        self._heard_at = clock()
        self._is_ready = is_ready
        self._doing = "loading" if is_ready else "starting"
        self._limit_s = 60 * (limits.loading_minutes if is_ready else limits.starting_minutes)

    def heard(self, event: Event) -> None:
        self._heard_at = self._clock()
        match event:
            case Ready():
                self._is_ready = True
                self._now("loading", self._limits.loading_minutes)
            case Phase(name=name):
                self._now(name, self._limits.loading_minutes)
            case Began():  # the first step may compile kernels
                self._now("the first step", self._limits.loading_minutes)
            case Progress():
                self._now("training", self._limits.training_minutes)

    def _now(self, doing: str, minutes: float) -> None:
        self._doing, self._limit_s = doing, 60 * minutes

    def check(self) -> None:
        """Called when nothing is left to read: events that arrived while the worker slept count as in time.

        Raises TrainerDied where the trainer was silent for too long.
        """
        if self._clock() - self._heard_at > self._limit_s:
            how = f"silent for {self._limit_s / 60:g} minutes while {self._doing}"
            raise TrainerDied(f"the trainer process hangs: {how} (silence: in the study file)", how, is_hang=True)
