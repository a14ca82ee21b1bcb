"""The console: what a terminal gets that a pipe doesn't."""

from __future__ import annotations

import io
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.table import Table

from hpsearch.bridge.protocol import Progress
from hpsearch.cli import options
from hpsearch.cli.options import telling
from hpsearch.spec.metrics import LOSS
from hpsearch.watch.console import open_console, print_table
from hpsearch.watch.training import TrainingDisplay
from hpsearch.watch.words import format_steps
from tests.unit.view_fixtures import lines_of, plain_console


def terminal(width: int = 40) -> Console:
    return open_console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def test_a_terminal_wraps_between_words_and_tears_no_path() -> None:
    console, path = terminal(), f"/a/{'long/' * 12}path"
    console.print(f"the same command continues it, and nothing is lost: {path}", soft_wrap=True)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == ["the same command continues it, and", "nothing is lost:", path]


def test_on_a_pipe_a_line_stays_a_line() -> None:
    console = open_console(file=io.StringIO(), width=40)
    console.print("word " * 20, soft_wrap=True)
    assert len(console.file.getvalue().splitlines()) == 1  # type: ignore[attr-defined]


def test_on_a_pipe_a_table_has_its_natural_width() -> None:
    table = Table("most frequent answer", "x " * 30, box=None)
    table.add_row("a", "b")
    narrow, pipe = terminal(), open_console(file=io.StringIO(), width=40)
    for console in (narrow, pipe):
        print_table(console, table)
    whole = [console.file.getvalue().count("most frequent answer") for console in (narrow, pipe)]  # type: ignore[attr-defined]
    assert whole == [0, 1]
    lines = pipe.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) < 100
    assert [line for line in lines if line.endswith(" ")] == []


def test_next_steps_have_their_words_below_where_a_line_has_no_room() -> None:
    steps = {"hpsearch best demo -o best.yaml": "the best parameters"}
    assert format_steps(steps, 80) == format_steps(steps)
    assert format_steps(steps, 40).splitlines()[1:] == [f"  {next(iter(steps))}", "      the best parameters"]


def test_the_bar_of_the_final_training_is_gone_at_its_end() -> None:
    console = terminal(100)
    with TrainingDisplay(console, [LOSS]) as display:
        display.tell("giving memory back", 0, 180)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.rpartition("giving memory back")[2].endswith("\x1b[1A\x1b[2K"), "the line is erased"


def test_a_notebooks_cell_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing moves in it, though Jupyter asks for colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Console(file=io.StringIO()).is_terminal  # else our own look at the file is no longer needed
    assert not open_console(file=io.StringIO()).is_terminal
    assert not open_console(stderr=True).is_terminal


def test_on_a_pipe_a_phase_is_told_once_and_again_only_while_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 100))
    monkeypatch.setattr(options, "time", SimpleNamespace(monotonic=lambda: next(now)))
    console = plain_console()

    def show() -> None:
        with telling(console) as tell:
            for done in (0, 0, 0, 1, 1):
                tell("starting" if done == 0 else "counting", done, 2)
            tell("counting", 2, 2)

    assert lines_of(console, show) == ["starting", "counting 1/2", "counting 2/2"]


def test_on_a_pipe_phases_that_take_turns_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement trains, saves and validates, several times in a few seconds."""
    monkeypatch.setattr(options, "time", SimpleNamespace(monotonic=lambda: 100.0))
    console = plain_console()

    def show() -> None:
        with telling(console) as tell:
            for done in range(1, 4):
                tell("training", done, 3)
                tell("validating", 0, 0)

    assert lines_of(console, show) == ["training 1/3", "validating"]


def lines_after_a_complete_phase(is_training: bool, name: str, done: int, total: int) -> list[str]:
    """What a terminal shows of a phase, in all of its pictures, after one that counted to its end."""
    console = terminal(100)
    with ExitStack() as stack:
        display = stack.enter_context(TrainingDisplay(console, [LOSS])) if is_training else None
        tell = display.tell if display else stack.enter_context(telling(console))
        tell("reading rows", 1797, 1797)
        tell(name, done, total)
    lines = console.file.getvalue().replace("\r", "\n").splitlines()  # type: ignore[attr-defined]
    shown = [line for line in lines if name in line]
    assert shown
    return shown


@pytest.mark.parametrize("is_training", [False, True])
def test_a_phase_without_a_count_shows_none_and_not_that_of_the_phase_before(is_training: bool) -> None:
    shown = lines_after_a_complete_phase(is_training, "starting the trainer", 0, 0)
    assert not any("/" in line for line in shown)


@pytest.mark.parametrize("is_training", [False, True])
def test_a_phase_after_one_that_is_complete_is_not_shown_as_complete(is_training: bool) -> None:
    """Neither does its clock stand still, nor has it no seconds left."""
    shown = lines_after_a_complete_phase(is_training, "counting tokens", 1, 1000)
    assert all("-:--:--" in line if is_training else "⠋" in line for line in shown)


def test_the_bar_of_a_training_counts_its_steps() -> None:
    console = terminal(100)
    with TrainingDisplay(console, [LOSS]) as display:
        display.tell("reading rows", 0, 1797)
        display.watch(Progress(step=3, num_steps=9, loss=0.5))
    shown = [line for line in console.file.getvalue().replace("\r", "\n").splitlines() if "training" in line]  # type: ignore[attr-defined]
    assert shown
    assert all("3/9" in line for line in shown)
