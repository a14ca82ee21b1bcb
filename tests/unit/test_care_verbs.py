"""What a person does about a study that is there: pause, resume, stop, retry, delete."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from sqlalchemy import update

from hpsearch.cli import app as app_module
from hpsearch.store.tables import leases, studies, workers
from hpsearch.trial import Outcome
from hpsearch.worker.endings import Step
from tests.unit.worker_fixtures import HERE, Demo, ends, nobody, plays, steadily

GOOD = steadily(1.0)
BAD = ends(Outcome.FAILED, reason="KeyError: 'x'", traceback="Traceback …", clean=False)
NEXT = "next:1:1.00"

Ended = tuple[object, str, str]
Run = Callable[[str], Ended]


@pytest.fixture
def run(demo: Demo, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of `hpsearch`, with the demo's store and storage folder."""
    monkeypatch.setenv("HPSEARCH_STORE", demo.store.url.render_as_string())
    monkeypatch.setenv("HPSEARCH_STORAGE", str(demo.study.storage.path))

    def run(command: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *command.split()])
        with pytest.raises(SystemExit) as exited:
            app_module.main()
        return (exited.value.code, *capfd.readouterr())

    assert Path.cwd() == workplace
    return run


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "retry", "delete --yes"])
def test_a_study_that_is_not_there_has_words(run: Run, verb: str) -> None:
    code, said, complained = run(f"{verb} dmeo")
    assert (code, said) == (2, "")
    assert complained.endswith("has no study 'dmeo'; did you mean 'demo'?\n")


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "retry", "delete --yes"])
def test_where_there_is_no_store_none_is_made(
    run: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.delenv("HPSEARCH_STORE")
    monkeypatch.setenv("HPSEARCH_STORAGE", str(workplace / "storage"))
    code, said, complained = run(f"{verb} demo")
    assert (code, said) == (2, "")
    assert "hpsearch.db" in complained
    assert not (workplace / "storage").exists()


class TestPauseAndResume:
    def test_no_trial_begins_in_between(self, run: Run, demo: Demo) -> None:
        code, said, _ = run("pause demo")
        assert (code, said.splitlines()) == (
            0,
            [
                "demo is paused; it has no worker now",
                "hpsearch resume demo lets trials start again",
            ],
        )
        assert demo.run(nobody) is Step.PAUSED
        code, said, _ = run("status demo")
        assert "paused: by hpsearch pause; hpsearch resume demo continues it" in said
        code, said, _ = run("pause demo")
        assert (code, said) == (0, "demo is paused already: by hpsearch pause\n")
        code, said, _ = run("resume demo")
        assert said.startswith("demo was paused: by hpsearch pause\ntrials may start again; start")
        assert demo.run(plays(GOOD), name=NEXT) is Step.FINISHED

    def test_workers_that_are_there_leave(self, run: Run, demo: Demo) -> None:
        demo.store.workers.register("host:1:1.00", demo.study.study_id, "cpu")
        before(demo)
        assert "demo is paused: workers finish their current trials, then exit" in run("pause demo")[1]

    def test_a_study_that_is_finished(self, run: Run, demo: Demo) -> None:
        demo.run(plays(GOOD))
        assert run("pause demo")[1].startswith("demo is finished; trials that are added to it will not begin\ndemo is")

    def test_a_study_that_is_not_paused(self, run: Run) -> None:
        assert run("resume demo") == (0, "demo is not paused\n", "")

    def test_resuming_forgives_the_failures_so_far_and_no_others(self, run: Run, demo: Demo) -> None:
        demo.store.studies.update(demo.study.study_id, demo.study.spec, 8)
        demo.enqueue({"lora.r": 999})  # nobody can run it: no failure of a worker's
        assert demo.run(plays(BAD)) is Step.PAUSED
        assert run("resume demo")[1].startswith("demo was paused: the first 3 trials all failed")
        assert demo.run(plays(BAD), name=NEXT) is Step.PAUSED
        assert len(demo.view.failed) == 6


class TestStop:
    def test_nobody_is_there(self, run: Run) -> None:
        assert run("stop demo") == (0, "demo has no worker now\n", "")

    @pytest.mark.parametrize(
        ("flag", "number", "words"),
        [
            ("", 1, "1 worker is asked to save and leave"),
            ("", 2, "2 workers are asked to save and leave"),
            ("--now", 1, "1 worker is asked to exit at once"),
        ],
    )
    def test_every_worker_is_asked(self, run: Run, demo: Demo, flag: str, number: int, words: str) -> None:
        names = [f"host:{each}:1.00" for each in range(number)]
        for name in names:
            demo.store.workers.register(name, demo.study.study_id, "cpu")
        before(demo)
        code, said, _ = run(f"stop demo {flag}")
        assert (code, said.splitlines()[0]) == (0, words)
        orders = [demo.store.orders.of(name) for name in names]
        assert [(order.stop, order.stop_now) for order in orders] == [(True, bool(flag))] * number


def before(demo: Demo) -> None:
    """The workers have been there for a second."""
    with demo.store.optuna.engine.begin() as connection:
        connection.execute(update(workers).values(started_at=workers.c.started_at - 1))


class TestRetry:
    @pytest.fixture
    def failed(self, demo: Demo) -> Demo:
        """Trials 0 and 2 failed, 1 is complete."""
        demo.run(plays(BAD, GOOD, BAD))
        assert demo.states == ["FAIL", "COMPLETE", "FAIL"]
        return demo

    def test_all_that_failed_are_run_again(self, run: Run, failed: Demo) -> None:
        code, said, _ = run("retry demo")
        assert (code, said.splitlines()) == (
            0,
            ["to be run again: trials 0, 2", "start workers with hpsearch run, worker or launch"],
        )
        assert failed.run(plays(GOOD), name=NEXT) is Step.FINISHED
        assert failed.states == ["COMPLETE"] * 3
        assert [lease.attempt for lease in failed.leases] == [2, 1, 2]

    def test_those_that_are_named(self, run: Run, failed: Demo) -> None:
        assert run("retry demo 2 2")[1].startswith("to be run again: trial 2\n")
        assert failed.states == ["FAIL", "COMPLETE", "RUNNING"]

    @pytest.mark.parametrize(
        ("number", "words"),
        [
            (1, "trial 1 of demo is complete; those that failed: 0, 2"),
            (7, "trial 7 of demo does not exist; those that failed: 0, 2"),
        ],
    )
    def test_one_that_did_not_fail_has_words(self, run: Run, failed: Demo, number: int, words: str) -> None:
        assert run(f"retry demo 0 {number}") == (2, "", f"hpsearch: {words}\n")
        assert failed.states == ["FAIL", "COMPLETE", "FAIL"]

    def test_where_none_failed_a_paused_study_stays_paused(self, run: Run, demo: Demo) -> None:
        demo.store.orders.pause(demo.study.study_id, "a person said so")
        assert run("retry demo") == (0, "demo has no trial that failed\n", "")
        assert demo.store.studies.why_paused(demo.study.study_id) == "a person said so"
        assert run("retry demo 0") == (2, "", "hpsearch: trial 0 of demo does not exist; no trial failed\n")

    def test_a_study_that_paused_over_them_goes_on(self, run: Run, demo: Demo) -> None:
        demo.store.studies.update(demo.study.study_id, demo.study.spec, 8)
        assert demo.run(plays(BAD)) is Step.PAUSED
        said = run("retry demo")[1]
        assert "to be run again: trials 0, 1, 2" in said
        assert "demo was paused (the first 3 trials all failed" in said
        assert demo.run(plays(BAD), name=NEXT) is Step.PAUSED, "they fail alike once more"
        assert demo.states == ["FAIL"] * 3

    def test_a_worker_that_is_there_takes_them_up(self, run: Run, demo: Demo) -> None:
        """Also the one that saw them fail."""
        worker = demo.worker(plays(BAD, GOOD))
        assert worker.step() is Step.WORKED
        run("retry demo 0")
        assert worker.run() is Step.FINISHED
        assert demo.states == ["COMPLETE"] * 3
        assert [lease.finished for lease in demo.leases] == [True] * 3

    def test_one_that_a_worker_is_just_ending_is_left_to_it(self, run: Run, failed: Demo) -> None:
        with failed.store.optuna.engine.begin() as connection:
            connection.execute(update(leases).where(leases.c.slot == 0).values(finished=False))
        said = run("retry demo")[1].splitlines()
        assert said[:2] == ["trial 0 is running right now: try again", "to be run again: trial 2"]
        assert failed.states == ["FAIL", "COMPLETE", "RUNNING"]


class TestDelete:
    def test_the_study_goes_with_its_trials_and_their_folders(self, run: Run, demo: Demo) -> None:
        demo.run(plays(GOOD))
        folder = demo.study.storage.path / "trials" / demo.study.uid
        neighbour = demo.study.storage.path / "trials" / "another-study"
        neighbour.mkdir()
        log = demo.study.storage.logs("demo") / "local-0.txt"
        log.parent.mkdir(parents=True)
        log.write_text("the next study of this name has nothing to do with it")
        assert folder.exists()
        code, said, _ = run("delete demo --yes")
        assert (code, said) == (0, f"demo is deleted; final runs stay in {demo.study.storage.runs}\n")
        assert not folder.exists()
        assert not log.exists()
        assert neighbour.exists()
        assert demo.store.studies.find("demo") is None
        assert (demo.leases, demo.store.workers.of(demo.study.study_id)) == ([], [])
        assert run("status demo")[0] == 2

    def test_that_can_t_be_read_goes_all_the_same(self, demo: Demo, run: Run) -> None:
        with demo.store.optuna.engine.begin() as connection:
            connection.execute(update(studies).values(spec='{"version": 99}'))
        assert run("delete demo --yes")[0] == 0
        assert demo.store.studies.unreadable() == []

    def test_not_without_a_yes(self, run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        with Path("/dev/null").open() as nothing:
            monkeypatch.setattr(sys, "stdin", nothing)
            code, said, complained = run("delete demo")
        assert (code, complained) == (2, "hpsearch: there is no terminal to ask on: --yes deletes without a question\n")
        assert f"delete demo with its 0 trials and {demo.study.storage.path}/trials/{demo.study.uid}?" in said
        assert demo.store.studies.find("demo") is not None

    @pytest.mark.parametrize("answer", ["n\n", "\n"])
    def test_not_after_a_no(self, run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code, said, _ = run("delete demo")
        assert code == 0
        assert said.endswith("demo is kept\n")
        assert demo.store.studies.find("demo") is not None

    def test_not_after_ctrl_c(self, run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(_: str) -> None:
            raise typer.Abort  # as Typer says it, and as it says that the input has ended

        monkeypatch.setattr(typer, "confirm", interrupted)
        terminal = io.StringIO()
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)
        assert run("delete demo") == (130, "\n", "hpsearch: nothing was deleted\n")
        assert demo.store.studies.find("demo") is not None

    def test_not_under_its_workers(self, run: Run, demo: Demo) -> None:
        demo.store.workers.register(HERE, demo.study.study_id, "cpu")
        complaint = "hpsearch: demo has 1 worker now: hpsearch stop demo ends them\n"
        assert run("delete demo --yes") == (2, "", complaint)
        assert demo.store.studies.find("demo") is not None
        demo.store.workers.leave(HERE)
        assert run("delete demo --yes")[0] == 0
