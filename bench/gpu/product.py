"""A plain bf16 product: what this card does when nothing is in its way."""

from __future__ import annotations

import time

from bench.gpu.figures import Figure
from bench.gpu.place import Place

SIZE, TIMES = 8192, 20


def flops_per_second(*, rehearses: bool) -> float:
    import torch

    size, device = (256, "cpu") if rehearses else (SIZE, "cuda")
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        one @ other
    _wait(device)
    started = time.perf_counter()
    for _ in range(TIMES):
        one @ other
    _wait(device)
    return 2 * size**3 * TIMES / (time.perf_counter() - started)


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def measure(place: Place) -> None:
    rate = flops_per_second(rehearses=place.rehearses)
    place.show(Figure("product", f"bf16 product of {SIZE} × {SIZE}", f"{rate / 1e12:,.0f} TFLOP/s"))
