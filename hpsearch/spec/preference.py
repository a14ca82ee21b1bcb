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
"""Of single answers, of which each is desirable or not."""


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
