"""Preferences in other tools' files: DPO, IPO, ORPO and KTO as `preference:`, and the rows that they learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hpsearch.convert.draft import Draft
from hpsearch.convert.file import ForeignFile, NotKept
from hpsearch.convert.parts import Part

METHODS = ("dpo", "ipo", "orpo", "kto")
LOSSES = {"sigmoid": "sigmoid", "hinge": "hinge", "ipo": "ipo", "orpo": "orpo"}
"""LLaMA-Factory's names of losses that hpsearch has."""
_QUESTIONS = {
    "argilla": "instruction",
    "icr": "input",
    "intel": "question",
    "prompt_pairs": "prompt",
    "ultra": "prompt",
}
"""Axolotl's types, after chatml. or llama3. → the column of the question (src/axolotl/prompt_strategies/dpo and
kto).
"""
_WHOLE = ("argilla_chat", "argilla")
"""Types of whole conversations: the first with any template's prefix, the second with chat_template."""


def put_preference(draft: Draft, loss: str, beta: float, weights: tuple[float, float] = (1.0, 1.0)) -> None:
    """`weights`: of desirable and undesirable answers. Called when the adapter is known, as it removes dropout."""
    draft.learns = "preference"
    draft.set("preference.loss", loss)
    draft.set("preference.beta", beta)
    for key, weight in zip(("desirable_weight", "undesirable_weight"), weights, strict=True):
        if weight != 1:
            draft.set(f"preference.{key}", weight)
    if dropout := draft.values["lora"].pop("dropout", 0.0):
        why = "preferences are learned without dropout, as the reference is the same model without its adapter"
        draft.not_kept.append(NotKept((f"dropout: {dropout:g}",), why))


def put_axolotl(draft: Draft, method: str) -> None:
    file = draft.file
    beta = file.number("orpo_alpha" if method == "orpo" else "rl_beta", file.number("rl_beta", 0.1))
    trl = file.section("trl").get("beta")
    beta = beta if trl is None else float(trl)
    weights = file.number("kto_desirable_weight", 1.0), file.number("kto_undesirable_weight", 1.0)
    put_preference(draft, "sigmoid" if method == "dpo" else method, beta, weights)
    if smoothing := file.number("dpo_label_smoothing", 0.0):
        draft.set("preference.label_smoothing", smoothing)


def put_llamafactory(draft: Draft, stage: str) -> None:
    file = draft.file
    name = str(file.take("pref_loss", "sigmoid"))
    if stage != "kto" and name not in LOSSES:
        draft.drop("pref_loss", "hpsearch does not have this loss; sigmoid instead")
    loss = "kto" if stage == "kto" else LOSSES.get(name, "sigmoid")
    weights = file.number("kto_chosen_weight", 1.0), file.number("kto_rejected_weight", 1.0)
    put_preference(draft, loss, file.number("pref_beta", 0.1), weights)
    if smoothing := file.number("dpo_label_smoothing", 0.0):
        draft.set("preference.label_smoothing", smoothing)
    if file.number("pref_ftx", 0.0):
        draft.drop("pref_ftx", "the loss is that of preferences, and nothing is added to it")


def axolotl_part(entry: ForeignFile, name: str, where: dict[str, Any], turns: Part, method: str) -> Part | None:
    """None for a type that hpsearch does not know. `turns`: the same rows as a conversation."""
    style, _, variant = name.partition(".")
    judged: dict[str, Any] = {"answer": "completion", "desirable": "label"}
    if method != "kto":
        judged = {field: entry.text(f"field_{field}") or field for field in ("chosen", "rejected")}
    if style == "chat_template" and variant == "default" and method != "kto":
        return replace(turns, **judged)
    if variant == _WHOLE[0] or (style == "chat_template" and variant == _WHOLE[1]):
        return Part(form="pairs", **judged, **where)
    if style not in ("chatml", "llama3") or variant not in _QUESTIONS:
        return None
    if variant == "argilla" and method != "kto":
        judged = {"chosen": "chosen_response", "rejected": "rejected_response"}
    if variant == "ultra" and method != "kto":  # the question is in both conversations
        return Part(form="pairs", **judged, **where)
    return Part(form="pairs", questions=(_QUESTIONS[variant],), **judged, **where)


def llamafactory_part(part: Part, columns: ForeignFile, *, ranks: bool) -> Part | None:
    """None where the rows hold no preferences of this kind."""
    if ranks:
        return replace(part, chosen=columns.text("chosen") or "chosen", rejected=columns.text("rejected") or "rejected")
    label = columns.text("kto_tag")
    return replace(part, desirable=label) if label else None
