"""Out of memory for real: more rows per forward than the study's memory budget lets the allocator have."""

from __future__ import annotations

from bench.gpu.figures import Figure
from bench.gpu.place import Place
from bench.gpu.shapes import QWEN_2_5_HALF_B
from bench.gpu.trials import changed, config_of, trials
from hpsearch.trial import GIB

ROWS = 32


def measure(place: Place) -> None:
    config = changed(config_of(QWEN_2_5_HALF_B, place), training__gradient_checkpointing=False, budget__max_steps=1)
    with trials(place.fresh("oom")) as running:
        one = running.run(changed(config, training__batch_size=1))
        assert one.ledger is not None
        held = one.ledger.peak_device_bytes + beside_bytes(running.device_bytes(), one.ledger.after)
        budget = None if place.rehearses else 1.2 * held / GIB
        big = changed(config, training__batch_size=ROWS, training__micro_batch=ROWS, budget__memory_gib=budget)
        result = running.run(big)
    what = f"{QWEN_2_5_HALF_B.name}: {ROWS} rows in one forward, with memory for little more than one"
    tried = " → ".join(map(str, [*result.halvings, result.fit.rows if result.fit else "?"]))
    found = f"{result.outcome}, rows per forward: {tried}" if result.halvings else f"{result.outcome}: {result.reason}"
    place.show(Figure("oom", what, found, "the trial goes on in smaller parts"))


def beside_bytes(witnessed: int | None, after: object) -> int:
    """What the context takes beside torch's tensors; half a GiB if NVML does not say."""
    allocated = int(getattr(after, "device_allocated_bytes", 0))
    return max(0, witnessed - allocated) if witnessed else GIB // 2
