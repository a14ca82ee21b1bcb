"""The relay: the worker's connection to the store. Only the relay's thread waits for the database.

While a trial trains, the worker hands its reports to the relay and continues; while the store doesn't answer, the
trainer is answered without it. Between trials nothing can be done without the store, so the worker waits for it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, TypeVar

from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import StoreUnreachable
from hpsearch.store import Store
from hpsearch.store.deadlines import Lines

WAIT_LIMIT_S = 3600.0
"""How long an outage may last before a worker leaves, unless the person sets another limit."""
_ANSWER_S = 5.0
"""How long a trainer that waits for an answer, or a stop, waits for the store."""
_HARD_S = 90.0
"""Longer than the database's own deadlines: a connection that is silent for this long is cut."""
_TICK_S = 0.2

log = logging.getLogger("hpsearch.worker")
T = TypeVar("T")


def _say(state: RetryCallState) -> None:
    assert state.outcome is not None
    assert state.next_action is not None
    log.warning("%s; trying again in %.1f s", state.outcome.exception(), state.next_action.sleep)


class Relay:
    """Sends one request after the other. `close` may leave a thread that waits forever; it ends with the process."""

    def __init__(self, store: Store, stop: StopFlag, wait_limit_s: float = WAIT_LIMIT_S) -> None:
        self._store = store
        self._stop = stop
        self._wait_limit_s = wait_limit_s
        self._lines = Lines(store.optuna.engine)
        self._questions: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer_all, name="store", daemon=True)
        self._thread.start()

    def ask(self, question: Callable[[], T]) -> T:
        """Asks until the store answers, also through an outage.

        Raises StoreUnreachable after the limit, and soon when the worker is asked to stop: nothing is lost, as the
        trial's folder has its journal, its checkpoint and its result.
        """

        @retry(
            retry=retry_if_exception_type(StoreUnreachable),
            wait=wait_random_exponential(multiplier=0.2, max=15),
            stop=lambda state: self._stop.requested or stop_after_delay(self._wait_limit_s)(state),
            sleep=self._stop.wait,
            before_sleep=_say,
            reraise=True,
        )
        def asked() -> T:
            return self._wait(self.offer(question))

        return asked()

    def offer(self, question: Callable[[], T]) -> Future[T]:
        """Asks once, without waiting."""
        answer: Future[T] = Future()
        self._questions.put((question, answer))
        return answer

    def is_answered(self, answer: Future[T], within_s: float = _ANSWER_S) -> bool:
        """Whether the answer arrives in time for a caller that waits for it."""
        try:
            answer.exception(within_s)
        except NotYet:
            return False
        return True

    def close(self) -> None:
        self._questions.put(None)
        self._thread.join(_TICK_S)

    def _wait(self, answer: Future[T]) -> T:
        asked_at = time.monotonic()
        while True:
            try:
                return answer.result(_TICK_S)
            except NotYet:
                if answer.done():  # a TimeoutError of the request itself has the same class
                    return answer.result()
                waited_s = time.monotonic() - asked_at
            if self._stop.requested and waited_s > _ANSWER_S:
                raise StoreUnreachable(f"the store {self._store.name} does not answer, and a stop was requested")
            if waited_s > _HARD_S:
                asked_at = time.monotonic()
                self._lines.cut()

    def _answer_all(self) -> None:
        while (found := self._questions.get()) is not None:
            question, answer = found
            try:
                with self._store.reaching():
                    answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)
            del found, question, answer
