"""Real out-of-memory errors: torch's allocator is given a small part of the card, and work that can't fit.

A step of too many rows is no such work: it is done in parts. A single row that is too long is, and an adapter that is
too large.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import MIB, Outcome, TrialConfig
from tests.integration.conftest import Driver, changed, hpsearch, text_config

pytestmark = pytest.mark.needs_gpu

LIMIT_BYTES = 512 * MIB
BUDGET_GIB = 1.5
"""Of which CUDA's context has a part."""
TOO_LARGE_A_RANK = 131_072
"""tiny:qwen2 has 4,096 adapter weights for each 1 of it: 2 GiB in float32."""
NUM_ROWS = 256
FEW_ROWS = 2
NUM_WORDS = 300
TOO_MANY_WORDS = 30_000
"""In one row: of float32 activations a row was seen to take 72 KB for each of its two tokens per word, on a CPU."""
QUESTION = "How does it go on?"

ALLOCATES = f"""
import json, torch
from hpsearch.train.failure import failure
needed = []
for num_bytes in ({2 * LIMIT_BYTES}, 2**46):
    try:
        torch.empty(num_bytes, dtype=torch.uint8, device="cuda")
    except RuntimeError as error:
        print(error)
        needed.append(failure(error).bytes_needed)
print(json.dumps(needed))
"""

STUDY = f"""\
study: small_card
task: text-sft
model: {{base: "tiny:qwen2"}}
data: {{source: rows.jsonl, max_tokens: 1024}}
training:
  batch_size: {FEW_ROWS}
  evaluation_batch_size: 2
  gradient_checkpointing: false
lora: {{r: {TOO_LARGE_A_RANK}}}
budget: {{max_steps: 2, reports: 1, memory_gib: {BUDGET_GIB}}}
search:
  trials: 4
  sampler: random
  pruner: none
  space:
    lora.r: [{TOO_LARGE_A_RANK}, 1, 2, 4, 8]
"""


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers that are started now get `LIMIT_BYTES` from torch's allocator, whatever the card has."""
    import torch

    share = LIMIT_BYTES / torch.cuda.get_device_properties(0).total_memory
    settings = f"expandable_segments:True,per_process_memory_fraction:{share:.8f}"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", settings)


def answer(number: int, num_words: int = NUM_WORDS) -> str:
    return " ".join(str((number + word) % 10) for word in range(num_words))


def long_config(folder: Path, num_rows: int, num_words: int) -> TrialConfig:
    """A trial on rows of some two tokens for each word, all of them in one step."""
    rows = [
        Row(
            id=str(number),
            messages=[
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": answer(number, num_words)},
            ],
            images=(),
            group=None,
            label=None,
            split=None,
        )
        for number in range(num_rows)
    ]
    write_rows(rows, folder / "train")
    write_rows(rows[:2], folder / "validation")
    config = text_config((folder / "train", folder / "validation"), budget=BudgetSpec(max_steps=2, reports=1))
    return changed(config, training__batch_size=num_rows, training__evaluation_batch_size=2)


@pytest.mark.usefixtures("small_card")
def test_too_long_a_row_is_an_answer_and_the_next_trainer_is_fine(
    start_driver: Callable[[], Driver], tmp_path: Path
) -> None:
    driver = start_driver()
    result = driver.run(tmp_path / "large", long_config(tmp_path / "long", FEW_ROWS, TOO_MANY_WORDS))
    assert result.outcome is Outcome.OUT_OF_MEMORY, result.reason
    assert result.bytes_needed is not None
    assert result.bytes_needed > LIMIT_BYTES / 2, "what was held is missing"
    assert result.ledger is not None
    assert 0 < result.ledger.peak_allocated_bytes <= LIMIT_BYTES
    assert result.ledger.peak_device_bytes > result.ledger.peak_allocated_bytes, "without CUDA's context"
    assert not driver.was_clean
    driver.process.end()
    driver = start_driver()
    small = driver.run(tmp_path / "small", long_config(tmp_path / "short", FEW_ROWS, NUM_WORDS))
    assert small.outcome is Outcome.COMPLETE, small.reason
    assert driver.was_clean


@pytest.mark.usefixtures("small_card")
def test_a_step_of_too_many_rows_is_done_in_parts(start_driver: Callable[[], Driver], tmp_path: Path) -> None:
    config = changed(long_config(tmp_path, NUM_ROWS, NUM_WORDS), training__micro_batch=NUM_ROWS)
    driver = start_driver()
    result = driver.run(tmp_path / "large", config)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert result.halvings
    assert driver.was_clean, result.ledger


@pytest.mark.usefixtures("small_card")
def test_every_refusal_of_the_allocator_tells_its_bytes() -> None:
    """In a process of its own, for which the small card is set before CUDA starts."""
    ended = subprocess.run([sys.executable, "-c", ALLOCATES], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    needed = json.loads(ended.stdout.splitlines()[-1])
    assert len(needed) == 2
    assert all(bytes_needed and bytes_needed >= LIMIT_BYTES for bytes_needed in needed), ended.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("small_card")
def test_a_search_prunes_it_with_the_bytes_needed_and_goes_on(workplace: Path) -> None:
    rows = [{"question": f"{QUESTION} {number}", "answer": answer(number)} for number in range(2 * NUM_ROWS)]
    (workplace / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (workplace / "study.yaml").write_text(STUDY)
    code, said = hpsearch("run", "study.yaml")
    assert code == 0, said
    trials = optuna.load_study(study_name="small_card", storage="sqlite:///storage/hpsearch.db").trials
    large = [trial for trial in trials if trial.params["lora.r"] == TOO_LARGE_A_RANK]
    small = [trial for trial in trials if trial not in large]
    assert large[0] is trials[0], "the file's own values come first"
    assert small, "every trial was too large: take another seed"
    assert {trial.state for trial in large} == {TrialState.PRUNED}, said
    assert {trial.state for trial in small} == {TrialState.COMPLETE}, said
    for trial in large:
        assert trial.user_attrs["outcome"] == Outcome.OUT_OF_MEMORY
        assert trial.user_attrs["bytes_needed"] > 2**29
        assert all(violation > 0 for violation in trial.constraints.values())
        assert trial.constraints
    for trial in small:
        assert all(violation <= 0 for violation in trial.constraints.values())
