"""Thread pools that libraries start at their first large piece of work and keep, with one thread per core.

They are started before the memory ledger counts. Otherwise, on machines with more cores than the ledger's tolerance,
the first trial would seem to leave them behind, and every trial would need a new process.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

_NUM_PER_THREAD = 2**16
"""Elements. torch gives each thread at least 32,768 (2.15, aten/src/ATen/TensorIterator.h, `GRAIN_SIZE`)."""


def start_pools(processor: Any) -> None:
    """Starts torch's threads for work within an operation, autograd's for the device, and those of tokenizers (Rust's
    rayon).

    Calls the image processor as well, for the threads that it starts and the constants that it caches.
    """
    torch.ones(_NUM_PER_THREAD * torch.get_num_threads()).sqrt()
    weight = torch.ones(8, requires_grad=True, device="cuda" if torch.cuda.is_available() else "cpu")
    weight.sum().backward()
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer(["one", "two"])  # a single text is encoded without threads
    if (image_processor := getattr(processor, "image_processor", None)) is not None:
        image_processor(Image.new("RGB", (64, 64)), return_tensors="pt")
