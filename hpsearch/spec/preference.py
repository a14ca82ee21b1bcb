"""How preferences are learned: with which loss, and how far the model may move from the reference."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from hpsearch.spec.base import Spec

PairLoss = Literal[
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "orpo",
]
LabelledLoss = Literal["kto", "apo_zero_unpaired"]
PAIR_LOSSES: tuple[str, ...] = get_args(PairLoss)
LABELLED_LOSSES: tuple[str, ...] = get_args(LabelledLoss)
"""Losses of single answers, each labelled as desirable or not."""
ABOUT = {
    "sigmoid": "DPO: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290",
    "sigmoid_norm": "DPO of means per token: Lambert et al. 2024 (Tülu 3), https://arxiv.org/abs/2411.15124",
    "hinge": "SLiC's hinge on DPO's margin: Zhao et al. 2023, https://arxiv.org/abs/2305.10425",
    "ipo": "IPO, per token: Azar et al. 2023, https://arxiv.org/abs/2310.12036",
    "robust": "DPO for swapped pairs: Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409",
    "exo_pair": "EXO: Ji et al. 2024, https://arxiv.org/abs/2402.00856",
    "nca_pair": "NCA: Chen et al. 2024, https://arxiv.org/abs/2402.05369",
    "bco_pair": "BCO without its shift: Jung et al. 2024, https://arxiv.org/abs/2404.04656",
    "sppo_hard": "SPPO with a sure winner: Wu et al. 2024, https://arxiv.org/abs/2405.00675",
    "apo_zero": "APO, for chosen answers better than the model: D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266",
    "apo_down": "APO, for chosen answers worse than the model: D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266",
    "orpo": "ORPO, without a reference model: Hong et al. 2024, https://arxiv.org/abs/2403.07691",
    "kto": "KTO: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306",
    "apo_zero_unpaired": "APO for single answers: D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266",
}
"""Loss → its paper, for people. The formulas are in `train/tasks/preference_losses`."""


class PreferenceSpec(Spec):
    """Preference tuning. The reference model is the base without the adapter."""

    loss: PairLoss | LabelledLoss = Field(
        "sigmoid",
        description=f"Loss, by its name in TRL (sigmoid is DPO). For pairs of answers: {', '.join(PAIR_LOSSES)}; for "
        f"single answers that are desirable or not: {', '.join(LABELLED_LOSSES)}.",
    )
    beta: Annotated[float, Field(gt=0)] = Field(
        0.1, description="Strength of the pull towards the reference model; for orpo the weight of the odds-ratio term."
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0,
        description="robust: the share of pairs whose answers are swapped; exo_pair: above 0, such as 1e-3.",
    )
    desirable_weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Weight of desirable answers in the loss; kto and apo_zero_unpaired only."
    )
    undesirable_weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Weight of undesirable answers in the loss; kto and apo_zero_unpaired only."
    )
