"""The losses of preferences: formulas of log-probabilities, each with its paper. The names and forms are trl's.

Left out are those of trl's whose value depends on which rows share a batch (aot sorts a batch, sft and the KL term of
bco average over it), mixtures of several losses, and discopop with its fitted constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hpsearch.spec.preference import PreferenceSpec


@dataclass(frozen=True)
class Pairs:
    """Each of shape (pairs,): the log-ratios of the answers (log-probability minus the reference's, summed over
    tokens), and their numbers of tokens.
    """

    chosen: Tensor
    rejected: Tensor
    num_chosen: Tensor
    num_rejected: Tensor

    @property
    def delta(self) -> Tensor:
        return self.chosen - self.rejected

    @property
    def mean_delta(self) -> Tensor:
        """The difference of log-ratios per token."""
        return self.chosen / self.num_chosen.clamp(min=1.0) - self.rejected / self.num_rejected.clamp(min=1.0)


def _sigmoid(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """DPO: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, eq. 7."""
    return -logsigmoid(spec.beta * pairs.delta)


def _sigmoid_norm(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """DPO with means over tokens: Lambert et al. 2024 (Tülu 3), https://arxiv.org/abs/2411.15124."""
    return -logsigmoid(spec.beta * pairs.mean_delta)


def _hinge(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Zhao et al. 2023 (SLiC), https://arxiv.org/abs/2305.10425, on DPO's margin."""
    return torch.relu(1 - spec.beta * pairs.delta)


def _ipo(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Azar et al. 2023, https://arxiv.org/abs/2310.12036, eq. 17; per token, as its authors advised trl's."""
    return (pairs.mean_delta - 1 / (2 * spec.beta)) ** 2


def _robust(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409: assumes that a share of the pairs is labelled the wrong
    way round.
    """
    epsilon = spec.label_smoothing
    as_told = -(1 - epsilon) * logsigmoid(spec.beta * pairs.delta)
    flipped = -epsilon * logsigmoid(-spec.beta * pairs.delta)
    return (as_told - flipped) / (1 - 2 * epsilon)


def _exo_pair(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Ji et al. 2024 (EXO), https://arxiv.org/abs/2402.00856, eq. 16."""
    epsilon = torch.tensor(spec.label_smoothing, device=pairs.chosen.device)
    beta, delta = spec.beta, pairs.delta
    better = torch.sigmoid(beta * delta) * (logsigmoid(beta * delta) - torch.log1p(-epsilon))
    return better + torch.sigmoid(-beta * delta) * (logsigmoid(-beta * delta) - torch.log(epsilon))


def _nca_pair(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Chen et al. 2024 (NCA), https://arxiv.org/abs/2402.05369."""
    chosen, rejected = spec.beta * pairs.chosen, spec.beta * pairs.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _bco_pair(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Jung et al. 2024 (BCO), https://arxiv.org/abs/2404.04656, without its shift."""
    return -logsigmoid(spec.beta * pairs.chosen) - logsigmoid(-(spec.beta * pairs.rejected))


def _sppo_hard(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Wu et al. 2024 (SPPO), https://arxiv.org/abs/2405.00675, eq. 4.7 with a sure winner."""
    return (pairs.chosen - 0.5 / spec.beta) ** 2 + (pairs.rejected + 0.5 / spec.beta) ** 2


def _apo_zero(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """D'Oosterlinck et al. 2024 (APO), https://arxiv.org/abs/2408.06266, eq. 7: for chosen answers that are better than
    the model's.
    """
    return 1 - torch.sigmoid(spec.beta * pairs.chosen) + torch.sigmoid(spec.beta * pairs.rejected)


def _apo_down(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """The same, eq. 8: for chosen answers that are worse than the model's."""
    return torch.sigmoid(spec.beta * pairs.chosen) + (1 - torch.sigmoid(spec.beta * pairs.delta))


PAIR_FORMULAS: dict[str, Callable[[Pairs, PreferenceSpec], Tensor]] = {
    "sigmoid": _sigmoid,
    "sigmoid_norm": _sigmoid_norm,
    "hinge": _hinge,
    "ipo": _ipo,
    "robust": _robust,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
}
"""Losses of pairs, of shape (pairs,); orpo has no reference."""


def odds_loss(chosen: Tensor, rejected: Tensor, spec: PreferenceSpec) -> Tensor:
    """ORPO's odds-ratio term, besides the likelihood of the chosen answer: Hong et al. 2024,
    https://arxiv.org/abs/2403.07691, eq. 6.

    `chosen`, `rejected`: mean log-probabilities per token, of shape (pairs,).
    """
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -(spec.beta * logsigmoid(log_odds))


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) of x < 0, exact at both ends (Mächler 2012, Accurately Computing log(1 - exp(-|a|))).

    A short answer that is learned by heart has a log-probability that rounds to 0, where both branches, and so all
    gradients of the step, would be infinite or NaN: x is limited to less than that.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    return torch.where(x < -math.log(2), torch.log1p(-torch.exp(x)), torch.log(-torch.expm1(x)))


def labelled_losses(ratios: Tensor, is_desirable: Tensor, kl: Tensor, spec: PreferenceSpec) -> Tensor:
    """Losses of single answers, of shape (answers,): the log-ratio should rise for desirable ones and fall for others.

    kto: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, eq. 7; `kl` is its z₀, the divergence from the
    reference. apo_zero_unpaired has none: D'Oosterlinck et al. 2024 (APO).
    """
    if spec.loss == "kto":
        desirable = 1 - torch.sigmoid(spec.beta * (ratios - kl))
        undesirable = 1 - torch.sigmoid(spec.beta * (kl - ratios))
    else:
        desirable = 1 - torch.sigmoid(spec.beta * ratios)
        undesirable = torch.sigmoid(spec.beta * ratios)
    return torch.where(is_desirable, spec.desirable_weight * desirable, spec.undesirable_weight * undesirable)
