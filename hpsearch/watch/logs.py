"""Logs: those of a study's workers and trainers, or of a trial's attempts; read once, or followed like `tail -F`.

Logs hold what libraries printed: of a progress bar only its last state is shown, colours are removed, and other
control characters are spelled out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hpsearch.errors import StoreUnreachable, cut
from hpsearch.worker.endings import CONTINUES
from hpsearch.worker.relay import Relay

_CHUNK_BYTES = 2**20
"""A line without an end is also shown in parts of this size."""
_LONGEST_LINE = 4000
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m|\x1b\[[0-9]*[KG]")
_TRAINER = re.compile(r"trainer-(?P<host>.+)-(?P<pid>\d+)-\d+@.+")

Line = tuple[Path, str]
Find = Callable[[], list[Path]]


class Tail:
    """New lines of a file. A file that is missing may appear; one that got shorter, or was replaced under the same
    name, is read from its start. What was written between the last look and a replacement is not seen.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._which: tuple[int, int] | None = None
        self._read_to = 0
        self._rest = b""

    def lines(self) -> Iterator[str]:
        try:
            with self._file.open("rb") as opened:
                yield from self._beginning_anew(opened.fileno())
                opened.seek(self._read_to)
                while chunk := opened.read(_CHUNK_BYTES):
                    self._read_to += len(chunk)
                    *whole, self._rest = (self._rest + chunk).split(b"\n")
                    yield from map(shown, whole)
                    if len(self._rest) > _CHUNK_BYTES:
                        yield from self.rest()
        except FileNotFoundError:
            return

    def rest(self) -> Iterator[str]:
        """A last line without a newline."""
        if self._rest:
            yield shown(self._rest)
        self._rest = b""

    def _beginning_anew(self, descriptor: int) -> Iterator[str]:
        found = os.fstat(descriptor)
        which = (found.st_dev, found.st_ino)
        if self._which not in (None, which) or found.st_size < self._read_to:
            yield from self.rest()
            self._read_to = 0
        self._which = which


def read_logs(files: Iterable[Path]) -> Iterator[Line]:
    for file in files:
        tail = Tail(file)
        yield from ((file, line) for line in tail.lines())
        yield from ((file, line) for line in tail.rest())


def follow_logs(
    find: Callable[[], list[Path]], is_over: Callable[[], bool], wait: Callable[[], None]
) -> Iterator[Line]:
    """Lines as they are written, of the files that `find` returns, until `is_over`; the last ones may be written a
    moment later.
    """
    tails: dict[Path, Tail] = {}
    ends = 0
    while ends < 2:
        ends += is_over()
        for file in find():
            tail = tails.setdefault(file, Tail(file))
            yield from ((file, line) for line in tail.lines())
        wait()
    for file, tail in tails.items():
        yield from ((file, line) for line in tail.rest())


class Ending:
    """Whether the followed study is over: asks the store repeatedly, on a thread of its own. An outage is reported
    once, and ends nothing.
    """

    def __init__(self, relay: Relay, read: Callable[[], bool], say: Callable[[str], None]) -> None:
        self._relay = relay
        self._read = read
        self._say = say
        self._answer = relay.offer(read)
        self._is_over = self._is_cut_off = False

    def __call__(self) -> bool:
        if not self._is_over and self._relay.is_answered(self._answer, 0.0):
            try:
                self._is_over, self._is_cut_off = self._answer.result(), False
            except StoreUnreachable as error:
                if not self._is_cut_off:
                    self._say(f"{error}; still following the logs")
                self._is_cut_off = True
            self._answer = self._relay.offer(self._read)
        return self._is_over


class Deaths:
    """What workers write into their logs about trainers that died: the lines that are new at each look."""

    def __init__(self, logs: Iterable[Path]) -> None:
        self._tails = [Tail(log) for log in logs]
        self.new()

    def new(self) -> list[str]:
        return [line for tail in self._tails for line in tail.lines() if line.endswith(CONTINUES)]


def shown(line: bytes) -> str:
    text = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
    return cut(_COLOURS.sub("", text).expandtabs(), _LONGEST_LINE)


def name_of(file: Path) -> str:
    """A log's owner: for a trainer, its worker, as named in `hpsearch status`."""
    found = _TRAINER.fullmatch(file.stem)
    return cut(f"trainer {found['host']}:{found['pid']}" if found else file.stem)
