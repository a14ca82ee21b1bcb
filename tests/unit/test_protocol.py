"""The bridge's messages: each survives its line, whatever its numbers and paths hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from hpsearch.bridge.protocol import (
    Began,
    Command,
    Continue,
    Done,
    Event,
    Phase,
    Progress,
    Prune,
    Ready,
    Reported,
    Run,
    Stop,
    read_command,
    read_event,
    to_line,
)
from hpsearch.errors import BrokenMessage
from hpsearch.trial import Record, Report

COMMANDS: list[Record] = [Run(folder=Path("/a b/ü\n/0001")), Continue(), Prune(), Stop()]
EVENTS: list[Record] = [
    Ready(device="CPU, 2 threads"),
    Phase(name="counting\ntokens", done=1, total=2),
    Began(),
    Began(reports=[Report(step=1, loss=0.5), Report(step=2, loss=math.inf, metrics={"rougeL": 0.1})]),
    Progress(step=1, num_steps=9),
    Progress(step=2, num_steps=9, loss=0.1),
    Reported(step=1, num_reports=3, loss=1e-7),
    Reported(step=2, num_reports=3, loss=math.inf),
    Done(clean=False),
]


def kinds(union: object) -> set[type]:
    return set(get_args(get_args(union)[0]))


def test_every_message_is_tried_here() -> None:
    assert {type(message) for message in COMMANDS} == kinds(Command)
    assert {type(message) for message in EVENTS} == kinds(Event)
    named = {message.kind for message in (*COMMANDS, *EVENTS)}  # type: ignore[attr-defined]
    assert len(named) == len(kinds(Command)) + len(kinds(Event)) == 10


@pytest.mark.parametrize("message", COMMANDS, ids=repr)
def test_a_command_survives_its_line(message: Record) -> None:
    line = to_line(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert read_command(line) == message


@pytest.mark.parametrize("message", EVENTS, ids=repr)
def test_an_event_survives_its_line(message: Record) -> None:
    line = to_line(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert read_event(line) == message


def test_a_loss_that_is_no_number_survives_its_line() -> None:
    event = read_event(to_line(Reported(step=1, num_reports=3, loss=math.nan)))
    assert isinstance(event, Reported)
    assert math.isnan(event.loss)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Loading weights: 100%",
        b'{"kind": "run"}',
        b'{"kind": "sing"}',
        b'{"kind": "stop", "why": "tired"}',
        b"{}",
    ],
)
def test_a_line_that_is_no_command_is_refused(line: bytes) -> None:
    with pytest.raises(BrokenMessage):
        read_command(line)


def test_commands_and_events_are_not_taken_for_each_other() -> None:
    with pytest.raises(BrokenMessage):
        read_event(to_line(Prune()))
    with pytest.raises(BrokenMessage):
        read_command(to_line(Done(clean=True)))


def test_a_message_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Done(clean=False).clean = True  # type: ignore[misc]
