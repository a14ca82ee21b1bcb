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
    """The reference is the base model without the adapter, which stays as it is."""

    loss: PairLoss | LabelledLoss = Field(
        "sigmoid",
        description=f"of pairs: {', '.join(PAIR_LOSSES)}; of single answers: {', '.join(LABELLED_LOSSES)}; trl's names "
        "(sigmoid is DPO). Papers and formulas are in `train/tasks/preference_losses`",
    )
    beta: Annotated[float, Field(gt=0)] = Field(
        0.1, description="how much it costs to leave the reference; of orpo: the weight of its odds"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="robust: the share of pairs that are the wrong way round; exo_pair: above 0, such as 1e-3"
    )
    desirable_weight: Annotated[float, Field(gt=0)] = Field(1.0, description="kto, apo_zero_unpaired: of such answers")
    undesirable_weight: Annotated[float, Field(gt=0)] = Field(1.0, description="and of the others")
