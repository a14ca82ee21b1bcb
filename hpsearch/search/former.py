"""Trials of older versions, in which `batch_size` was the rows per forward, read in today's terms."""

from __future__ import annotations

from typing import Any

from hpsearch.errors import InputError
from hpsearch.spec.study import StudySpec
from hpsearch.spec.training import BATCH_SIZE, FORMER_KNOB
from hpsearch.store import Store


def in_todays_terms(params: dict[str, Any], spec: StudySpec) -> dict[str, Any]:
    """A trial's parameters in today's spec version. If rows per forward were not searched, they are the stored spec's
    micro-batch.
    """
    if FORMER_KNOB not in params:
        return params
    rows = params.get(BATCH_SIZE, spec.training.micro_batch)
    rest = {knob: value for knob, value in params.items() if knob != FORMER_KNOB}
    return rest | {BATCH_SIZE: rows * params[FORMER_KNOB]}


def refuse_former(store: Store, study_id: int, spec: StudySpec) -> None:
    """Raises InputError where the study's trials use the parameters of an earlier spec version: new trials can't be
    compared with them.
    """
    if BATCH_SIZE not in spec.searched.space or spec.training.micro_batch == "auto":
        return
    if any(FORMER_KNOB in trial.params for trial in store.optuna.get_all_trials(study_id, deepcopy=False)):
        raise InputError(
            f"study {spec.study!r} was searched by an older hpsearch, over training.gradient_accumulation_steps. Its "
            "results can be read (status, best, report, train), and no trial added: continue under another name, with "
            f"--set study={spec.study}-2"
        )
