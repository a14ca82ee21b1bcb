"""Trainers outside of a study: on one device that this process holds meanwhile, or on none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpsearch.opening.places import storage_folder

if TYPE_CHECKING:
    from hpsearch.bridge.trainer_process import StartTrainer
    from hpsearch.worker.device_lock import HeldDevice


def trainer_starter(name: str, storage: str | None = None, held: list[HeldDevice] | None = None) -> StartTrainer:
    """Starts trainers on one device, which this process holds from the first one on; their output goes to a log of that
    name. The device is added to `held`.

    Starting raises HpsearchError where no device is free, with the holder of each.
    """
    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.bridge.trainer_process import TrainerProcess
    from hpsearch.worker.devices import find_devices
    from hpsearch.worker.take_device import take_device

    log = storage_folder(storage).trainer_log(name)
    held = [] if held is None else held

    def start() -> TrainerProcess:
        if not held and (taken := take_device(find_devices, StopFlag(), lambda _: None, waits=False)):
            held.append(taken)
        return TrainerProcess(log, held[0].environment, held[0].file_descriptors)

    return start


@contextmanager
def kept_trainer(name: str, storage: str | None = None) -> Iterator[StartTrainer]:
    """One trainer for every job; at the end its device is released. It starts with the first job."""
    from hpsearch.bridge.trainer_process import one_trainer

    held: list[HeldDevice] = []
    try:
        with one_trainer(trainer_starter(name, storage, held)) as lend:
            yield lend
    finally:
        for device in held:
            device.release()


def plain_starter(name: str, environment: dict[str, str] | None = None) -> StartTrainer:
    """Starts trainers that hold no device."""
    from hpsearch.bridge.trainer_process import TrainerProcess

    log = storage_folder().trainer_log(name)
    return lambda: TrainerProcess(log, environment)


def inspector() -> StartTrainer:
    """Starts trainers that inspect rows and bases, on the CPU: devices are for workers."""
    return plain_starter("inspection", {"CUDA_VISIBLE_DEVICES": ""})
