"""A stand-in for the trainer: `python -m bench.faults.standin COMMANDS EVENTS`, a real process without torch.

It speaks the trainer's protocol, keeps the trainer's files in the attempt's folder and writes nowhere else. Losses are
a function of the trial, its learning rate and the report, so that each report can be checked. Which process wrote what
can be checked, too: its pid is in the diary when an attempt begins, and in everything that it writes.

The environment says how it fails: STANDIN_FAULT is one of `FAULTS`, STANDIN_FAULT_AT the first optimizer step of it.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from hpsearch.bridge.protocol import Began, Done, Progress, Ready, Reported
from hpsearch.folders import JobFolder, write_text
from hpsearch.train.channel import Channel
from hpsearch.trial import HistoryPoint, Outcome, Report, TrialConfig, TrialResult

DIARY = "STANDIN_DIARY"
"""Names the file of all attempts that stand-ins began: `pid pid-of-worker folder` on each line."""
FAULT, FAULT_AT = "STANDIN_FAULT", "STANDIN_FAULT_AT"
FAULT_WHILE = "STANDIN_FAULT_WHILE"
"""Names a file; where it is given the fault lasts while that file is there."""
FAULTS = ("exits before it is ready", "is killed before it is ready", "exits", "is killed", "hangs")
"""`hangs` only in a trial's first attempt; the others always."""
STEP_S = "STANDIN_STEP_S"
SAVE_EVERY = 2
_PR_SET_PDEATHSIG = 1


def loss_of(number: int, learning_rate: float, report: int) -> float:
    return 1 / (report + 1) + number / 7 + learning_rate


def expected_reports(number: int, learning_rate: float, num_reports: int) -> dict[int, float]:
    return {report: loss_of(number, learning_rate, report) for report in range(1, num_reports + 1)}


def main() -> None:
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker handles them
    commands, events = (int(number) for number in sys.argv[1:3])
    _fail_where_asked("exits before it is ready", "is killed before it is ready")
    channel = Channel(os.fdopen(commands, "rb"), os.fdopen(events, "wb"))
    channel.send(Ready(device="stand-in"))
    while True:
        training = Training(JobFolder(channel.next_job().folder), channel)
        try:
            training.write_result(training.run())
        except OSError as error:
            print(f"{training.folder.path} can't be written to: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(1)
        channel.send(Done(clean=True))


class Training:
    """One attempt at a trial."""

    def __init__(self, folder: JobFolder, channel: Channel) -> None:
        self.folder = folder
        self._channel = channel
        job = folder.job()
        assert isinstance(job, TrialConfig)
        self._config = job
        self._number = int(job.name.rpartition(" ")[2])
        self._num_steps = job.budget.max_steps or 1
        self._step = 0
        self._reports: list[Report] = []

    def run(self) -> Outcome:
        _append(Path(os.environ[DIARY]), f"{os.getpid()} {os.getppid()} {self.folder.path}")
        self._continue()
        write_text(self.folder.journal, "".join(f"{report.model_dump_json()}\n" for report in self._reports))
        self._channel.send(Began(reports=self._reports))
        while True:
            if not self._report_where_due():
                return Outcome.PRUNED
            if self._step == self._num_steps:
                return Outcome.COMPLETE
            self._do_step()
            if self._channel.stop_wanted and self._step < self._num_steps:
                self._save()
                return Outcome.STOPPED

    def write_result(self, outcome: Outcome) -> None:
        result = TrialResult(
            outcome=outcome, reports=self._reports, num_steps=self._step, trainable_parameters=os.getpid()
        )
        self.folder.write_result(result)

    def _continue(self) -> None:
        """From the newest checkpoint of the attempts so far."""
        for place in self._config.earlier:
            found = checkpoints(JobFolder(place))
            if found:
                saved = json.loads(found[-1].read_text())
                self._step = saved["step"]
                self._reports = [Report.model_validate(report) for report in saved["reports"]]
                return

    def _do_step(self) -> None:
        time.sleep(float(os.environ.get(STEP_S, "0.02")))
        self._step += 1
        is_first = not self._config.earlier
        _fail_where_asked("exits", "is killed", *(["hangs"] if is_first else []), step=self._step)
        point = HistoryPoint(step=self._step, loss=1 / self._step, learning_rate=os.getpid())
        _append(self.folder.history, point.model_dump_json())
        self._channel.send(Progress(step=self._step, num_steps=self._num_steps, loss=point.loss))
        if self._step % SAVE_EVERY == 0:
            self._save()

    def _report_where_due(self) -> bool:
        """Whether the trial goes on."""
        number, num_reports = len(self._reports) + 1, self._config.budget.reports
        if number > num_reports or self._step < math.ceil(self._num_steps * number / num_reports):
            return True
        loss = loss_of(self._number, self._config.training.learning_rate, number)
        self._reports.append(Report(step=number, loss=loss))
        _append(self.folder.journal, self._reports[-1].model_dump_json(), is_synced=True)
        goes_on = self._channel.report(Reported(step=number, num_reports=num_reports, loss=loss))
        return goes_on or self._step == self._num_steps

    def _save(self) -> None:
        """The last two are kept."""
        self.folder.checkpoints.mkdir(exist_ok=True)
        saved = {"step": self._step, "reports": [report.model_dump() for report in self._reports], "pid": os.getpid()}
        write_text(self.folder.checkpoints / f"checkpoint-{self._step:06d}.json", json.dumps(saved))
        for old in checkpoints(self.folder)[:-2]:
            old.unlink()


def checkpoints(folder: JobFolder) -> list[Path]:
    """The newest last."""
    return sorted(folder.checkpoints.glob("checkpoint-*.json"))


def writers(folder: JobFolder) -> set[int]:
    """The pids in what was written to an attempt's folder."""
    found = {int(point.learning_rate) for point in folder.read_history()}
    found |= {json.loads(file.read_text())["pid"] for file in checkpoints(folder)}
    result = folder.result_if_whole()
    return found if result is None else found | {result.trainable_parameters}


def _append(file: Path, line: str, *, is_synced: bool = False) -> None:
    """In one call, so that no kill tears it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
        if is_synced:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fail_where_asked(*ways: str, step: int | None = None) -> None:
    fault = os.environ.get(FAULT)
    if fault not in ways or (step is not None and step < int(os.environ.get(FAULT_AT, "0"))):
        return
    if FAULT_WHILE in os.environ and not Path(os.environ[FAULT_WHILE]).exists():
        return
    match fault:
        case "hangs":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "is killed" | "is killed before it is ready":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            _leave()


def _leave() -> NoReturn:
    print("symbol lookup error: undefined symbol: cuInit", file=sys.stderr, flush=True)
    os._exit(127)


def _die_with_parent() -> None:
    """The kernel kills this process when its worker ends (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)


if __name__ == "__main__":
    main()
