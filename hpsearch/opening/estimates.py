"""An estimate of a study before it begins: measured on a device that is free now, or from earlier measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpsearch.opening.places import storage_folder

if TYPE_CHECKING:
    from hpsearch.bridge.trainer_process import StartTrainer
    from hpsearch.jobs import Tell
    from hpsearch.spec import StudyFile
    from hpsearch.study.estimate import Estimate
    from hpsearch.study.measure import Measurement
    from hpsearch.study.prepare import PreparedStudy
    from hpsearch.worker.device_lock import HeldDevice


def measured_estimate(
    file: StudyFile, prepared: PreparedStudy, on_cpu: StartTrainer, tell: Tell, workers: int | None, per_device: int = 1
) -> Estimate:
    """Measures on a device that is free now; an earlier measurement on such a device is reused. `on_cpu` lends the
    trainer that prepared the study, which is enough for CPU places.

    Raises:
        HpsearchError: no device is free, or the measured steps failed.
    """
    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.study.measure import file_s_own_trial, find_measurement, measure
    from hpsearch.worker.devices import find_devices
    from hpsearch.worker.take_device import take_device

    storage = storage_folder()
    config = file_s_own_trial(file, prepared, storage)
    held = take_device(lambda: find_devices().in_parts(per_device), StopFlag(), lambda _: None, waits=False)
    assert held is not None
    try:
        start = on_cpu if held.device.is_cpu else _starter(held)
        kind = _kind(held.device.name, held.device.parts)
        found = find_measurement(config, prepared, storage, kind)
        found = found or measure(config, prepared, storage, kind, start, tell, file.spec.silence)
    finally:
        held.release()
    return _estimate(file, prepared, found, workers)


def kept_estimate(file: StudyFile, prepared: PreparedStudy) -> Estimate | None:
    """From earlier measurements, on any device."""
    from hpsearch.study.measure import file_s_own_trial, find_measurement

    storage = storage_folder()
    found = find_measurement(file_s_own_trial(file, prepared, storage), prepared, storage)
    return None if found is None else _estimate(file, prepared, found, None)


def _estimate(file: StudyFile, prepared: PreparedStudy, found: Measurement, workers: int | None) -> Estimate:
    """Workers that share a card, or the CPU, are assumed to be no faster together than one."""
    from hpsearch.study.estimate import estimate
    from hpsearch.worker.devices import find_devices
    from hpsearch.worker.take_device import free_devices

    there = max(1, len(free_devices(find_devices())))
    return estimate(file.spec, prepared, found, min(workers or there, there))


def _starter(held: HeldDevice) -> StartTrainer:
    from hpsearch.bridge.trainer_process import TrainerProcess

    log = storage_folder().trainer_log("measuring")
    return lambda: TrainerProcess(log, held.environment, held.file_descriptors)


def _kind(name: str, parts: int) -> str:
    return f"{name}, one of {parts} parts" if parts > 1 else name
