"""`/metrics`: what Prometheus sees of the studies in a store, read when it asks.

A reading is kept for a few seconds, so that several scrapers cost the store no more than one. If the store does not
answer in time, the only metric is `hpsearch_store_up 0`: old values are never shown as current ones. There is at most
one reading at a time, however long it takes.

The labels are bounded: a study's name for the youngest studies, known words for states, a device and its host instead
of the worker that has it, as workers come and go.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from hpsearch.store import Store
from hpsearch.watch.document import OUTCOMES, StudyStatus
from hpsearch.watch.door.answers import Answer
from hpsearch.watch.status import study_statuses
from hpsearch.worker.relay import Relay

log = logging.getLogger("hpsearch.metrics")

CACHE_S = 5.0
DEADLINE_S = 5.0
"""Prometheus gives up after ten, where it is not configured otherwise (`scrape_timeout`)."""
MOST_STUDIES = 100
MOST_DEVICES = 256


@dataclass(frozen=True)
class Reading:
    """`latency_s` is the time of one small read; `num_studies` includes those that are too old to be reported."""

    latency_s: float
    num_studies: int
    num_unreadable: int
    studies: list[StudyStatus]


class StudyCollector(Collector):
    """Reads `store` on the thread of `relay`."""

    def __init__(self, store: Store, relay: Relay, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._relay = relay
        self._clock = clock
        self._lock = Lock()
        self._answer: Future[Reading] | None = None
        self._asked_at = 0.0
        self._was_up = True

    def collect(self) -> Iterator[GaugeMetricFamily]:
        reading = self._latest()
        up = GaugeMetricFamily("hpsearch_store_up", "Whether the store answered in time.")
        up.add_metric([], reading is not None)
        yield up
        if reading is not None:
            yield from _families(reading)

    def _latest(self) -> Reading | None:
        with self._lock:
            is_old = self._clock() - self._asked_at >= CACHE_S
            if self._answer is None or (is_old and self._answer.done()):
                self._answer, self._asked_at = self._relay.offer(self._read), self._clock()
            answer = self._answer
        wrong = f"the store {self._store.name} did not answer within {DEADLINE_S:g} s"
        if self._relay.is_answered(answer, DEADLINE_S):
            wrong = str(answer.exception() or "")
        if wrong and self._was_up:
            log.warning("/metrics: %s", wrong)
        self._was_up = not wrong
        return None if wrong else answer.result()

    def _read(self) -> Reading:
        begun = time.perf_counter()
        self._store.studies.why_paused(0)
        latency_s = time.perf_counter() - begun
        known, unreadable = self._store.studies.all(manifests=False), self._store.studies.unreadable()
        statuses = study_statuses(self._store, known[-MOST_STUDIES:])
        return Reading(latency_s, len(known) + len(unreadable), len(unreadable), statuses)


class Metrics:
    """A WSGI application: plain text or OpenMetrics, as requested."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            encode, kind = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        except TypeError:  # for a version that is no number (prometheus_client 0.26, exposition.py, `_get_version`)
            encode, kind = choose_encoder("")
        return Answer("200 OK", encode(self._collector), (("Content-Type", kind),))(environ, start_response)


def _families(reading: Reading) -> Iterator[GaugeMetricFamily]:
    yield _plain("store_read_seconds", "How long one small read of the store took.", reading.latency_s)
    yield _plain("studies", f"Studies in the store; the youngest {MOST_STUDIES} are shown.", reading.num_studies)
    yield _plain("studies_unreadable", "Studies that this hpsearch can't read.", reading.num_unreadable)
    yield _trials(reading.studies)
    for name, explained, value_of in _OF_A_STUDY:
        family = GaugeMetricFamily(f"hpsearch_{name}", explained, labels=["study"])
        for study in reading.studies:
            if (value := value_of(study)) is not None:
                family.add_metric([study.name], value)
        yield family
    yield _best(reading.studies)
    yield from _memory(reading.studies)


def _plain(name: str, explained: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hpsearch_{name}", explained, value=value)


_OF_A_STUDY: list[tuple[str, str, Callable[[StudyStatus], float | None]]] = [
    ("slots_wanted", "Trials that the study is to have.", lambda study: study.slots_wanted),
    ("slots_finished", "Of these, those that have ended.", lambda study: study.slots_finished),
    ("study_finished", "1 once all trials have ended.", lambda study: study.state == "finished"),
    ("study_paused", "1 while no trial begins, until hpsearch resume.", lambda study: study.paused is not None),
    ("study_limit_reached", "1 where one of search.limits is reached.", lambda study: study.limit is not None),
    ("study_left_seconds", "An estimate of the time that is left.", lambda study: study.seconds_left),
    (
        "study_device_seconds",
        "What the study's workers have used of devices.",
        lambda study: study.usage.device_seconds,
    ),
    ("workers", "Workers that gave a sign of life within the last minute.", lambda study: _num_live(study)),
    ("workers_aside", "Workers whose device takes no more trials.", lambda study: _num_aside(study)),
]


def _num_live(study: StudyStatus) -> int:
    return sum(worker.is_live for worker in study.workers)


def _num_aside(study: StudyStatus) -> int:
    return sum(worker.aside is not None for worker in study.workers)


def _trials(studies: list[StudyStatus]) -> GaugeMetricFamily:
    family = GaugeMetricFamily("hpsearch_trials", "Trials by state.", labels=["study", "state"])
    for study in studies:
        counts: Counter[str] = Counter()
        for outcome, count in study.trials_by_outcome.items():
            counts[outcome if outcome in OUTCOMES else "other"] += count
        for state, count in counts.items():
            family.add_metric([study.name, state], count)
    return family


def _best(studies: list[StudyStatus]) -> GaugeMetricFamily:
    explained = "Value of the best trial by the first objective: a loss in nats, or a metric, mostly as a share of 1."
    family = GaugeMetricFamily("hpsearch_best_value", explained, labels=["study", "objective"])
    for study in studies:
        for objective, value in (study.best.values if study.best else {}).items():
            if value is not None:
                family.add_metric([study.name, objective], value)
    return family


def _memory(studies: list[StudyStatus]) -> Iterator[GaugeMetricFamily]:
    on_devices: Counter[tuple[str, ...]] = Counter()
    on_hosts: Counter[tuple[str, ...]] = Counter()
    for study in studies:
        for worker in study.workers:
            if worker.is_live:
                on_hosts[study.name, worker.host] += worker.host_bytes
                on_devices[study.name, worker.host, worker.device, worker.device_uuid or ""] += worker.device_bytes
    for name, explained, labels, bytes_of in (
        ("device_memory_bytes", "What the trainers take of a device.", ["device", "device_uuid"], on_devices),
        ("host_memory_bytes", "What the trainers take of a host.", [], on_hosts),
    ):
        family = GaugeMetricFamily(f"hpsearch_{name}", explained, labels=["study", "host", *labels])
        for place, number in bytes_of.most_common(MOST_DEVICES):
            family.add_metric(list(place), number)
        yield family
