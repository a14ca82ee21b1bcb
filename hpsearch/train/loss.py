"""The validation loss: one definition for trials, the final run and evaluations, in bounded memory.

Logits are by far the largest tensor of a validation: with Gemma 3's vocabulary of 262,208 they take 1 MiB per learned
token in float32. So the decoder runs once, and its hidden states are projected onto the vocabulary in slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from hpsearch.errors import FieldError
from hpsearch.train.encoding import IGNORED, Batch

SLICE_BYTES = 64 * 2**20
"""Bytes of a slice's logits in float32, for any batch. About three copies exist while the loss is computed."""


@torch.no_grad()
def token_losses(model: Any, batch: Batch, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood in nats of each row's learned tokens, summed, and their number; both of shape (rows,), on
    the CPU. `batch` has `labels` of shape (rows, tokens), which are shifted by one here: the prediction at a position
    is compared with the next token.

    Hidden states are projected onto the vocabulary only where the next token is learned. The result differs from a
    projection of the whole batch by float32 rounding: the order of summation in a matrix product depends on the shapes.
    `dtype` is the compute dtype of the study.

    Raises:
        FieldError: a model whose decoder is not where transformers says.
    """
    device = model.device
    inputs = on_device(batch, device)
    wanted = batch["labels"][:, 1:].to(device)
    is_learned = wanted != IGNORED
    num_positions = max(1, SLICE_BYTES // (4 * model.config.get_text_config().vocab_size))
    losses = torch.zeros(wanted.shape, dtype=torch.float32, device=device)
    found = []
    with mixed_precision(device, dtype), _sliced(model, is_learned, num_positions):
        for targets in wanted[is_learned].split(num_positions):
            logits = model(**inputs, use_cache=False).logits[0].float()
            found.append(cross_entropy(logits, targets, reduction="none"))
    if found:
        losses[is_learned] = torch.cat(found)
    return losses.double().sum(dim=1).cpu(), is_learned.sum(dim=1).cpu()


@contextmanager
def _sliced(model: Any, is_wanted: torch.Tensor, num_positions: int) -> Iterator[None]:
    """Within this each call of `model` returns the logits of the next wanted positions, (1, positions, vocabulary).

    The model's own `forward` computes them from its decoder's output, so that architecture-specific changes of logits
    apply: Gemma 2 and 3n cap them (`final_logit_softcapping`), Granite and Cohere scale them.
    """
    whole = getattr(model, "get_base_model", lambda: model)()
    decoder = whole.base_model
    if decoder is whole:
        raise FieldError("model.base", f"{type(whole).__name__} keeps its decoder where hpsearch doesn't find it")
    own = vars(decoder).get("forward")
    decoder.forward = _Slices(decoder.forward, is_wanted, num_positions)
    try:
        yield
    finally:
        del decoder.forward
        if own is not None:
            decoder.forward = own


class _Slices:
    """Replaces a decoder's `forward`: runs it once, and returns the next slice of its hidden states at each call."""

    def __init__(self, forward: Callable[..., Any], is_wanted: torch.Tensor, num_positions: int) -> None:
        self._forward = forward
        self._is_wanted = is_wanted
        self._num_positions = num_positions
        self._output: Any = None
        self._slices: Iterator[torch.Tensor] = iter(())

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._output is None:
            self._output = self._forward(*arguments, **named)
            hidden = self._output.last_hidden_state[:, :-1][self._is_wanted]  # (wanted positions, width)
            self._slices = iter(hidden.split(self._num_positions))
        self._output.last_hidden_state = next(self._slices).unsqueeze(0)
        return self._output


def mixed_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The autocast that accelerate uses for training steps, for passes outside of a trainer."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch's inputs on the model's device. `labels` are left out: with them the model would compute a loss."""
    return {name: _moved(value, device) for name, value in batch.items() if name != "labels"}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [_moved(part, device) for part in value]
    return type(value)(**{name: _moved(part, device) for name, part in value.items()})
