"""The command line as a person meets it: its verbs and flags, its exit codes, and what it leaves out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import typer.main

from hpsearch.cli import app as app_module
from hpsearch.errors import StudyFileErrors, TrainerDied
from hpsearch.store import Store
from hpsearch.trial import Outcome
from tests.unit.worker_fixtures import Demo, demo, ends, make_demo, plays

__all__ = ["demo", "make_demo"]

SURFACE: dict[str, set[str]] = {
    "doctor": {"--store"},
    "new": {"--from", "-o", "--output", "--force"},
    "show": {"STUDY_FILE", "--examples", "--set"},
    "run": {"STUDY_FILE", "--workers", "--trials", "--store", "--set"},
    "worker": {"STUDY_FILE", "--store", "--set"},
    "status": {"STUDY", "--watch", "--store"},
    "dashboard": {"--port", "--tensorboard-port", "--host", "--store"},
    "best": {"STUDY", "--format", "-o", "--output", "--trial", "--store"},
    "train": {"WHAT", "--trial", "--no-search", "--resume", "--restart", "--out", "--store", "--set"},
    "evaluate": {"RUN_FOLDER", "--prompts", "--metrics", "--max-new-tokens", "--limit"},
    "predict": {
        "RUN_FOLDER",
        "--image",
        "--question",
        "--input",
        "--output",
        "--base",
        "--prompt",
        "--max-new-tokens",
        "--batch-size",
        "--force",
    },
    "compare": {"RUNS", "--prompt", "--common"},
    "export": {
        "RUN_FOLDER",
        "--to",
        "-o",
        "--output",
        "--dtype",
        "--llama-cpp",
        "--python",
        "--repo",
        "--private",
        "--merged",
        "--force",
        "--store",
    },
    "report": {"STUDY", "--run", "-o", "--output", "--store"},
}
"""Every verb with its arguments and flags. A change here is a change for everyone who has a script."""
HEAVY = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "optuna", "sqlalchemy", "sklearn", "numpy")


REAL: dict[str, dict[str, str]] = {
    "run missing.yaml": {},
    "run study.yaml --frobnicate": {},
    "status --store postgresql://me:hunter2@host/db": {},
    "status": {"HPSEARCH_STORAGE": "here"},
    "status demo": {"HPSEARCH_STORE": "postgresql+psycopg://me:hunter2@127.0.0.1:1/db"},
    "--help": {},
}
"""Commands that are run by a real `hpsearch`, with their environment."""
Ended = Callable[[str], tuple[int, str, str, Path]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Exit code, stdout, stderr and folder of a command; all of them start together, which saves half of the time."""
    common = {name: value for name, value in os.environ.items() if not name.startswith("HPSEARCH_")}
    started: dict[str, tuple[subprocess.Popen[str], Path]] = {}
    with ExitStack() as stack:
        for command, environment in REAL.items():
            folder = tmp_path_factory.mktemp("cli")
            process = subprocess.Popen(
                [sys.executable, "-m", "hpsearch", *command.split()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                env=common | environment | {"COLUMNS": "200", "NO_COLOR": "1"},
            )
            started[command] = (stack.enter_context(process), folder)

        def end(command: str) -> tuple[int, str, str, Path]:
            process, folder = started[command]
            said, complained = process.communicate(timeout=60)
            return process.returncode, said, complained, folder

        yield end


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    said = subprocess.check_output(
        [sys.executable, "-c", "import hpsearch.cli, sys; print(*sys.modules)"], text=True, timeout=60
    )
    imported = {name.partition(".")[0] for name in said.split()}
    assert {"hpsearch", "typer"} <= imported
    assert imported.isdisjoint(HEAVY)


def test_the_verbs_and_their_flags_are_these() -> None:
    verbs = typer.main.get_command(app_module.app).commands  # type: ignore[attr-defined]
    surface = {
        verb: {
            name if parameter.param_type_name == "option" else name.upper()
            for parameter in command.params
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        for verb, command in verbs.items()
    }
    assert surface == SURFACE


def test_help_lists_every_verb_with_words(ended: Ended) -> None:
    code, said, complained, folder = ended("--help")
    assert (code, complained) == (0, "")
    rows = {words[1]: words[2:-1] for line in said.splitlines() if len(words := line.split()) > 3}
    for verb in SURFACE:
        assert len(rows[verb]) >= 3, f"{verb} has no help"
    assert list(folder.iterdir()) == []


def test_every_flag_of_every_verb_is_explained() -> None:
    verbs = typer.main.get_command(app_module.app).commands  # type: ignore[attr-defined]
    explained = {
        f"{verb} {parameter.name}": getattr(parameter, "help", None)
        for verb, command in verbs.items()
        for parameter in command.params
    }
    assert len(explained) == sum(len(names - {"-o"}) for names in SURFACE.values())  # -o is --output
    assert [flag for flag, words in explained.items() if not words] == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run missing.yaml", "hpsearch: missing.yaml: there is no such file"),
        ("run study.yaml --frobnicate", "No such option: --frobnicate"),
        ("status --store postgresql://me:hunter2@host/db", "a password on the command line"),
    ],
)
def test_a_persons_mistake_ends_with_2_and_no_traceback(ended: Ended, command: str, words: str) -> None:
    code, said, complained, folder = ended(command)
    assert words in complained
    assert (code, said) == (2, "")
    assert "Traceback" not in complained
    assert "hunter2" not in complained
    assert list(folder.iterdir()) == []


def test_a_store_that_does_not_answer_ends_with_1_and_words(ended: Ended) -> None:
    code, said, complained, folder = ended("status demo")
    assert (code, said) == (1, "")
    assert complained.startswith("hpsearch: the store postgresql+psycopg://me@127.0.0.1:1/db can't be reached:")
    assert "hunter2" not in complained
    assert list(folder.iterdir()) == []


def test_an_empty_store_ends_with_0_and_what_to_do(ended: Ended) -> None:
    code, said, complained, folder = ended("status")
    assert (code, complained) == (0, "")
    assert said.strip().endswith("has no studies yet: hpsearch run STUDY_FILE makes one")
    assert (folder / "here" / "hpsearch.db").exists()


Main = Callable[..., tuple[object, str]]


@pytest.fixture
def main(workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """`hpsearch` without a process of its own: its exit code, and what it says to stderr."""

    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *arguments])
        with pytest.raises(SystemExit) as exited:
            app_module.main()
        return exited.value.code, capfd.readouterr().err

    assert Path.cwd() == workplace
    return run


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("show .", "is a folder; give the study file in it"),
        ("evaluate .", "is no run folder: it has no config.json"),
        ("status demo", "has no study 'demo'; it has no studies yet"),
        ("best demo -o best.yaml", "has no study 'demo'"),
        ("train demo", "has no study 'demo'"),
        ("train demo --set lora.r=1", "--set goes with a file"),
        ("status --store nonsense", "expected sqlite:///FILE"),
        ("--frobnicate", "No such option: --frobnicate"),
        ("statsu", "Did you mean 'status'?"),
        ("run", "Missing argument"),
        ("run study.yaml --trials 0", "greater than or equal to 1"),
        ("best demo --format xml", "xml"),
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
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, study_file.open("w"):
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


def test_best_says_where_it_can_not_write(main: Main, empty_store: Store, demo: Demo) -> None:
    demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
    url = empty_store.url.render_as_string()
    Path("file.txt").touch()
    code, said = main("best", "demo", "-o", "file.txt/best.yaml", "--store", url)
    assert (code, said) == (2, "hpsearch: file.txt/best.yaml: can't be written: File exists\n")


def test_best_writes_where_no_folder_is_yet(main: Main, empty_store: Store, demo: Demo) -> None:
    demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
    url = empty_store.url.render_as_string()
    assert main("best", "demo", "-o", "new/best.yaml", "--store", url) == (0, "")
    assert Path("new/best.yaml").exists()
