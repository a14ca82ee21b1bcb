"""`--notify`: a command of the user's that is called when a study ends, pauses or stops: mail, chat, anything.

    finished   all of its trials have ended                              about the study: of all processes that were
    paused     no trial begins, until hpsearch resume                    given --notify, on all machines, one calls
    limit      it has reached one of search.limits
    stopped    by Ctrl-C, a signal, or hpsearch stop                     about one hpsearch run: each calls
    failed     its workers kept failing, or the store stayed away

At most once: a process that is killed between its claim and its call notifies nobody. The command's result is logged
and changes nothing. The command is given to `sh -c` as it was written; our text reaches it only in variables and on
standard input, so nothing in it is ever read as a command.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Literal

from hpsearch.errors import HpsearchError, InputError, StoreUnreachable, cut
from hpsearch.search.view import StudyView
from hpsearch.store import Store
from hpsearch.store.engine import holds_secret
from hpsearch.watch.closing import closing_words

Event = Literal["finished", "paused", "limit", "stopped", "failed"]

DEADLINE_S = 30.0
"""SLURM and Kubernetes leave as much between asking a process to end and killing it."""
_OF_THE_STUDY = ("finished", "paused", "limit")
_SECRETS = ("HPSEARCH_DASHBOARD_TOKEN",)
_MOST_LINES = 40
_LONGEST_LINE = 1000
"""A variable holds 128 KiB at most (execve(2), MAX_ARG_STRLEN), and nobody reads so much."""


@dataclass(frozen=True)
class Notice:
    """The content of a notification about a study, from its `view`."""

    event: Event
    message: str
    view: StudyView

    def variables(self) -> dict[str, str]:
        view, best = self.view, self.view.best
        return {
            "HPSEARCH_STUDY": view.study.name,
            "HPSEARCH_EVENT": self.event,
            "HPSEARCH_MESSAGE": self.message,
            "HPSEARCH_HOST": socket.gethostname(),
            "HPSEARCH_TRIALS_FINISHED": str(view.slots.finished),
            "HPSEARCH_TRIALS_WANTED": str(view.slots.wanted),
            "HPSEARCH_OBJECTIVE": view.objective.name,
            "HPSEARCH_BEST_VALUE": "" if best is None else repr(best.value),
            "HPSEARCH_BEST_TRIAL": "" if best is None else str(best.number),
        }


@contextmanager
def notifying(
    command: str | None,
    store: Store,
    view: StudyView,
    read: Callable[[], StudyView],
    say: Callable[[str], None],
    *,
    is_one_of_many: bool = False,
) -> Iterator[None]:
    """Wraps work on a study. At its end `command` is called with the outcome; None: no notification.

    `view` is the study before the work, `read` returns it afterwards, and `say` reports how the command went.
    `is_one_of_many`: a worker, whose own end is not reported, only the study's.

    Raises:
        InputError: the command is empty.
    """
    if command is None:
        yield
        return
    if not command.strip():
        raise InputError("--notify: expected a command, as in --notify 'mail -s \"$HPSEARCH_STUDY\" me@lab'")
    if not (view.is_finished or view.study.paused or view.reached_limit):
        with suppress(StoreUnreachable), store.reaching():
            store.claims.give_up(view.study.study_id)
    try:
        yield
    except HpsearchError as error:
        if not isinstance(error, StoreUnreachable):
            view = _read_or(view, read)
        _tell(command, store, notice_of(view, str(error)), say, is_one_of_many)
        raise
    _tell(command, store, notice_of(_read_or(view, read)), say, is_one_of_many)


def notice_of(view: StudyView, failure: str | None = None) -> Notice:
    """The notification after a process has stopped working on a study; `failure`: because of an error."""
    name, paused = view.study.name, view.study.paused
    if view.is_finished:
        return Notice("finished", _tidy(closing_words(view)), view)
    if paused is not None:
        message = f"{name} is paused: {paused}\nhpsearch resume {name} lets trials start again"
        return Notice("paused", _tidy(message), view)
    if failure is not None:
        return Notice("failed", _tidy(failure), view)
    return Notice("limit" if view.reached_limit else "stopped", _tidy(closing_words(view)), view)


def _read_or(view: StudyView, read: Callable[[], StudyView]) -> StudyView:
    with suppress(StoreUnreachable):
        return read()
    return view


def _tell(command: str, store: Store, notice: Notice, say: Callable[[str], None], is_one_of_many: bool) -> None:
    if is_one_of_many and notice.event not in _OF_THE_STUDY:
        return
    is_ours = notice.event not in _OF_THE_STUDY or _take(store, notice)
    became = _call(command, notice) if is_ours else "another process sends it"
    say(f"--notify: {became} ({notice.event})")


def _take(store: Store, notice: Notice) -> bool:
    """Claims the notification. If the store can't be reached, it is sent: better twice than never."""
    try:
        with store.reaching():
            return store.claims.take(notice.view.study.study_id, notice.event)
    except StoreUnreachable:
        return True


def _call(command: str, notice: Notice) -> str:
    """Returns how the command went. Its output goes to files, so that a command with a background process, or one that
    reads no input, blocks nothing.
    """
    with TemporaryFile() as message, TemporaryFile() as output:
        message.write(f"{notice.message}\n".encode(errors="replace"))
        message.seek(0)
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=message,
                stdout=output,
                stderr=output,
                env=_environment() | notice.variables(),
                start_new_session=True,  # Ctrl-C is for this process; and its children can be ended
            )
        except OSError as error:
            return f"the command can't be started: {error.strerror}"
        try:
            code = process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"the command did not end within {DEADLINE_S:g} s and was killed"
        if code == 0:
            return "sent"
        output.seek(0)
        lines = output.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    how = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
    return f"the command {how}: {cut(last, 300)}"


def _environment() -> dict[str, str]:
    """The person's own, without what only hpsearch needs: a store's password, the dashboard's token."""
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    if holds_secret(kept.get("HPSEARCH_STORE", "")):
        del kept["HPSEARCH_STORE"]
    return kept


def _tidy(text: str) -> str:
    """Lines without characters that break a terminal, a variable or a mail."""
    lines = text.split("\n")
    left_out = [f"… and {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
    return "\n".join(cut(line, _LONGEST_LINE) for line in [*lines[:_MOST_LINES], *left_out])
