"""A worker's ordinary life: it claims a trial, has it trained, stores the result; when a trainer is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from hpsearch.bridge import witness
from hpsearch.bridge.protocol import Continue, Event, Phase, Progress, Prune, Run
from hpsearch.folders import JobFolder
from hpsearch.trial import GIB, Outcome, TrialConfig
from hpsearch.worker import warm
from hpsearch.worker.endings import Step
from tests.unit.worker_fixtures import (
    Demo,
    MakeDemo,
    ScriptedTrainer,
    Starter,
    by,
    ending,
    ends,
    ledger,
    nobody,
    plays,
    report,
    steadily,
    trial_number,
)


def falling(config: TrialConfig) -> list[float]:
    return [3.0, 2.0, 1.0 + trial_number(config)]


def test_a_study_ends_with_exactly_its_number_of_trials(demo: Demo) -> None:
    start = by(falling)
    assert demo.run(start) is Step.FINISHED
    assert demo.states == ["COMPLETE"] * 3
    assert [trial.value for trial in demo.trials] == [1.0, 2.0, 2.0], "the best report of each"
    assert demo.trials[2].intermediate_values == {1: 3.0, 2: 2.0, 3: 3.0}
    assert [trainer.ended for trainer in start.trainers] == [True]
    assert [(lease.attempt, lease.deaths, lease.finished) for lease in demo.leases] == [(1, 0, True)] * 3


def test_a_finished_study_needs_no_trainer(demo: Demo) -> None:
    demo.run(by(falling))
    assert demo.run(nobody, name="later:1:1.00") is Step.FINISHED
    assert len(demo.trials) == 3


def test_a_trial_trains_with_the_values_that_the_search_gave_it(demo: Demo) -> None:
    seen: list[TrialConfig] = []
    demo.run(by(lambda config: seen.append(config) or [1.0]))  # type: ignore[func-returns-value]
    given = [(t.params["training.learning_rate"], t.params["lora.r"]) for t in demo.trials]
    assert [(config.training.learning_rate, config.lora.r) for config in seen] == given
    assert len({learning_rate for learning_rate, _ in given}) == 3
    assert seen[0].train_rows == demo.study.train_rows
    assert seen[0].validation_rows == demo.study.validation_rows


def test_two_workers_share_the_trials(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=4)
    first, second = (demo.worker(by(falling), name=f"host-{i}:1:1.00") for i in range(2))
    assert [worker.step() for worker in (first, second) * 2] == [Step.WORKED] * 4
    assert first.step() is second.step() is Step.FINISHED
    assert [lease.worker_id for lease in demo.leases] == ["host-0:1:1.00", "host-1:1:1.00"] * 2


def test_a_pruned_trial_is_stopped_and_ends_pruned(make_demo: MakeDemo) -> None:
    demo = make_demo(pruner={"name": "median", "startup_trials": 1, "warmup_reports": 0})
    told: list[type[object]] = []

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        loss = 1.0 + trial_number(folder.job())  # type: ignore[arg-type]
        for step in (1, 2, 3):
            yield report(step, loss)
            if isinstance(trainer.told[-1], Prune):
                yield from ending(folder, Outcome.PRUNED, loss)
        told.extend(type(command) for command in trainer.told)
        yield from ending(folder, Outcome.COMPLETE, loss, loss, loss)

    assert demo.run(plays(play)) is Step.FINISHED
    assert told == [Run, Continue, Continue, Continue]
    assert demo.states == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [len(trial.intermediate_values) for trial in demo.trials] == [3, 1, 1]
    assert demo.trials[1].user_attrs["outcome"] == "pruned"


@pytest.mark.parametrize(
    ("outcome", "state", "is_feasible"),
    [(Outcome.FAILED, "FAIL", True), (Outcome.OUT_OF_MEMORY, "PRUNED", False), (Outcome.DIVERGED, "PRUNED", True)],
)
def test_what_went_wrong_is_reported(demo: Demo, outcome: Outcome, state: str, is_feasible: bool) -> None:
    demo.worker(plays(ends(outcome, reason="why", traceback="Traceback …", clean=False))).step()
    assert demo.states == [state]
    attributes = demo.trials[0].user_attrs
    assert (attributes["outcome"], attributes["reason"]) == (outcome.value, "why")
    assert attributes["traceback"] == "Traceback …"
    assert demo.view.trials[0].is_feasible is is_feasible


def test_a_trainer_that_is_not_clean_is_replaced(demo: Demo) -> None:
    start = plays(ends(Outcome.COMPLETE, 1.0, clean=False), steadily(1.0))
    assert demo.run(start) is Step.FINISHED
    assert [len(trainer.told) for trainer in start.trainers] == [1, 4]
    assert all(trainer.ended for trainer in start.trainers)


@pytest.mark.parametrize(("limit", "trainers"), [(1, 3), (2, 2), (3, 1)])
def test_a_trainer_serves_so_many_trials(make_demo: MakeDemo, limit: int, trainers: int) -> None:
    start = plays(steadily(1.0))
    make_demo(trials_per_process=limit).run(start)
    assert len(start.trainers) == trainers


def jobs(start: Starter, knob: str) -> list[list[Any]]:
    """The value of a knob in each trial that each trainer served."""
    section, name = knob.split(".")
    return [
        [getattr(getattr(JobFolder(run.folder).job(), section), name) for run in trainer.told if isinstance(run, Run)]
        for trainer in start.trainers
    ]


def test_trials_of_different_precision_do_not_share_a_trainer(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=4, space={"model.dtype": ["float32", "bfloat16"]})
    demo.enqueue(*({"model.dtype": dtype} for dtype in ("float32", "float32", "bfloat16", "float32")))
    start = plays(steadily(1.0))
    demo.run(start)
    assert jobs(start, "model.dtype") == [["float32", "float32"], ["bfloat16"], ["float32"]]


def test_no_trial_shares_a_trainer_after_a_paged_optimizer(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=4, space={"training.optimizer": ["adamw_torch", "paged_adamw_8bit"]})
    demo.enqueue(*({"training.optimizer": name} for name in ["paged_adamw_8bit", "adamw_torch"] * 2))
    start = plays(steadily(1.0))
    demo.run(start)
    expected = [["paged_adamw_8bit"], ["adamw_torch", "paged_adamw_8bit"], ["adamw_torch"]]
    assert jobs(start, "training.optimizer") == expected


@pytest.mark.parametrize("not_given_back", [[], ["3 live tensors", "2 MiB of host memory"]])
def test_the_memory_ledger_is_stored_with_its_trial(demo: Demo, not_given_back: list[str]) -> None:
    start = plays(ends(Outcome.COMPLETE, 1.0, ledger=ledger(2.0, not_given_back), clean=not not_given_back))
    demo.worker(start).step()
    attributes = demo.trials[0].user_attrs
    assert attributes["ledger.closes"] is not bool(not_given_back)
    assert attributes.get("ledger.not_given_back") == (", ".join(not_given_back) or None)
    assert (attributes["ledger.peak_device_gib"], attributes["ledger.peak_host_gib"]) == (2.0, 1.0)
    assert (attributes["ledger.live_tensors_after"], attributes["ledger.base_fingerprint"]) == (3, "f00")
    assert start.trainers[0].ended is bool(not_given_back)


def test_the_driver_is_asked_again_and_again_while_a_trial_runs(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a trial nothing is left: a budget compared with that would be kept by every trial."""
    seen = iter([1 * GIB, 5 * GIB])
    monkeypatch.setattr(witness, "device_bytes", lambda _: next(seen, 2 * GIB))
    monkeypatch.setattr(witness, "_LOOKS_EVERY_S", 0)
    monkeypatch.setattr(warm, "device_bytes", lambda _: 2 * GIB)

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield from (Progress(step=step, num_steps=3, loss=1.0) for step in (1, 2, 3))
        yield from ending(folder, Outcome.COMPLETE, 1.0, ledger=ledger(0.5))

    demo.worker(plays(play)).step()
    facts = demo.trials[0].user_attrs
    assert (facts["ledger.peak_device_gib"], facts["ledger.witnessed_device_mib"]) == (5.0, 2048.0)


def test_a_worker_tells_what_it_does_about_every_second(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=1)
    seen: list[tuple[str, int | None, int, int, float | None]] = []

    def look() -> None:
        (worker,) = demo.store.workers.of(demo.study.study_id)
        assert (worker.device, worker.gone) == ("a GPU", False)
        assert worker.activity.host_bytes > 2**20
        seen.append(tuple(worker.activity.model_dump(exclude={"host_bytes", "device_bytes", "device_errors"}).values()))  # type: ignore[arg-type]

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        for seconds, event in [
            (1.0, Phase(name="loading", done=1, total=2)),
            (0.5, Progress(step=1, num_steps=9, loss=2.5)),
            (0.5, None),
            (1.0, report(1, 2.0)),
        ]:
            demo.clock.now += seconds
            yield event
            look()
        yield from ending(folder, Outcome.COMPLETE, 2.0)

    trainer = ScriptedTrainer(play)
    trainer.pid, trainer.device = os.getpid(), "a GPU"
    assert demo.run(Starter(lambda: trainer)) is Step.FINISHED
    loading, training = ("loading", 0, 1, 2, None), ("training", 0, 1, 9, 2.5)
    assert seen == [loading, loading, training, ("validation done", 0, 0, 0, None)]
    (worker,) = demo.store.workers.of(demo.study.study_id)
    assert worker.gone


def test_a_lease_is_renewed_while_its_trial_trains(demo: Demo) -> None:
    left: list[float] = []

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield None
        demo.expire()
        for seconds in (9.0, 1.0):
            demo.clock.now += seconds
            yield None
            left.append(demo.seconds_left)
        yield from ending(folder, Outcome.COMPLETE, 2.0)

    demo.worker(plays(play)).step()
    assert left[0] < 0
    assert 50 < left[1] <= 60


def test_nothing_is_free_while_another_worker_holds_the_last_trial(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=1)
    held = demo.claim("somebody:1:1.00")
    assert held is not None
    worker = demo.worker(plays(steadily(1.0)))
    assert worker.step() is Step.NOTHING_FREE
    demo.store.leases.close(held)
    assert worker.step() is Step.FINISHED
