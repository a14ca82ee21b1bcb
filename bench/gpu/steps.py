"""An optimizer step's time and peak memory with each mechanism alone and with all of them, on every shape.

A step's seconds come from the difference between a trial of many steps and one of few, so that everything around the
steps cancels out; both know what `auto` would find by trying. Peaks are the allocator's, as in the memory ledger.
"""

from __future__ import annotations

from typing import Any

from bench.gpu.figures import Figure
from bench.gpu.place import Place
from bench.gpu.product import flops_per_second
from bench.gpu.shapes import SHAPES, Shape
from bench.gpu.trials import ROWS_PER_STEP, Trials, changed, config_of, trials
from hpsearch.trial import GIB, CacheConfig, TrialConfig, TrialResult

FEW, MORE = 1, 2
PLAIN: dict[str, Any] = {"training__micro_batch": 1, "training__gradient_checkpointing": True, "images": None}
"""The tutorials': one row per forward, everything recomputed, the tower asked each time."""


def measure(place: Place) -> None:
    product = flops_per_second(rehearses=place.rehearses)
    for shape in SHAPES:
        try:
            _of_shape(shape, place, product)
        except Exception as error:
            first_line = str(error).splitlines()[0] if str(error) else ""
            failed = f"not measured: {type(error).__name__}: {first_line}"
            place.show(Figure("steps", f"{shape.name}: a step of {ROWS_PER_STEP} rows", failed))
            if place.rehearses:
                raise


def _of_shape(shape: Shape, place: Place, product: float) -> None:
    config = config_of(shape, place)
    with trials(place.fresh(f"steps-{shape.tiny.removeprefix('tiny:')}")) as running:
        running.run(changed(config, **PLAIN, budget__max_steps=FEW))  # loads the base
        plain_s = None
        for name, changes in mechanisms(shape, place).items():
            seconds, result = _timed(running, changed(config, **changes))
            plain_s = plain_s or seconds
            place.show(_figure(shape, name, seconds, plain_s, result))
        predicted = prediction(result)
        if predicted:
            place.show(Figure("steps", f"{shape.name}: auto's prediction of the peak", predicted, "within 10 %"))
    place.show(_language(shape, config, seconds, product))


def mechanisms(shape: Shape, place: Place) -> dict[str, dict[str, Any]]:
    """Name → what differs from the config; the plain way first, all together last."""
    kept = CacheConfig(folder=place.folder / "features", limit_bytes=4 * GIB) if shape.image_size else None
    plain = PLAIN
    ways = {
        "plain: 1 row per forward, recomputed, from pixels": plain,
        "micro-batch auto alone": plain | {"training__micro_batch": "auto"},
        "no recomputation alone": plain | {"training__gradient_checkpointing": False},
    }
    if kept is not None:
        ways["kept image features alone"] = plain | {"images": kept}
    together = {"training__micro_batch": "auto", "training__gradient_checkpointing": "auto"}
    return ways | {"all together": plain | together | ({"images": kept} if kept is not None else {})}


def _timed(running: Trials, config: TrialConfig) -> tuple[float, TrialResult]:
    """(seconds per step, the longer trial's result). What is found out or kept once is there before both."""
    first = running.run(changed(config, budget__max_steps=FEW))
    if first.fit is not None:
        config = config.model_copy(update={"fits": [first.fit]})
    few = running.run(changed(config, budget__max_steps=FEW))
    many = running.run(changed(config, budget__max_steps=FEW + MORE))
    return (many.train_seconds - few.train_seconds) / MORE, many


def _figure(shape: Shape, name: str, seconds: float, plain_s: float, result: TrialResult) -> Figure:
    peak = result.ledger.peak_device_bytes if result.ledger else 0
    rows = result.fit.rows if result.fit else "?"
    found = f"{seconds:.2f} s, {plain_s / seconds:.1f}×; peak {peak / GIB:.1f} GiB; {rows} rows per forward"
    return Figure("steps", f"{shape.name}, a step of {ROWS_PER_STEP} rows: {name}", found)


def prediction(result: TrialResult) -> str | None:
    """None where nothing was predicted."""
    if result.fit is None or result.fit.predicted_bytes is None or result.ledger is None:
        return None
    predicted, peak = result.fit.predicted_bytes, result.ledger.peak_device_bytes
    error = f"{100 * (predicted / peak - 1):+.0f} %" if peak else "no device"
    return f"{predicted / GIB:.2f} GiB predicted, {peak / GIB:.2f} GiB at the peak: {error}"


def _language(shape: Shape, config: TrialConfig, seconds: float, product: float) -> Figure:
    """The frozen weights take part in a forward and in the backward of activations: 2 FLOPs each per weight and token.

    Recomputation is no achievement and not counted, nor are attention's own products and the head.
    """
    tokens = _tokens_per_row(shape, config)
    flops = 4 * shape.language_weights() * tokens * ROWS_PER_STEP
    rate = flops / seconds
    found = f"{rate / 1e12:,.1f} TFLOP/s, {100 * rate / product:.0f} % of the plain product ({tokens:.0f} tokens a row)"
    return Figure("steps", f"{shape.name}: language part, all together", found, "40 %")


def _tokens_per_row(shape: Shape, config: TrialConfig) -> float:
    from datasets import Dataset
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(config.model.base)
    rows = Dataset.load_from_disk(str(config.train_rows)).select(range(4))
    lengths = []
    for row in rows:
        parts = [{"type": "image"}] if shape.image_size else []
        messages = [
            {"role": m["role"], "content": [*(parts if m["role"] == "user" else []), _text(m["content"])]}
            for m in row["messages"]
        ]
        if shape.image_size:
            text = processor.apply_chat_template(messages, tokenize=False)
            with Image.open(row["images"][0]) as image:
                encoded = processor(text=[text], images=[[image.convert("RGB")]], add_special_tokens=False)
            lengths.append(len(encoded["input_ids"][0]))
        else:
            text = processor.apply_chat_template(row["messages"], tokenize=False)
            lengths.append(len(processor(text, add_special_tokens=False)["input_ids"]))
    return sum(lengths) / len(lengths)


def _text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}
