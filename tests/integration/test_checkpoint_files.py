"""A checkpoint that somebody else wrote: its content is data, and nothing of it is run."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch.checkpoints import MARKER, last_checkpoint, written_whole
from hpsearch.folders import JobFolder
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.ledger import LedgerBook
from hpsearch.train.loop import run_trial
from hpsearch.trial import Outcome, TrialConfig
from tests.integration.conftest import text_config
from tests.integration.inside import Answering, Inside

FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "adapter_model.bin")


class Planted:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


@pytest.fixture(scope="module")
def config(text_rows: tuple[Path, Path]) -> TrialConfig:
    return text_config(text_rows, budget=BudgetSpec(max_steps=4, reports=2))


@pytest.fixture(scope="module")
def stopped(inside: Inside, config: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial's folder with a checkpoint of its second step."""
    folder = tmp_path_factory.mktemp("stopped") / "trial"
    assert inside.run(folder, config, stops_after=1).outcome is Outcome.STOPPED
    return folder


@pytest.mark.parametrize("as_torch_file", [True, False], ids=["torch", "plain"])
@pytest.mark.parametrize("name", FILES)
def test_a_pickle_in_a_checkpoint_is_not_run(
    name: str, as_torch_file: bool, inside: Inside, config: TrialConfig, stopped: Path, tmp_path: Path
) -> None:
    folder, was_here = JobFolder(tmp_path / "trial"), tmp_path / "was here"
    shutil.copytree(stopped, folder.path)
    checkpoint = last_checkpoint(folder)
    assert checkpoint is not None
    with written_whole(checkpoint) as draft:  # who can write a checkpoint can seal one, too
        shutil.copytree(checkpoint, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MARKER))
        if name == "adapter_model.bin":
            (draft / "adapter_model.safetensors").unlink()
        else:
            assert (draft / name).is_file(), "transformers names it otherwise by now"
        if as_torch_file:
            torch.save(Planted(was_here), draft / name)
        else:
            (draft / name).write_bytes(pickle.dumps(Planted(was_here)))
    planted = (checkpoint / name).read_bytes()
    result = run_trial(config, folder, inside.bases, LedgerBook(), Answering(lambda _: True, lambda _: False))
    assert not was_here.exists()
    assert result.outcome in (Outcome.COMPLETE, Outcome.FAILED)
    (tmp_path / "again").write_bytes(planted)
    torch.load(tmp_path / "again", weights_only=False) if as_torch_file else pickle.loads(planted)
    assert was_here.exists(), "it would have been seen"
