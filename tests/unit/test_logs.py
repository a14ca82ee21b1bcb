"""`hpsearch logs`: what workers, trainers and attempts said, read once or followed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpsearch.bridge.stopping import StopFlag
from hpsearch.cli import app as app_module
from hpsearch.cli import logs as verb
from hpsearch.trial import Outcome
from hpsearch.watch import logs
from hpsearch.watch.logs import Ending, Tail, follow_logs, name_of, read_logs, shown
from hpsearch.worker.relay import Relay
from tests.unit.outage_fixtures import Outage
from tests.unit.worker_fixtures import HERE, Demo, ends, plays

TRACEBACK = "Traceback (most recent call last):\n  File \"x.py\", line 1\nKeyError: 'x'"


# Files that grow


def append(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


def test_a_file_is_read_as_it_grows(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    tail = Tail(file)
    assert list(tail.lines()) == [], "it is not there yet"
    append(file, "one\ntw")
    assert list(tail.lines()) == ["one"]
    append(file, "o\nthree\n")
    assert list(tail.lines()) == ["two", "three"]
    assert list(tail.lines()) == list(tail.rest()) == []


def test_a_file_that_is_cut_or_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    tail = Tail(file)
    file.write_text("a long first line\nand a rest")
    assert list(tail.lines()) == ["a long first line"]
    file.write_text("new\n")
    assert list(tail.lines()) == ["and a rest", "new"]
    file.rename(tmp_path / "log.txt.1")
    assert list(tail.lines()) == []
    file.write_text("the next file, which is longer\n")
    assert list(tail.lines()) == ["the next file, which is longer"]
    file.unlink()
    assert list(tail.lines()) == []


def test_a_line_without_an_end_is_not_kept_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_CHUNK_BYTES", 10)
    file = tmp_path / "log.txt"
    file.write_text("x" * 35)
    assert "".join(line for _, line in read_logs([file])) == "x" * 35


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b" 10%|#   | 1/10\r 50%|##  | 5/10\r100%|####| 10/10\r", "100%|####| 10/10"),
        (b"\x1b[1;31merror\x1b[0m: bad\x1b[K", "error: bad"),
        (b"\x1b[2J\x1b]0;title\x07\x1b[Hgone", r"\x1b[2J\x1b]0;title\x07\x1b[Hgone"),
        (b"a\tb\r", "a       b"),
        ("Größe \x9b2J\u202e".encode(), r"Größe \x9b2J\u202e"),
        (b"\xff\xfe", "��"),
        (b"x" * 5000, "x" * 3999 + "…"),
    ],
)
def test_a_line_is_shown_as_it_was_seen_and_moves_no_cursor(line: bytes, words: str) -> None:
    assert shown(line) == words


def test_a_trainer_is_named_by_its_worker() -> None:
    assert name_of(Path("trainer-gpu-box-4242-123456@0a1b2c3d-f0000ffc.txt")) == "trainer gpu-box:4242"
    assert name_of(Path("worker-0.txt")) == "worker-0"


# Following


def test_files_that_come_later_are_followed_until_the_end_and_a_moment_longer(tmp_path: Path) -> None:
    one, two = tmp_path / "worker-0.txt", tmp_path / "worker-1.txt"
    happens: list[Callable[[], None]] = [
        lambda: append(one, "a\n"),
        lambda: append(two, "b\n"),
        lambda: append(one, "c\nlast words"),
        lambda: None,
    ]
    told = [(file.stem, line) for file, line in follow_logs(
        lambda: sorted(tmp_path.glob("*.txt")), lambda: len(happens) <= 2, lambda: happens.pop(0)()
    )]  # fmt: skip
    assert told == [("worker-0", "a"), ("worker-1", "b"), ("worker-0", "c"), ("worker-0", "last words")]


@pytest.fixture
def relay(demo: Demo) -> Iterator[Relay]:
    relay = Relay(demo.store, StopFlag())
    yield relay
    relay.close()


def test_an_outage_ends_nothing_and_is_said_once(demo: Demo, relay: Relay, outage: Outage) -> None:
    said: list[str] = []
    ending = Ending(relay, lambda: demo.store.leases.slots(demo.study.study_id).all_finished, said.append)

    def look() -> bool:
        assert relay.is_answered(ending._answer, 60)
        return ending()

    assert not look()
    assert relay.is_answered(ending._answer, 60)
    outage.is_down = True
    assert not any(look() for _ in range(4))
    assert len(said) == 1
    assert said[0].endswith("the server closed the connection; still following the logs")
    outage.is_down = False
    demo.run(plays(ends(Outcome.COMPLETE, 0.5)))
    assert any(look() for _ in range(3))
    assert len(said) == 1


# The verb

Run = Callable[[str], tuple[object, str, str]]


@pytest.fixture
def run(demo: Demo, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of `hpsearch`, with the demo's store and storage folder."""
    monkeypatch.setenv("HPSEARCH_STORE", demo.store.url.render_as_string())
    monkeypatch.setenv("HPSEARCH_STORAGE", str(demo.study.storage.path))

    def run(command: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *command.split()])
        with pytest.raises(SystemExit) as exited:
            app_module.main()
        return (exited.value.code, *capfd.readouterr())

    assert Path.cwd() == workplace
    return run


def write_log(demo: Demo, name: str, text: str) -> None:
    folder = demo.study.storage.logs("demo")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def write_attempt(demo: Demo, attempt: int, text: str) -> None:
    folder = demo.study.storage.trial(demo.study.uid, 0).attempt(attempt)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.log.write_text(text)


class TestAStudy:
    def test_one_log_is_printed_as_it_is(self, run: Run, demo: Demo) -> None:
        write_log(demo, "worker-0.txt", "one\ntwo")
        assert run("logs demo") == (0, "one\ntwo\n", "")

    def test_of_several_each_line_has_its_name(self, run: Run, demo: Demo) -> None:
        write_log(demo, "worker-0.txt", "one\ntwo\n")
        write_log(demo, "trainer-gpu-box-1-00@0a-f0.txt", "three\n")
        assert run("logs demo")[1] == "trainer gpu-box:1 | three\nworker-0 | one\nworker-0 | two\n"

    def test_machines_whose_logs_are_elsewhere_are_named(self, run: Run, demo: Demo) -> None:
        write_log(demo, "worker-0.txt", "one\n")
        for worker in ("gpu-box:1:00@0a-f0", "node-2:7:00@0a-f0", "node-2:8:00@0a-f0", "here-too:1:00@0a-f0"):
            demo.store.workers.register(worker, demo.study.study_id, "a GPU")
        write_log(demo, "trainer-here-too-1-00@0a-f0.txt", "")
        code, said, noted = run("logs demo")
        assert (code, said) == (0, "worker-0 | one\n")
        assert noted == (
            "hpsearch: no logs of gpu-box, node-2 are here. If machines share no storage folder, ask on that machine: "
            "hpsearch logs demo\n"
        )

    def test_without_a_log_that_is_said(self, run: Run) -> None:
        code, said, noted = run("logs demo")
        assert (code, said) == (0, "")
        assert "demo has no logs in storage/logs/demo\n" in noted

    def test_is_followed_until_it_is_over(self, run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        def pass_time(_: float) -> None:
            write_log(demo, "worker-1.txt", "it came later\n")
            demo.run(plays(ends(Outcome.COMPLETE, 0.5)))

        write_log(demo, "worker-0.txt", "one\n")
        monkeypatch.setattr(verb, "sleep", pass_time)
        code, said, _ = run("logs demo --follow")
        assert (code, said) == (0, "worker-0 | one\nworker-1 | it came later\n")

    def test_ctrl_c_ends_it(self, run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(_: float) -> None:
            raise KeyboardInterrupt

        write_log(demo, "worker-0.txt", "one\n")
        monkeypatch.setattr(verb, "sleep", interrupt)
        assert run("logs demo -f")[:2] == (130, "worker-0 | one\n")


class TestATrial:
    def test_is_shown_attempt_by_attempt_with_why_it_failed(self, run: Run, demo: Demo) -> None:
        demo.claim("gpu-box:1:1.00")
        demo.expire()
        demo.worker(plays(ends(Outcome.FAILED, reason="KeyError: 'x'", traceback=TRACEBACK, clean=False))).step()
        write_attempt(demo, 1, "began\n")
        write_attempt(demo, 2, "began again\n")
        assert run("logs demo 0") == (
            0,
            f"── attempt 1 ──\nbegan\n── attempt 2 ──\nbegan again\n── failed: KeyError: 'x' ──\n{TRACEBACK}\n",
            "",
        )

    def test_whose_attempts_said_nothing(self, run: Run, demo: Demo) -> None:
        demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
        for attempt, text in enumerate(["", "began\n", "", "", "began again\n", ""], start=1):
            write_attempt(demo, attempt, text)
        headings = [f"── attempt {attempt} ──" for attempt in range(1, 7)]
        nothing = "(nothing was said)"
        said = [nothing, "began", nothing, nothing, "began again", nothing]
        expected = [line for pair in zip(headings, said, strict=True) for line in pair]
        assert run("logs demo 0")[1].splitlines() == expected

    def test_whose_attempts_are_on_another_machine(self, run: Run, demo: Demo) -> None:
        demo.worker(plays(ends(Outcome.COMPLETE, 0.5)), name="gpu-box:1:1.00").step()
        code, said, noted = run("logs demo 0")
        assert (code, said) == (0, "")
        assert noted == (
            "hpsearch: attempt 1 of trial 0 left no log here; the last one is gpu-box's. If machines share no "
            "storage folder, ask on that machine: hpsearch logs demo 0\n"
        )

    def test_that_is_not_there(self, run: Run, demo: Demo) -> None:
        assert run("logs demo 0")[2].endswith("study demo has no trial 0; none has begun yet\n")
        demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
        code, said, complained = run("logs demo 7")
        assert (code, said, complained) == (2, "", "hpsearch: study demo has no trial 7; it has trials 0 to 0\n")
        assert run("logs dmeo")[0] == run("logs demo x")[0] == 2

    def test_is_followed_into_its_next_attempt(self, run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        worker = demo.worker(plays(ends(Outcome.STOPPED), ends(Outcome.COMPLETE, 0.5)), name=HERE)
        worker.step()
        write_attempt(demo, 1, "began\n")

        def pass_time(_: float) -> None:
            if demo.trials[0].state.name == "RUNNING":
                demo.worker(plays(ends(Outcome.COMPLETE, 0.5)), name="next:1:1.00").step()
                write_attempt(demo, 2, "began again\n")

        monkeypatch.setattr(verb, "sleep", pass_time)
        code, said, _ = run("logs demo 0 --follow")
        assert (code, said) == (0, "── attempt 1 ──\nbegan\n── attempt 2 ──\nbegan again\n")

    def test_is_followed_until_its_study_is_deleted(
        self, run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        demo.worker(plays(ends(Outcome.STOPPED)), name=HERE).step()
        write_attempt(demo, 1, "began\n")

        def pass_time(_: float) -> None:
            if demo.store.studies.find("demo"):
                demo.store.optuna.delete_study(demo.study.study_id)

        monkeypatch.setattr(verb, "sleep", pass_time)
        assert run("logs demo 0 --follow") == (
            1,
            "── attempt 1 ──\nbegan\n",
            "hpsearch: study demo is no longer in the store: it was deleted\n",
        )
