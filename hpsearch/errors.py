"""Every error that a person may see, and its exit code.

    HpsearchError            1  something failed; the message says what and where to look
    ├── TrainerDied          1  the training process ended without a result
    │   └── BrokenMessage    1  it said what is no message; nothing more that it says is believed
    ├── TrainingFailed       1  the training process reported a failure, with its traceback in a log
    ├── StoreUnreachable     1  the database did not answer
    ├── LeaseLost            1  another worker owns this trial now; nothing more may be written
    ├── TrialEnded           1  somebody ended this trial from outside, in the dashboard or with Optuna
    ├── Interrupted        130  a person or a scheduler asked to stop before there was anything to save
    ├── NothingToDraw        1  there is no such picture yet; the message stands in its place
    ├── UnreadableFile       1  a file in a folder of ours is broken, or of another version
    └── InputError           2  the person's input; the message says what was found and what to write instead
        ├── NoStoreYet       2  there is no store to look at; the message says how one is made
        ├── FieldError       2  about one field, found after the file was read; becomes a StudyFileErrors
        └── StudyFileErrors  2  every mistake of one study file, each with its line

A message is for the reader: what was asked, what was found, what to do.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

_MOST_SHOWN = 50
"""Most mistakes shown for one file: a wrong file has thousands, and the first ones show that."""


EXIT_CODES = {
    0: "Success. A worker: all trials of the study are done, or it has reached its limit.",
    1: "Something failed; the message says what, and where to look.",
    2: "Wrong input: a study file, an option or a name; the message says what was found and what to write instead.",
    3: "A worker ended before the study: the study is paused, or the device is set aside. A person has to look first.",
    130: "A person or a scheduler asked to stop (Ctrl-C, SIGTERM, `hpsearch stop`). The same command continues.",
}
"""Exit codes, for people; each error below has its own."""


class HpsearchError(Exception):
    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of its own traceback (IPython 9, core/interactiveshell.py, `showtraceback`): the
        person's own lines, and the message.
        """
        here = Path(__file__).parent
        frames = traceback.extract_tb(self.__traceback__)
        before = takewhile(lambda frame: here not in Path(frame.filename).parents, frames)
        own = [frame for frame in before if "IPython" not in Path(frame.filename).parts]
        return [*"".join(traceback.format_list(own)).splitlines(), f"{type(self).__name__}: {self}"]


class TrainerDied(HpsearchError):
    """The training process ended without a result.

    `how` is the same text for the same kind of death. `is_kill`: by a signal from outside. `is_hang`: it was alive, but
    silent for too long.
    """

    def __init__(self, message: str, how: str = "", *, is_kill: bool = False, is_hang: bool = False) -> None:
        super().__init__(message)
        self.how = how or message
        self.is_kill = is_kill
        self.is_hang = is_hang


class BrokenMessage(TrainerDied):
    """A line on the bridge is no valid message: the sender is not trusted any more."""


class TrainingFailed(HpsearchError):
    """The training process reported a failure."""


class StoreUnreachable(HpsearchError):
    """The database did not answer."""


class LeaseLost(HpsearchError):
    """Another worker owns this trial now."""


class TrialEnded(HpsearchError):
    """Somebody ended this trial from outside."""


class Interrupted(HpsearchError):
    """A person or a scheduler requested a stop."""

    exit_code = 130


class NothingToDraw(HpsearchError):
    """There is no such picture yet; the message says why, as a sentence without its full stop."""


class UnreadableFile(HpsearchError):
    """A file that hpsearch wrote can't be read: torn, empty, edited, or of another version."""

    def __init__(self, file: object, reason: str) -> None:
        super().__init__(f"{file}: can't be read: {cut(reason, 300)}")


class InputError(HpsearchError):
    exit_code = 2


class NoStoreYet(InputError):
    """There is no store to read yet."""


class FieldError(InputError):
    """The value of the field `key` (dotted) does not fit the data or the model; `others`: found with it."""

    def __init__(self, key: str, message: str, others: Sequence[FieldError] = ()) -> None:
        self.key = key
        self.message = message
        self.others = others
        super().__init__(f"{key}: {message}")


@dataclass(frozen=True)
class Mistake:
    """One mistake in a study file: `key` is the dotted path, `line` counts from 1 (None: not in the file).
    `is_set`: a `--set` gives the value.
    """

    key: str
    message: str
    line: int | None = None
    is_set: bool = False

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "in --set" if self.is_set else "not in the file"
        return f"{place}: {cut(self.key)}: {self.message}" if self.key else f"{place}: {self.message}"


class StudyFileErrors(InputError):
    """All mistakes of one study file at once."""

    def __init__(self, file: str, mistakes: list[Mistake]) -> None:
        self.file = file
        self.mistakes = sorted(mistakes, key=lambda mistake: mistake.line or 0)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes):,} mistakes"
        shown = [f"  {mistake}" for mistake in self.mistakes[:_MOST_SHOWN]]
        if len(mistakes) > _MOST_SHOWN:
            shown.append(f"  and {len(mistakes) - _MOST_SHOWN:,} more")
        super().__init__("\n".join([f"{file}: {count}", *shown]))


def cut(text: str, most: int = 100) -> str:
    """For a message: at most `most` characters, without terminal control codes."""
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in short)


def or_near(name: str, known: list[str]) -> str:
    """The name in quotes, with the nearest valid one behind it if there is one."""
    near = get_close_matches(name[:100], known, n=1, cutoff=0.6)
    return repr(name) + (f" (did you mean {near[0]!r}?)" if near else "")


def did_you_mean(name: str, known: list[str]) -> str:
    """A clause that names the nearest valid name, or else all of them."""
    near = get_close_matches(name[:100], known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
