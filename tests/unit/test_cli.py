"""The command line as a user sees it: its verbs and flags, its exit codes, and what it leaves out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from hpsearch.cli import app as app_module
from hpsearch.cli.train import _run_name
from hpsearch.errors import StudyFileErrors, TrainerDied
from hpsearch.store import Store
from hpsearch.trial import Outcome
from tests.unit.test_cli_flags import SURFACE
from tests.unit.worker_fixtures import Demo, ends, plays

HEAVY = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "optuna", "sqlalchemy", "sklearn", "numpy")


Ended = tuple[object, str, str]
"""Exit code, stdout and stderr of a command."""
Run = Callable[[str], Ended]


@pytest.fixture
def ended(workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`hpsearch` in an empty folder, without a process of its own."""

    def run(command: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *command.split()])
        with pytest.raises(SystemExit) as exited:
            app_module.main()
        return (exited.value.code, *capfd.readouterr())

    assert Path.cwd() == workplace
    return run


def really_ended(command: str) -> Ended:
    """The same of a real `hpsearch`, which takes a second to load what it needs."""
    words = [sys.executable, "-m", "hpsearch", *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    said = subprocess.check_output(
        [sys.executable, "-c", "import hpsearch.cli, sys; print(*sys.modules)"], text=True, timeout=60
    )
    imported = {name.partition(".")[0] for name in said.split()}
    assert {"hpsearch", "typer"} <= imported
    assert imported.isdisjoint(HEAVY)


def test_help_lists_every_verb_with_words(ended: Run, workplace: Path) -> None:
    code, said, complained = ended("--help")
    assert (code, complained) == (0, "")
    rows = {words[1]: words[2:-1] for line in said.splitlines() if len(words := line.split()) > 3}
    for verb in SURFACE:
        assert len(rows[verb]) >= 3, f"{verb} has no help"
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run study.yaml --frobnicate", "No such option: --frobnicate"),
        ("status --store postgresql://me:hunter2@host/db", "a password on the command line"),
    ],
)
def test_a_persons_mistake_ends_with_2(ended: Run, workplace: Path, command: str, words: str) -> None:
    code, said, complained = ended(command)
    assert words in complained
    assert (code, said) == (2, "")
    assert "Traceback" not in complained
    assert "hunter2" not in complained
    assert list(workplace.iterdir()) == []


def test_a_real_hpsearch_ends_with_2_and_says_nothing_else(workplace: Path) -> None:
    complaint = "hpsearch: missing.yaml: there is no such file\n"
    assert really_ended("run missing.yaml") == (2, "", complaint)
    assert list(workplace.iterdir()) == []


def test_a_store_that_does_not_answer_ends_with_1_and_words(
    ended: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSEARCH_STORE", "postgresql+psycopg://me:hunter2@127.0.0.1:1/db")
    code, said, complained = ended("status demo")
    assert (code, said) == (1, "")
    assert complained.startswith("hpsearch: the store postgresql+psycopg://me@127.0.0.1:1/db can't be reached:")
    assert "hunter2" not in complained
    assert list(workplace.iterdir()) == []


def test_the_name_of_a_study_is_taken_for_its_file(workplace: Path, ended: Run) -> None:
    (workplace / "t9.yaml").write_text("study: t9\n")
    assert ended("show t9")[2] == "hpsearch: t9: there is no such file; did you mean 't9.yaml'?\n"


def test_an_empty_store_ends_with_0_and_what_to_do(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPSEARCH_STORAGE", "here")
    code, said, complained = really_ended("status")
    assert (code, complained) == (0, "")
    assert said.replace("\n", "") == (
        f"sqlite:///{workplace}/here/hpsearch.db has no studies yet: hpsearch run STUDY_FILE makes one"
    ), "where it was looked for"
    assert not (workplace / "here").exists()


@pytest.mark.parametrize("command", ["show study.yaml", "doctor"])
def test_a_storage_folder_that_can_not_be_written_is_named(
    ended: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (workplace / "file.txt").touch()
    monkeypatch.setenv("HPSEARCH_STORAGE", "file.txt/storage")
    assert ended("new --example quickstart -o study.yaml")[0] == 0
    code, said, complained = ended(command)
    words = " ".join((said + complained).split())
    assert code == (1 if command == "doctor" else 2)
    assert "the storage folder" in words
    assert "can't be written: Not a directory" in words
    assert "set HPSEARCH_STORAGE to a folder of yours" in words
    assert ("training libraries" in words) is (command == "doctor")


@pytest.mark.parametrize("more", ["", " --out file.txt/run", " --out /proc/run"])
def test_a_run_folder_that_can_not_be_written_is_named(
    ended: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    (workplace / "file.txt").touch()
    monkeypatch.setenv("HPSEARCH_STORAGE", "file.txt/storage")
    assert ended("new --example quickstart -o study.yaml")[0] == 0
    code, _, complained = ended(f"train study.yaml --set search=null{more}")
    words = " ".join(complained.split())
    assert (code, "Traceback" in words) == (2, False)
    assert "run folder" in words
    assert "can't be written: " in words
    assert "choose another one with --out, or set HPSEARCH_STORAGE to a folder of yours" in words


Main = Callable[..., tuple[object, str]]


@pytest.fixture
def main(ended: Run) -> Main:
    """The exit code of `hpsearch`, and what it says to stderr."""
    return lambda *arguments: ended(" ".join(arguments))[::2]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("show .", "is a folder; give the study file in it"),
        ("evaluate .", "is not a run folder: it has no config.json"),
        ("status demo", "has no studies yet: hpsearch run STUDY_FILE makes one"),
        ("best demo -o best.yaml", "has no studies yet"),
        ("train demo", "has no studies yet"),
        ("train demo --set lora.r=1", "--set goes with a file"),
        ("status --store nonsense", "expected sqlite:///FILE"),
        ("--frobnicate", "No such option: --frobnicate"),
        ("statsu", "Did you mean 'status'?"),
        ("run", "Missing argument"),
        ("run study.yaml --trials 0", "Invalid value for '--trials': must be at least 1, not '0'"),
        ("run study.yaml --workers a", "Invalid value for '--workers': expected a whole number, found 'a'"),
        ("best demo --format xml", "Invalid value for '--format': 'xml' is not one of 'table', 'yaml'"),
    ],
)
def test_every_mistake_has_its_words(main: Main, command: str, words: str) -> None:
    code, said = main(*command.split())
    assert words in said
    assert code == 2


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        (typer.Exit(130), 130, ""),
        (typer.Exit(1), 1, ""),
        (TrainerDied("signal 9"), 1, "hpsearch: signal 9\n"),
        (StudyFileErrors("study.yaml", []), 2, "hpsearch: study.yaml: 0 mistakes\n"),
    ],
    ids=repr,
)
def test_a_verbs_ending_is_the_exit_code(
    main: Main, monkeypatch: pytest.MonkeyPatch, ending: Exception, code: int, words: str
) -> None:
    def ends() -> None:
        raise ending

    app = typer.Typer()
    app.command("ends")(ends)
    monkeypatch.setattr(app_module, "app", app)
    assert main() == (code, words)


def test_ctrl_c_ends_with_130_and_no_traceback(workplace: Path) -> None:
    study_file = workplace / "study.yaml"
    os.mkfifo(study_file)
    command = [sys.executable, "-m", "hpsearch", "show", str(study_file)]
    # The pipe opens for us as soon as the verb reads it, and the verb then waits for our first word.
    # A shell makes what it starts in the background ignore Ctrl-C, and whatever these tests start after it.
    hears: Any = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **hears) as process, study_file.open("w"):
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "store",
    [
        "mariadb+pymysql://me@127.0.0.1:1/db",
        "oracle://me@127.0.0.1:1/db",
        "sqlite:///file.txt",
        "sqlite:///file.txt/hpsearch.db",
    ],
)
def test_a_store_that_can_not_be_one_ends_with_words(workplace: Path, main: Main, store: str) -> None:
    (workplace / "file.txt").write_text("no database\n")
    code, said = main("status", "--store", store)
    assert code in (1, 2)
    assert said.startswith("hpsearch: ")


def test_a_store_without_studies_says_how_one_is_made(ended: Run, empty_store: Store) -> None:
    code, said, _ = ended(f"status --store {empty_store.url.render_as_string()}")
    assert (code, said.endswith("has no studies yet: hpsearch run STUDY_FILE makes one\n")) == (0, True)


def test_best_says_where_it_can_not_write(main: Main, empty_store: Store, demo: Demo) -> None:
    demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
    url = empty_store.url.render_as_string()
    Path("file.txt").touch()
    code, said = main("best", "demo", "-o", "file.txt/best.yaml", "--store", url, "--trial", "0")
    assert (code, said) == (2, "hpsearch: file.txt/best.yaml: can't be written: File exists\n")


def test_best_writes_where_no_folder_is_yet(main: Main, empty_store: Store, demo: Demo) -> None:
    demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
    url = empty_store.url.render_as_string()
    assert main("best", "demo", "-o", "new/best.yaml", "--store", url, "--trial", "0") == (0, "")
    assert Path("new/best.yaml").exists()


@pytest.mark.parametrize("how", ["", "-o best.yaml", "--format json"])
def test_best_of_a_search_that_goes_on_says_that_it_may_change(ended: Run, demo: Demo, how: str) -> None:
    demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
    store = demo.store.url.render_as_string()
    code, printed, said = ended(f"best demo {how} --store {store}")
    assert (code, said) == (0, "1 of 3 trials are done; the best may change\n")
    assert "may change" not in printed
    assert ended(f"best demo --trial 0 {how} --store {store}")[2] == "", "a trial that was asked for doesn't"


def test_best_keeps_a_file_that_a_person_changed(main: Main, empty_store: Store, demo: Demo) -> None:
    demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
    best = ("best", "demo", "-o", "best.yaml", "--store", empty_store.url.render_as_string())
    assert main(*best)[0] == main(*best)[0] == 0
    written = Path("best.yaml").read_text()
    Path("best.yaml").write_text("mine\n")
    code, said = main(*best)
    assert (code, Path("best.yaml").read_text()) == (2, "mine\n")
    assert "best.yaml: is there already, with other content" in said
    assert main(*best, "--force")[0] == 0
    assert Path("best.yaml").read_text() == written


def test_best_says_that_all_trials_have_one_value(main: Main, empty_store: Store, demo: Demo) -> None:
    worker = demo.worker(plays(ends(Outcome.COMPLETE, 0.5), ends(Outcome.COMPLETE, 0.5)))
    best = ("best", "demo", "-o", "best.yaml", "--store", empty_store.url.render_as_string())
    worker.step()
    assert "All complete" not in main(*best)[1]
    worker.step()
    code, said = main(*best)
    assert (code, said.splitlines()[1][:52]) == (0, "All complete trials have the same validation loss 0.")
    assert main(*best, "--trial", "0") == (0, ""), "somebody has chosen"


@pytest.mark.usefixtures("workplace")
def test_a_run_has_its_studys_name_unless_its_trial_was_asked_for() -> None:
    assert _run_name("demo", 3, None) == "demo"
    assert _run_name("demo", 3, 3) == "demo-trial-3"
    begun = Path("storage", "runs", "demo-trial-3")
    begun.mkdir(parents=True)
    assert _run_name("demo", 3, None) == "demo-trial-3", "an earlier hpsearch began it: --resume continues it"
    begun.with_name("demo").mkdir()
    assert _run_name("demo", 3, None) == "demo"
