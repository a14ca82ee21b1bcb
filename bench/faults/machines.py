"""Machines that fail: every training process dies, hangs, or can't write; at most three trials may be spent on it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optuna.trial import TrialState

from bench.faults import standin
from bench.faults.scene import Scene, noted_stuck, scene, until
from bench.faults.tally import Tally
from hpsearch.worker.endings import NO_MORE_TRIALS

MOST_SPENT = 3
DEATHS = ("is killed", "exits before it is ready", "exits", "is killed before it is ready")
_MNT_DETACH = 2


def bad_machines(url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` machines of which every trainer dies: by turns before it is ready and in its training, by an exit code
    and by SIGKILL; every other one has done two trials before it goes bad."""
    tally = Tally("machine that kills every trainer", store, seed)
    tally.other = {"spent beyond 3": 0, "went on": 0}
    spent = 0
    for number in range(count):
        fault, turns_bad = DEATHS[number % len(DEATHS)], number % (2 * len(DEATHS)) >= len(DEATHS)
        with scene(url, folder / f"{number:03d}", 8) as play, noted_stuck(tally, play):
            if turns_bad:
                _good_for_a_while(play)
            bad = play.start(**{standin.FAULT: fault, standin.FAULT_AT: str(seed + number % 7)})
            until(lambda: not bad.is_alive, what=f"the worker whose trainer {fault} never gives up")  # noqa: B023
            spent += _spent(play, tally, fault, bad.process.exitcode)
            tally.times += 1
            _mended(play, tally)
    tally.notes.append(f"{spent} trials spent by {count} machines")
    return tally


def _good_for_a_while(play: Scene) -> None:
    good = play.start()
    until(lambda: play.slots_finished >= 2)
    good.signal_group(15)
    until(lambda: not good.is_alive)
    play.members.remove(good)


def _spent(play: Scene, tally: Tally, fault: str, code: int | None) -> int:
    """How many trials; the worker must have stopped, and the study be paused."""
    failed = [trial for trial in play.trials if trial.state is TrialState.FAIL]
    if len(failed) > MOST_SPENT:
        tally.other["spent beyond 3"] += len(failed) - MOST_SPENT
    if code != NO_MORE_TRIALS or play.store.studies.why_paused(play.study.study_id) is None:
        tally.other["went on"] += 1
        tally.notes.append(f"its trainer {fault}: exit code {code}, {len(failed)} trials failed")
    return len(failed)


def _mended(play: Scene, tally: Tally) -> None:
    """The machine is repaired: `hpsearch retry`, and a worker; then the study has all of its trials."""
    failed = [trial for trial in play.trials if trial.state is TrialState.FAIL]
    play.store.orders.reopen(play.study.study_id, [trial._trial_id for trial in failed])
    play.store.orders.resume(play.study.study_id, 0)
    play.start()
    play.wait_for_all()
    tally.dead += play.members[-1].process.exitcode != 0
    play.verdict(tally)


def hung(url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` trials whose first trainer hangs and reacts to nothing (SIGSTOP); it may be silent for 1.2 s."""
    tally = Tally("trainer that hangs", store, seed)
    silence = {"training_minutes": 0.02}
    environment = {standin.FAULT: "hangs", standin.FAULT_AT: str(5 + seed % 7)}
    with scene(url, folder, count, environment, silence=silence) as play, noted_stuck(tally, play):
        for _ in range(3):
            play.start()
        play.wait_for_all()
        tally.times += sum(slot.attempt > 1 for slot in play.slots)
        tally.dead += sum(member.process.exitcode != 0 for member in play.everyone)
        play.verdict(tally)
    return tally


def full_disks(url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` times the disk of the trials is full, or by turns can only be read, from the start or from some moment.

    The devices are set aside, the study pauses, and no trial is spent. The disk is a file system of its own: for root.
    """
    tally = Tally("disk full, or only to be read", store, seed)
    tally.other = {"spent": 0, "went on": 0}
    for number in range(count):
        with scene(url, folder / f"{number:03d}", 4) as play, noted_stuck(tally, play):
            trials = play.storage.path / "trials"
            trials.mkdir(parents=True)
            with small_disk(trials) as disk:
                _write_no_more(play, disk, is_full=number % 2 == 0, from_the_start=number % 4 >= 2)
                codes = [member.process.exitcode for member in play.everyone]
                tally.other["went on"] += any(code != NO_MORE_TRIALS for code in codes)
                tally.other["spent"] += sum(trial.state is TrialState.FAIL for trial in play.trials)
                disk.mend()
                tally.times += 1
                _mended(play, tally)
    return tally


def _write_no_more(play: Scene, disk: SmallDisk, *, is_full: bool, from_the_start: bool) -> None:
    """Before any worker is there, or while two of them train; returns when both have given up."""
    change = disk.fill if is_full else disk.make_read_only
    if from_the_start:
        change()
    for _ in range(2):
        play.start()
    if not from_the_start:
        until(play.attempts_begun, what="nobody begins")
        change()
    until(lambda: not play.alive, what="workers that can't write never give up")


class SmallDisk:
    def __init__(self, place: Path) -> None:
        self._place = place
        self._filling = place / "filling"

    def fill(self) -> None:
        with suppress(OSError), self._filling.open("wb") as filling:
            while True:
                filling.write(b"0" * 4096)
                filling.flush()

    def make_read_only(self) -> None:
        _mount(self._place, "remount,ro")

    def mend(self) -> None:
        _mount(self._place, "remount,rw")
        self._filling.unlink(missing_ok=True)


@contextmanager
def small_disk(place: Path) -> Iterator[SmallDisk]:
    """Raises PermissionError where this process may not mount one."""
    _mount(place, "")
    try:
        yield SmallDisk(place)
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(place), _MNT_DETACH)


_READ_ONLY, _REMOUNT = 1, 32


def _mount(place: Path, how: str) -> None:
    flags = (_REMOUNT if "remount" in how else 0) | (_READ_ONLY if "ro" in how.split(",") else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, b"size=4m"):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(place))
