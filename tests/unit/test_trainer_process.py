"""The trainer process as the worker sees it: a small script takes the place of `hpsearch.train`, all else is real."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hpsearch.bridge.protocol import Continue, Done, Event, Phase, Progress, Prune, Ready, Reported, Run, Stop
from hpsearch.bridge.trainer_process import TrainerProcess
from hpsearch.errors import TrainerDied

PATIENCE_S = 30.0
PROLOGUE = """\
import json, os, signal, sys
commands, events = os.fdopen(int(sys.argv[-2]), "rb"), int(sys.argv[-1])
def heard():
    return json.loads(commands.readline() or sys.exit("the worker is gone"))
def line(kind, **more):
    return json.dumps({"kind": kind} | more).encode() + b"\\n"
def say(kind, **more):
    os.write(events, line(kind, **more))
"""
WAITS = "heard()\n"

Start = Callable[..., TrainerProcess]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a TrainerProcess whose interpreter runs a script of the test's instead of `-m hpsearch.train`."""
    started: list[TrainerProcess] = []

    def starting(script: str, extra_environment: dict[str, str] | None = None) -> TrainerProcess:
        stand_in = tmp_path / "stand_in.py"
        stand_in.write_text(PROLOGUE + script)
        interpreter = tmp_path / "python"
        interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{stand_in}" "$@"\n')
        interpreter.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(interpreter))
            started.append(TrainerProcess(tmp_path / "logs" / "trainer.txt", extra_environment))
        return started[-1]

    yield starting
    for trainer in started:
        trainer.end()


def next_event(trainer: TrainerProcess) -> Event:
    event = trainer.next_event(PATIENCE_S)
    assert event is not None, f"nothing came in {PATIENCE_S:g} s"
    return event


def obituary(trainer: TrainerProcess) -> str:
    with pytest.raises(TrainerDied) as died:
        next_event(trainer)
    return str(died.value)


def test_it_runs_the_training_plane(start: Start) -> None:
    trainer = start('say("phase", name=" ".join(sys.argv[1:-2]))\n' + WAITS)
    assert next_event(trainer) == Phase(name="-m hpsearch.train")


def test_commands_and_events_come_in_order(start: Start, tmp_path: Path) -> None:
    trainer = start("""\
say("ready", device="a GPU")
say("phase", name=heard()["folder"], done=1, total=2)
say("progress", step=1, num_steps=9)
say("report", step=1, num_reports=3, loss=float("nan"))
say("phase", name=" ".join(heard()["kind"] for _ in range(3)))
say("done", clean=False)
heard()
""")
    assert trainer.device == "starting"
    assert next_event(trainer) == Ready(device="a GPU")
    assert trainer.device == "a GPU"
    trainer.send(Run(folder=tmp_path / "trial"))
    assert next_event(trainer) == Phase(name=str(tmp_path / "trial"), done=1, total=2)
    assert next_event(trainer) == Progress(step=1, num_steps=9, loss=None)
    reported = next_event(trainer)
    assert isinstance(reported, Reported)
    assert reported.loss != reported.loss
    for command in (Stop(), Continue(), Prune()):
        trainer.send(command)
    assert next_event(trainer) == Phase(name="stop continue prune")
    assert next_event(trainer) == Done(clean=False)


def test_half_a_line_is_kept_until_the_rest_comes(start: Start) -> None:
    trainer = start("""\
cut = line("phase", name="loading")
os.write(events, line("ready", device="a GPU") + cut[:9])
heard()
os.write(events, cut[9:-1])
heard()
os.write(events, cut[-1:] + line("done", clean=True) + line("phase", name="more"))
heard()
""")
    assert next_event(trainer) == Ready(device="a GPU")
    for _ in range(2):
        assert trainer.next_event(0.01) is None
        trainer.send(Continue())
    assert [next_event(trainer) for _ in range(3)] == [Phase(name="loading"), Done(clean=True), Phase(name="more")]


def test_no_event_in_time_is_none(start: Start) -> None:
    trainer = start(WAITS)
    assert trainer.next_event(0.0) is None
    assert trainer.next_event(0.01) is None


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("sys.exit(3)", "ended with exit code 3;"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended with signal 9 (the kernel kills processes when the host's"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended with signal 11;"),
    ],
)
def test_a_death_is_reported_with_how_and_the_last_words(start: Start, tmp_path: Path, death: str, words: str) -> None:
    trainer = start(f'say("ready", device="none")\nprint("loading\\nBus error\\n \\n", flush=True)\n{death}\n')
    next_event(trainer)
    told = obituary(trainer)
    assert words in told
    assert told.endswith(f"last words in {tmp_path / 'logs' / 'trainer.txt'}: Bus error")


def test_the_last_words_in_a_job_are_in_the_trials_log(start: Start, tmp_path: Path) -> None:
    trainer = start('open(heard()["folder"] + "/log.txt", "w").write("CUDA error\\n")\nsys.exit(1)\n')
    trainer.send(Run(folder=tmp_path))
    assert obituary(trainer).endswith(f"last words in {tmp_path / 'log.txt'}: CUDA error")


@pytest.mark.parametrize(("said", "words"), [("CUDA error", "CUDA error"), ("", "it did not say why")])
def test_the_losses_of_a_training_are_no_last_words(start: Start, tmp_path: Path, said: str, words: str) -> None:
    log = f"{said}\n{{'loss': '1.2', 'learning_rate': '1e-3'}}\n"
    trainer = start(f'open(heard()["folder"] + "/log.txt", "w").write({log!r})\nsys.exit(1)\n')
    trainer.send(Run(folder=tmp_path))
    assert obituary(trainer).endswith(words)


def test_the_last_words_before_a_job_began_are_reported_too(start: Start, tmp_path: Path) -> None:
    trainer = start('heard()\nprint("ImportError: libcudart.so.13", flush=True)\nsys.exit(1)\n')
    trainer.send(Run(folder=tmp_path))
    assert obituary(trainer).endswith("ImportError: libcudart.so.13")


def test_the_last_words_of_an_earlier_process_are_not_told(start: Start, tmp_path: Path) -> None:
    for log in (tmp_path / "log.txt", tmp_path / "logs" / "trainer.txt"):
        log.parent.mkdir(exist_ok=True)
        log.write_text("Bus error\n")
    trainer = start("heard()\nsys.exit(1)\n")
    trainer.send(Run(folder=tmp_path))
    assert obituary(trainer).endswith("ended with exit code 1; it did not say why")


def test_events_before_a_death_are_not_lost(start: Start) -> None:
    trainer = start('say("phase", name="one")\nsay("done", clean=True)\n')
    assert [next_event(trainer), next_event(trainer)] == [Phase(name="one"), Done(clean=True)]
    assert "exit code 0" in obituary(trainer)


def died(trainer: TrainerProcess) -> None:
    """Waits for the process's end without reaping it."""
    os.waitid(os.P_PID, trainer.pid, os.WEXITED | os.WNOWAIT)


def test_a_command_to_a_dead_trainer_is_no_error(start: Start) -> None:
    trainer = start("sys.exit(3)\n")
    died(trainer)
    trainer.send(Continue())
    trainer.send(Prune())
    assert "exit code 3" in obituary(trainer)


def test_a_death_is_noticed_while_a_child_of_the_trainer_lives(start: Start) -> None:
    trainer = start('say("done", clean=False)\nif os.fork():\n    os._exit(3)\nheard()\n')
    died(trainer)
    assert trainer.next_event(0.1) == Done(clean=False)
    with pytest.raises(TrainerDied):
        trainer.next_event(0.1)


def test_the_trainer_sees_no_secret_of_the_store(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"HPSEARCH_STORE", "PGPASSWORD", "PGPASSFILE", "MYSQL_PWD", "AWS_SECRET_ACCESS_KEY", "HPSEARCH_NOTIFY"}
    for name in secrets | {"HF_TOKEN"}:
        monkeypatch.setenv(name, "hunter2")
    trainer = start('say("phase", name=json.dumps(dict(os.environ)))\n' + WAITS, {"HPSEARCH_EXTRA": "given"})
    seen = next_event(trainer)
    assert isinstance(seen, Phase)
    for name in secrets:
        assert f'"{name}"' not in seen.name
    assert seen.name.count("hunter2") == 1
    assert '"HF_TOKEN": "hunter2"' in seen.name
    assert '"HPSEARCH_EXTRA": "given"' in seen.name


def test_the_libraries_settings_are_defaults_and_the_persons_own_stay(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    for name in ("OMP_WAIT_POLICY", "TORCHDYNAMO_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    trainer = start('say("phase", name=json.dumps(dict(os.environ)))\n' + WAITS)
    seen = next_event(trainer)
    assert isinstance(seen, Phase)
    for entry in ('"TOKENIZERS_PARALLELISM": "true"', '"OMP_WAIT_POLICY": "PASSIVE"', '"TORCHDYNAMO_DISABLE": "1"'):
        assert entry in seen.name


def test_the_trainer_holds_nothing_of_its_worker_but_its_two_pipes(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as other:
        os.set_inheritable(other.fileno(), True)
        trainer = start("""\
held = [os.readlink(f"/proc/self/fd/{fd}") for fd in sorted(map(int, os.listdir("/proc/self/fd"))) if fd > 2
        and os.path.exists(f"/proc/self/fd/{fd}")]
say("phase", name=" ".join(name.split(":")[0] for name in held))
heard()
""")
        assert next_event(trainer) == Phase(name="pipe pipe")


def test_what_libraries_print_lands_in_the_log_and_not_in_the_protocol(start: Start, tmp_path: Path) -> None:
    trainer = start("""\
print('{"kind": "done", "clean": true}', flush=True)
os.write(2, b"a warning")
say("ready", device=repr(sys.stdin.read()))
heard()
""")
    assert next_event(trainer) == Ready(device="''")
    assert (tmp_path / "logs" / "trainer.txt").read_text() == '{"kind": "done", "clean": true}\na warning'


@pytest.mark.parametrize("script", ["signal.signal(signal.SIGTERM, signal.SIG_IGN)\nheard()\n", "sys.exit(3)\n"])
def test_its_end_leaves_no_process_and_no_open_file(start: Start, script: str) -> None:
    process = psutil.Process()
    before = process.num_fds()
    trainer = start('say("ready", device="none")\n' + script)
    next_event(trainer)
    assert process.num_fds() > before
    if "exit" in script:
        died(trainer)
        trainer.send(Continue())
    trainer.end()
    assert not psutil.pid_exists(trainer.pid), "it runs on, or is a zombie"
    assert process.num_fds() == before
    trainer.end()  # once more does no harm
