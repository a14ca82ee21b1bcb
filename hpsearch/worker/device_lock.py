"""The lock on a device: one worker holds it, and the kernel releases it when the last process that holds it is dead.

It is a Unix socket with an abstract name, `hpsearch-device-UUID`. A second bind to the name is refused for everyone:
another study, another storage folder, another user. There is no lock file, so nothing is left behind, nothing is
deleted while it is held (as in /tmp, after a time), and no folder has to be writable by all; SLURM may give each job
its own /tmp. It doesn't work between containers with separate networks, which is Docker's default: give each of those
its own card.

The trainer inherits the socket (`file_descriptors`): as long as it runs, its device is not free, even if its worker
was killed.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from hpsearch.bridge.cards import PARTS_VARIABLE, Device
from hpsearch.trial import MOST_PER_DEVICE

_BACKLOG = 4096
"""Processes that ask who holds a device stay in this queue: nothing accepts them. When it is full, further ones get no
answer.
"""
_WORDS = 80


class HeldDevice:
    """A device while it is held; CPU places need no lock."""

    def __init__(self, device: Device, lock: socket.socket | None) -> None:
        self.device = device
        self._lock = lock

    @property
    def environment(self) -> dict[str, str]:
        """The environment with which a trainer sees this device and no other."""
        if self.device.is_cpu:
            return {}
        parts = {PARTS_VARIABLE: str(self.device.parts)} if self.device.parts > 1 else {}
        return {"CUDA_VISIBLE_DEVICES": self.device.uuid} | parts

    @property
    def file_descriptors(self) -> tuple[int, ...]:
        """For `pass_fds` of the trainer: it holds the device as long as it lives."""
        return () if self._lock is None else (self._lock.fileno(),)

    def release(self) -> None:
        """Trainers that are still alive keep holding it."""
        if self._lock is not None:
            self._lock.close()


def hold(device: Device) -> HeldDevice | None:
    """Holds it for this process; None when another process does.

    A process that holds the whole card, or the card divided into another number of parts, conflicts as well. If two ask
    for conflicting divisions at the same moment, both may be refused.
    """
    if device.is_cpu:
        return HeldDevice(device, None)
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(_name(device))
        lock.listen(_BACKLOG)  # from here on, a process that connects learns this process's id
    except OSError as error:
        lock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    if any(_holder(other) for other in _in_the_way(device)):
        lock.close()
        return None
    return HeldDevice(device, lock)


def holder_of(device: Device) -> str | None:
    """The process that holds it, as text; None when it is free. Takes no lock."""
    if device.is_cpu:
        return None
    holders = (_holder(each) for each in (device, *_in_the_way(device)))
    return next((holder for holder in holders if holder is not None), None)


def _in_the_way(device: Device) -> Iterator[Device]:
    """The same card, divided differently."""
    for parts in range(1, MOST_PER_DEVICE + 1):
        if parts != device.parts:
            yield from (replace(device, part=part, parts=parts) for part in range(1, parts + 1))


def _holder(device: Device) -> str | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(_name(device))
        except ConnectionRefusedError:
            return None
        except BlockingIOError:
            return "an unknown process"
        whole = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, user_id, _ = struct.unpack("3i", whole)
    return _told(pid, user_id)


def _name(device: Device) -> str:
    part = f"-{device.part}-of-{device.parts}" if device.parts > 1 else ""
    return f"\0hpsearch-device-{device.uuid}{part}"


def _told(pid: int, user_id: int) -> str:
    if pid == 0:
        return "a process of another container"
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(pid)
        of_whom = "" if user_id == os.getuid() else f" of {process.username()}"
        return f"process {pid}{of_whom} ({_command(process)})"
    except psutil.NoSuchProcess:
        return f"the trainer of process {pid}, whose worker is gone"
    except psutil.AccessDenied:
        return f"process {pid}"


def _command(process: psutil.Process) -> str:
    """`hpsearch worker study.yaml`, without the interpreter."""
    words = process.cmdline()
    names = [Path(word).name for word in words]
    start = names.index("hpsearch") + 1 if "hpsearch" in names else None
    command = " ".join(["hpsearch", *words[start:]]) if start is not None else process.name()
    return command if len(command) <= _WORDS else command[: _WORDS - 1] + "…"
