"""Limits of a study besides its trials: what was used, when a limit is reached, and how that is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import update

from hpsearch.errors import StudyFileErrors
from hpsearch.search.usage import Usage, reached
from hpsearch.spec import load_study
from hpsearch.spec.limits import LimitsSpec
from hpsearch.store import Activity, StoredWorker
from hpsearch.store.tables import workers
from hpsearch.watch.closing import closing_words, format_usage
from hpsearch.watch.tables import study_panel
from hpsearch.worker.endings import EXIT_CODES, Step
from tests.unit.worker_fixtures import Demo, MakeDemo, nobody, plays, steadily

NOW = datetime(2026, 12, 24, 12, 0, tzinfo=UTC)
USED = Usage(hours=2.0, device_hours=5.0)


def worked(*spans_h: tuple[float, float]) -> Usage:
    return Usage.of(
        [
            StoredWorker(
                worker_id=f"host:{number}:1.00",
                device="cpu",
                started_at=3600 * start,
                beat_at=3600 * end,
                seconds_since_beat=0.0,
                activity=Activity(doing="training"),
                gone=False,
            )
            for number, (start, end) in enumerate(spans_h)
        ]
    )


@pytest.mark.parametrize(
    ("spans_h", "hours", "device_hours"),
    [
        ([], 0, 0),
        ([(1, 3)], 2, 2),
        ([(1, 3), (5, 6)], 3, 3),
        ([(1, 3), (2, 4)], 3, 4),
        ([(1, 9), (2, 3), (4, 5)], 8, 10),
        ([(2, 3), (1, 9)], 8, 9),
        ([(1, 3), (3, 4)], 3, 3),
        ([(1, 3), (1, 3), (1, 3)], 2, 6),
    ],
)
def test_hours_are_counted_once_and_device_hours_each(
    spans_h: list[tuple[float, float]], hours: float, device_hours: float
) -> None:
    assert worked(*spans_h) == Usage(hours=pytest.approx(hours), device_hours=pytest.approx(device_hours))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, None),
        ({"price_per_device_hour": 2.5}, None),
        ({"hours": 2.5}, None),
        ({"hours": 2}, "2.00 of 2 are used (search.limits.hours)"),
        ({"device_hours": 5.5}, None),
        ({"device_hours": 4.5}, "5.00 of 4.5 are used (search.limits.device_hours)"),
        ({"cost": 12.6, "price_per_device_hour": 2.5}, None),
        ({"cost": 12.5, "price_per_device_hour": 2.5}, "12.50 of 12.5 are used (search.limits.cost)"),
        ({"hours": 9, "device_hours": 5}, "5.00 of 5 are used (search.limits.device_hours)"),
        ({"until": "2026-12-24 12:30Z"}, None),
        ({"until": "2026-12-24 12:00Z"}, "it is past 2026-12-24 12:00 (search.limits.until)"),
        ({"until": "2026-12-24 12:30+01:00"}, "it is past 2026-12-24 12:30 (search.limits.until)"),
    ],
    ids=str,
)
def test_a_limit_is_reached_when_it_is_used_up(limits: dict[str, Any], told: str | None) -> None:
    assert reached(LimitsSpec.model_validate(limits), USED, NOW) == told


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_new_york")
def test_a_deadline_without_a_zone_is_in_the_workers_own() -> None:
    limits = LimitsSpec.model_validate({"until": "2026-12-24 08:00"})
    assert reached(limits, USED, datetime(2026, 12, 24, 12, 59, tzinfo=UTC)) is None
    assert reached(limits, USED, datetime(2026, 12, 24, 13, 0, tzinfo=UTC)) is not None


STUDY = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: rows.jsonl, columns: {question: q, answer: a}}
search:
  limits:
"""


def loaded(folder: Path, *lines: str) -> LimitsSpec:
    file = folder / "study.yaml"
    file.write_text(STUDY + "".join(f"    {line}\n" for line in lines) + "  space: {lora.r: [8, 16]}\n")
    return load_study(file).spec.searched.limits


@pytest.mark.parametrize(
    "written", ["2026-12-24 08:00", '"2026-12-24 08:00"', "2026-12-24T08:00", "2026-12-24 08:00:00"]
)
def test_a_deadline_is_written_as_people_write_it(tmp_path: Path, written: str) -> None:
    assert loaded(tmp_path, f"until: {written}").until == datetime(2026, 12, 24, 8, 0)


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("cost: 40", "search.limits", "cost needs price_per_device_hour: what one device costs in an hour"),
        ("hours: 0", "search.limits.hours", "must be above 0"),
        ("until: tomorrow", "search.limits.until", "date"),
        ("until: 2026", "search.limits.until", "2026-12-24 08:00"),
        ("minutes: 3", "search.limits.minutes", "hours"),
    ],
)
def test_a_mistake_in_a_limit_has_its_line(tmp_path: Path, line: str, key: str, words: str) -> None:
    with pytest.raises(StudyFileErrors) as raised:
        loaded(tmp_path, line)
    (mistake,) = raised.value.mistakes
    assert (mistake.key, words in mistake.message) == (key, True), mistake
    assert mistake.line == (6 if key == "search.limits" else 7)


def shown(demo: Demo) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(study_panel(demo.view))
    return captured.get()


def used_up(demo: Demo, hours: float) -> None:
    """The workers so far were there for so long."""
    with demo.store.optuna.engine.begin() as connection:
        connection.execute(update(workers).values(started_at=workers.c.beat_at - 3600 * hours))


class TestAWorker:
    def test_it_begins_no_trial_once_the_limit_is_reached(self, make_demo: MakeDemo) -> None:
        demo = make_demo(limits={"hours": 2})
        assert demo.worker(plays(steadily(1.0))).step() is Step.WORKED
        demo.store.workers.register("host:1:1.00", demo.study.study_id, "cpu")
        used_up(demo, 1.5)
        assert "1 h 30 min of 2 h used" in shown(demo)
        assert demo.worker(plays(steadily(1.0))).step() is Step.WORKED
        used_up(demo, 2.5)
        assert demo.run(nobody, name="next:1:1.00") is Step.LIMIT
        assert EXIT_CODES[Step.LIMIT] == 0
        assert demo.states == ["COMPLETE"] * 2
        assert "no more trials start: 2.50 of 2 are used (search.limits.hours)" in shown(demo)
        assert closing_words(demo.view) == (
            "demo has reached its limit: 2.50 of 2 are used (search.limits.hours). 2 of 3 trials are done, "
            "2 h 30 min of 2 h used. The same command continues it with a higher limit."
        )

    def test_one_that_runs_is_not_cut_off(self, make_demo: MakeDemo) -> None:
        demo = make_demo(limits={"hours": 2})
        demo.store.workers.register("host:1:1.00", demo.study.study_id, "cpu")

        def long(trainer: Any, folder: Any) -> Iterator[Any]:
            used_up(demo, 9)
            yield from steadily(3.0, 2.0, 1.0)(trainer, folder)

        assert demo.run(plays(long)) is Step.LIMIT
        assert demo.states == ["COMPLETE"]

    def test_a_finished_study_has_no_limit(self, make_demo: MakeDemo) -> None:
        demo = make_demo(limits={"hours": 2})
        demo.run(plays(steadily(1.0)))
        used_up(demo, 9)
        assert demo.view.reached_limit is None
        assert "is finished:" in closing_words(demo.view)

    def test_a_deadline_that_is_over(self, make_demo: MakeDemo) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        assert make_demo(limits={"until": yesterday.isoformat()}).run(nobody) is Step.LIMIT

    def test_without_limits_nothing_is_said_of_them(self, demo: Demo) -> None:
        assert format_usage(demo.view) == ""

    def test_each_limit_is_reported_with_what_is_used(self, make_demo: MakeDemo) -> None:
        limits = {"hours": 8, "device_hours": 9, "cost": 30, "price_per_device_hour": 3, "until": "2199-01-01 08:00"}
        demo = make_demo(limits=limits)
        for number in range(2):
            demo.store.workers.register(f"host:{number}:1.00", demo.study.study_id, "cpu")
        used_up(demo, 2)
        told = format_usage(demo.view).split("; ")
        assert told[1:] == [
            "4 h 00 min of 9 device-hours used",
            "12.00 of 30 (cost) used",
            "until 2199-01-01 08:00",
        ]
        assert told[0].startswith("2 h 00 min of 8 h used")


def test_status_tells_a_card_that_the_driver_refuses_and_a_device_that_is_set_aside(demo: Demo) -> None:
    store, study_id = demo.store, demo.study.study_id
    for name in ("host:1:1.00", "host:2:1.00"):
        store.workers.register(name, study_id, "a GPU")
    store.workers.give_sign("host:1:1.00", Activity(doing="training", device_errors=["GPU 1: GPU is lost"]), "a GPU")
    store.workers.set_aside("host:2:1.00", "no space left")
    said = shown(demo)
    assert "the driver refuses a card: GPU 1: GPU is lost" in said
    assert "a GPU is set aside: no space left" in said
