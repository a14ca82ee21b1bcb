"""`/metrics` of the dashboard: through the real door, of a real store, read by Prometheus's own parser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from hpsearch.bridge.stopping import StopFlag
from hpsearch.search.view import StudyView
from hpsearch.store import Activity, Store
from hpsearch.trial import GIB, Outcome
from hpsearch.watch import prometheus
from hpsearch.watch.door.login import Attempts, Login
from hpsearch.watch.prometheus import CACHE_S, Reading, StudyCollector, _families
from hpsearch.watch.status import study_status
from hpsearch.worker.relay import Relay
from tests.unit.door_fixtures import TOKEN, Got, Served, nobody, serving
from tests.unit.outage_fixtures import Outage
from tests.unit.worker_fixtures import Clock, Demo, ends, plays, steadily

Labels = tuple[tuple[str, str], ...]


def samples(text: str) -> dict[tuple[str, Labels], float]:
    """Every sample of a page, which must have a type and words for each of its names."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type == "gauge" for family in families)
    found = [sample for family in families for sample in family.samples]
    told = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(told) == len(found), "a sample stands there twice"
    return told


def of_demo(name: str, **labels: str) -> tuple[str, Labels]:
    return f"hpsearch_{name}", tuple(sorted({"study": "demo", **labels}.items()))


@pytest.fixture
def served(demo: Demo, tmp_path: Path) -> Iterator[Served]:
    """The dashboard on the demo's store, without a token."""
    with serving(demo.store, tmp_path / "served", nobody, hosts=["prometheus.lab"]) as served:
        yield served


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def locked(demo: Demo, tmp_path: Path, clock: Clock) -> Iterator[Served]:
    with serving(demo.store, tmp_path / "served", lambda port: Login(TOKEN, port, Attempts(clock))) as served:
        yield served


def test_a_study_is_counted(served: Served, demo: Demo) -> None:
    worker = demo.worker(plays(steadily(0.9, 0.5), ends(Outcome.FAILED, reason="Bus error", clean=False)))
    worker.step()
    worker.step()
    for name, used in (("gpu-box:1:1.00", 3), ("gpu-box:2:1.00", 2)):
        demo.store.workers.register(name, demo.study.study_id, "NVIDIA H200", "GPU-1")
        demo.store.workers.give_sign(name, Activity(doing="training", device_bytes=used * GIB), "NVIDIA H200")
    demo.store.orders.pause(demo.study.study_id, "a person said so")
    got = served.ask("GET", "/metrics")
    assert (got.status, got.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = samples(got.text)
    assert found["hpsearch_store_up", ()] == 1
    assert 0 < found["hpsearch_store_read_seconds", ()] < 10
    states = {dict(labels)["state"]: number for (name, labels), number in found.items() if name == "hpsearch_trials"}
    assert states == {
        "complete": 1, "failed": 1, "pruned": 0, "diverged": 0, "out of memory": 0, "running": 0, "waiting": 0,
    }  # fmt: skip
    assert (found[of_demo("slots_wanted")], found[of_demo("slots_finished")]) == (3, 2)
    assert found[of_demo("best_value", objective="loss")] == 0.5
    assert (found[of_demo("study_paused")], found[of_demo("study_finished")]) == (1, 0)
    assert (found[of_demo("workers")], found[of_demo("workers_aside")]) == (2, 0)
    device = of_demo("device_memory_bytes", host="gpu-box", device="NVIDIA H200", device_uuid="GPU-1")
    assert found[device] == 5 * GIB, "two workers share the card"


def test_openmetrics_is_spoken_too(served: Served) -> None:
    got = served.ask("GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert got.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in read_openmetrics(got.text)}
    assert families["hpsearch_store_up"].samples[0].value == 1


def test_a_version_that_is_no_number_gets_plain_text(served: Served) -> None:
    got = served.ask("GET", "/metrics", Accept="application/openmetrics-text; version=latest")
    assert (got.status, got.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_it_passes_the_door_like_everything_else(served: Served) -> None:
    assert served.ask("GET", "/metrics", Host="prometheus.lab").status == 200
    refused = served.ask("GET", "/metrics", Host="evil.example")
    assert refused.status == 403
    assert "hpsearch_" not in refused.text
    assert served.ask("POST", "/metrics", "{}").status == 403
    assert served.ask("HEAD", "/metrics").text == ""
    assert served.ask("GET", "/metrics").headers["X-Content-Type-Options"] == "nosniff"


class TestTheToken:
    @pytest.mark.parametrize("sent", ["Bearer {}", "bearer {}", "Bearer   {} "])
    def test_a_scraper_sends_it_each_time(self, locked: Served, sent: str) -> None:
        got = locked.ask("GET", "/metrics", Authorization=sent.format(TOKEN))
        assert samples(got.text)["hpsearch_store_up", ()] == 1
        assert "Set-Cookie" not in got.headers

    @pytest.mark.parametrize("sent", [None, "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer é"])
    def test_without_it_nothing_is_reported(self, locked: Served, sent: str | None) -> None:
        headers = {} if sent is None else {"Authorization": sent.encode().decode("latin-1")}
        got = locked.ask("GET", "/metrics", **headers)
        assert (got.status, got.headers["WWW-Authenticate"]) == (401, 'Bearer realm="hpsearch"')
        assert "hpsearch_" not in got.text
        assert TOKEN not in got.text

    def test_it_opens_no_other_door(self, locked: Served) -> None:
        for path in ("/api/studies", "/dashboard", "/tensorboard/data/environment", "/metrics/", "/metrics/x"):
            assert locked.ask("GET", path, Authorization=f"Bearer {TOKEN}").status == 401
        assert locked.ask("DELETE", "/metrics", Authorization=f"Bearer {TOKEN}").status == 401

    def test_a_browser_that_is_logged_in_sees_it(self, locked: Served) -> None:
        assert locked.ask("GET", "/metrics", Cookie=locked.cookie()).status == 200

    def test_wrong_ones_wait_with_those_of_the_form(self, locked: Served, clock: Clock) -> None:
        def scrape(token: str) -> Got:
            return locked.ask("GET", "/metrics", Authorization=f"Bearer {token}")

        assert [scrape("wrong").status for _ in range(3)] == [401] * 3
        assert [locked.log_in("wrong").status for _ in range(2)] == [403] * 2
        held = scrape(TOKEN)
        assert (held.status, held.text) == (
            429,
            "too many wrong tokens from this address: wait 1 s before the next one\n",
        )
        clock.now += 1
        assert scrape(TOKEN).status == 200

    def test_right_ones_forget_no_wrong_ones(self, locked: Served) -> None:
        """A scraper asks every few seconds, perhaps from the address of someone who guesses."""
        for _ in range(5):
            assert locked.ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}").status == 200
            assert locked.ask("GET", "/metrics", Authorization="Bearer wrong").status == 401
        assert locked.ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}").status == 429


# The store


@pytest.fixture
def collect(demo: Demo, clock: Clock) -> Iterator[Callable[[], dict[tuple[str, Labels], float]]]:
    """What a collector on the demo's store reports now."""
    relay = Relay(demo.store, StopFlag())
    collector = StudyCollector(demo.store, relay, clock)

    def told() -> dict[tuple[str, Labels], float]:
        found = [sample for family in collector.collect() for sample in family.samples]
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}

    yield told
    relay.close()


Collect = Callable[[], dict[tuple[str, Labels], float]]


def test_an_outage_is_a_zero_and_nothing_else(
    collect: Collect, clock: Clock, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    assert collect()["hpsearch_store_up", ()] == 1
    outage.is_down = True
    for _ in range(3):
        clock.now += CACHE_S
        assert collect() == {("hpsearch_store_up", ()): 0}
    assert [record.getMessage() for record in caplog.records] == [
        "/metrics: the store sqlite:///" + caplog.messages[0].partition("sqlite:///")[2]
    ], "said once"
    assert "the server closed the connection" in caplog.messages[0]
    outage.is_down = False
    clock.now += CACHE_S
    assert len(collect()) > 10


def test_a_store_that_does_not_answer_delays_nothing(
    collect: Collect, clock: Clock, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "DEADLINE_S", 0.01)
    answers, asked, offer = threading.Event(), [], Relay.offer
    monkeypatch.setattr(Relay, "offer", lambda relay, read: asked.append(read) or offer(relay, read))
    monkeypatch.setattr(demo.store.studies, "why_paused", lambda _: answers.wait(60))
    for _ in range(3):
        assert collect() == {("hpsearch_store_up", ()): 0}
        clock.now += CACHE_S
    assert len(asked) == 1, "nobody asks again while it is silent"
    answers.set()
    monkeypatch.setattr(prometheus, "DEADLINE_S", 60)
    assert collect()["hpsearch_store_up", ()] == 1


def test_a_reading_is_kept_for_a_few_seconds(
    collect: Collect, clock: Clock, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, why_paused = [], demo.store.studies.why_paused
    monkeypatch.setattr(demo.store.studies, "why_paused", lambda study: asked.append(study) or why_paused(study))
    for _ in range(3):
        assert of_demo("slots_wanted") in collect()
    assert len(asked) == 1
    clock.now += CACHE_S
    collect()
    assert len(asked) == 2


def test_a_mistake_of_ours_is_a_zero_too(
    collect: Collect, demo: Demo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: int) -> None:
        raise KeyError("a study that was deleted meanwhile")

    monkeypatch.setattr(demo.store.studies, "why_paused", broken)
    assert collect() == {("hpsearch_store_up", ()): 0}
    assert "a study that was deleted meanwhile" in caplog.text


def test_what_is_reported_is_bounded(view: StudyView, collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers come and go, attributes are anybody's, studies grow in number."""
    crowd = [replace(view.workers[-1], worker_id=f"host-{n}:1:1.00", device_uuid=f"GPU-{n}") for n in range(1000)]
    strange = [replace(trial, outcome=f"strange {trial.number}") for trial in view.trials]
    study = study_status(replace(view, workers=crowd, trials=strange))
    families = {family.name: family.samples for family in _families(Reading(0.1, 1, 0, [study]))}
    assert {len(families[f"hpsearch_{name}_memory_bytes"]) for name in ("device", "host")} == {256}
    assert families["hpsearch_workers"][0].value == 1000
    states = {sample.labels["state"]: sample.value for sample in families["hpsearch_trials"]}
    assert (states["other"], len(states)) == (len(view.trials), 8)
    monkeypatch.setattr(prometheus, "MOST_STUDIES", 0)
    found = collect()
    assert found["hpsearch_studies", ()] == 1


def test_a_new_worker_on_the_same_card_is_no_new_series(view: StudyView) -> None:
    def series(worker_id: str) -> list[dict[str, str]]:
        workers = [replace(view.workers[-1], worker_id=worker_id)]
        found = _families(Reading(0.1, 1, 0, [study_status(replace(view, workers=workers))]))
        return [sample.labels for family in found for sample in family.samples]

    assert series("gpu-box:1:1.00") == series("gpu-box:4242:7.00")


def test_the_store_that_is_read_can_not_be_written(demo: Demo) -> None:
    with Store(demo.store.url, only_to_read=True) as looking:
        assert [study.manifest for study in looking.studies.all(manifests=False)] == [b""]
        (whole,) = looking.studies.all()
        assert whole.manifest
