"""The method of preferences: the better of two answers becomes likelier, or a single desirable answer does.

Likelier than under a reference model: the base with its adapter switched off, so no second model is needed. If the
training continues from an adapter, the reference is a frozen copy of that adapter, as in trl.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model, use_adapter

from hpsearch.errors import FieldError
from hpsearch.train.adapters import REFERENCE, keep_reference
from hpsearch.train.encoding import IGNORED, Batch, Encoded, Encoder, Row, with_rejected
from hpsearch.train.loss import on_device, token_losses
from hpsearch.train.tasks.generation import Generation
from hpsearch.train.tasks.preference_losses import PAIR_FORMULAS, Pairs, labelled_losses, odds_loss
from hpsearch.train.tasks.task import Answer, RowLoss
from hpsearch.trial import AnswersConfig

_DESIRABLE, _KL, _WHOLE, _NUM_TOKENS = "is_desirable", "kl", "whole", "num_tokens"
"""Entries of a batch that are not model inputs."""


@dataclass(frozen=True)
class Judged(Encoded):
    """A row with its rejected answer, or with the label of its only one; neither if it is only a question."""

    name: str = ""
    rejected: Encoded | None = None
    is_desirable: bool | None = None

    def __len__(self) -> int:
        return max(super().__len__(), len(self.rejected) if self.rejected else 0)

    @property
    def num_bytes(self) -> int:
        other = 0 if self.rejected is None else self.rejected.num_bytes
        return super().num_bytes + other


@dataclass(frozen=True)
class _Likelihoods:
    """Log-probabilities of rows' answers, summed over their tokens, and the number of tokens; each of shape (rows,).
    `other`, `num_other`: of the rejected ones, if rows have any.
    """

    one: torch.Tensor
    num_one: torch.Tensor
    other: torch.Tensor
    num_other: torch.Tensor

    @staticmethod
    def of(sums: torch.Tensor, counts: torch.Tensor, num_rows: int) -> _Likelihoods:
        """From sequences in the order of `_sequences`."""
        return _Likelihoods(sums[:num_rows], counts[:num_rows], sums[num_rows:], counts[num_rows:])

    def over(self, reference: _Likelihoods) -> Pairs:
        return Pairs(self.one - reference.one, self.other - reference.other, self.num_one, self.num_other)


class Preference(Generation):
    """Learns which answer is better. Its answers are generated, as by a model that learned answers."""

    has_own_loss = True

    def __init__(self, encoder: Encoder, answers: AnswersConfig, train_rows: Dataset | None) -> None:
        super().__init__(encoder, answers, train_rows)
        self._spec = answers.preference
        self._is_orpo = self._spec.loss == "orpo"
        self._references: dict[tuple[Any, ...], tuple[float, ...]] = {}

    def extend(self, model: Any) -> None:
        """Uses trl's fused head, which does not compute logits of the whole vocabulary, and trains without dropout.

        Raises:
            FieldError: an adapter on the head: the fused head would ignore it.
        """
        if isinstance(model.get_output_embeddings(), BaseTunerLayer):
            raise FieldError("lora.target_modules", "preferences can't be learned with an adapter on the output layer")
        keep_reference(model)
        add_fused_lm_head(model.get_base_model())
        disable_dropout_in_model(model)

    def encode(self, row: Row) -> Judged:
        """Only the last answer of the conversation is learned."""
        one = self._last_answer(row)
        other = None
        if worse := with_rejected(row):
            other = replace(self._last_answer(worse), pictures=one.pictures)  # which are stored once
        return Judged(
            one.tokens, one.others, one.labels, one.num_prompt, one.pictures, row["id"], other, row.get("desirable")
        )

    def _last_answer(self, row: Row) -> Encoded:
        encoded = self._encoder.encode(row)
        labels = encoded.labels.clone()
        labels[: encoded.num_prompt] = IGNORED
        return replace(encoded, labels=labels)

    def num_tokens(self, row: Row) -> int:
        """Of the longer answer."""
        worse = with_rejected(row)
        return max(super().num_tokens(row), super().num_tokens(worse) if worse else 0)

    def batch(self, rows: list[Encoded]) -> Batch:
        """Chosen answers first, then the rejected ones, as in trl's forward."""
        batch = self._encoder.batch(_sequences(rows))
        if self._is_orpo:
            batch[_WHOLE] = self._whole_labels(batch, len(rows))
        desirable = [row.is_desirable for row in rows if isinstance(row, Judged) and row.is_desirable is not None]
        return batch | ({_DESIRABLE: torch.tensor(desirable)} if desirable else {})

    def num_items(self, rows: list[Encoded]) -> int:
        return len(rows)

    def shared(self, model: Any, rows: list[Encoded], size: int) -> Batch:
        """kto: the divergence from the reference; orpo: the number of tokens of the chosen conversations."""
        if self._is_orpo:
            whole = self._whole_labels(self._encoder.batch(rows), len(rows))
            return {_NUM_TOKENS: (whole[:, 1:] != IGNORED).sum()}
        return {_KL: self._divergence(model, rows, size)} if self._spec.loss == "kto" else {}

    @torch.no_grad()
    def _divergence(self, model: Any, rows: list[Encoded], size: int) -> torch.Tensor:
        """The mean log-ratio of answers to other prompts, at least 0: z₀ of the KTO paper, 4.1.

        trl (1.16, kto_trainer.py, `add_kl_completion_ids`) pairs each prompt with the answer of the previous row,
        within a forward's rows. Here it is within the optimizer step's rows, so that the result doesn't depend on the
        micro-batch size.
        """
        mixed = [
            self._encoder.with_tokens(row.prompt(), before.tokens["input_ids"][before.num_prompt :].tolist())
            for row, before in zip(rows, [rows[-1], *rows[:-1]], strict=True)
        ]
        ratios = []
        for start in range(0, len(mixed), size):
            batch = self._encoder.batch(mixed[start : start + size])
            policy = _log_probs(model, batch).sum(dim=1)
            with _reference(model):
                ratios.append(policy - _log_probs(model, batch).sum(dim=1))
        return torch.cat(ratios).mean().clamp(min=0)

    def training_loss(self, model: Any, batch: Batch, num_items: int) -> torch.Tensor:
        wanted = batch["labels"].to(model.device)
        if self._is_orpo:
            return self._odds(model, batch, num_items)
        is_desirable = batch.get(_DESIRABLE)
        num_rows = len(wanted) // (2 if is_desirable is None else 1)
        counts = (wanted != IGNORED).sum(dim=1)
        policy = _Likelihoods.of(_log_probs(model, batch).sum(dim=1), counts, num_rows)
        with torch.no_grad(), _reference(model):
            reference = _Likelihoods.of(_log_probs(model, batch).sum(dim=1), counts, num_rows)
        kl = batch.get(_KL, torch.zeros(())).to(model.device)
        losses = self._formula(policy.over(reference), is_desirable, kl)
        loss: torch.Tensor = losses.sum() / num_items
        return loss

    def _formula(self, ratios: Pairs, is_desirable: torch.Tensor | None, kl: torch.Tensor) -> torch.Tensor:
        if is_desirable is None:
            return PAIR_FORMULAS[self._spec.loss](ratios, self._spec)
        return labelled_losses(ratios.chosen, is_desirable.to(ratios.chosen.device), kl, self._spec)

    def _whole_labels(self, batch: Batch, num_rows: int) -> torch.Tensor:
        """The labels of each chosen conversation except its image, (rows, tokens): trl (1.16, orpo_trainer.py,
        `concatenated_forward`) learns prompts as well.
        """
        ids, mask = batch["input_ids"][:num_rows], batch["attention_mask"][:num_rows]
        of_image = torch.isin(ids, torch.tensor(sorted(self._encoder.image_token_ids), dtype=torch.long))
        return torch.where((mask == 1) & ~of_image, ids, IGNORED)

    def _odds(self, model: Any, batch: Batch, num_items: int) -> torch.Tensor:
        whole, answers = batch[_WHOLE].to(model.device), batch["labels"].to(model.device)
        num_rows = len(whole)
        scored = torch.cat([whole, answers[num_rows:]])
        found = _log_probs(model, batch | {"labels": scored})
        is_answer = answers[:, 1:] != IGNORED
        means = (found * is_answer).sum(dim=1) / is_answer.sum(dim=1)
        num_tokens = batch.get(_NUM_TOKENS, (whole[:, 1:] != IGNORED).sum()).to(model.device)
        likelihood = -found[:num_rows].sum() / num_tokens
        odds = odds_loss(means[:num_rows], means[num_rows:], self._spec)
        loss: torch.Tensor = likelihood + odds.sum() / num_items
        return loss

    def losses(self, model: Any, rows: list[Encoded], dtype: torch.dtype) -> list[RowLoss]:
        return self.measure(model, rows, dtype, with_texts=False)[0]

    @torch.no_grad()
    def answers(self, model: Any, rows: list[Encoded], dtype: torch.dtype, *, is_tuned: bool) -> list[Answer]:
        said = super().answers(model, rows, dtype, is_tuned=is_tuned)
        if is_tuned or not _are_pairs(rows):
            return said
        numbers = _rankings(self._likelihoods(model, rows, dtype))
        return [replace(answer, numbers=found) for answer, found in zip(said, numbers, strict=True)]

    @torch.no_grad()
    def measure(
        self, model: Any, rows: list[Encoded], dtype: torch.dtype, *, with_texts: bool = True
    ) -> tuple[list[RowLoss], list[Answer]]:
        """For kto the divergence from the reference is taken as 0, so that a row's loss depends on the row alone."""
        policy = self._likelihoods(model, rows, dtype)
        ratios = policy.over(self._reference_likelihoods(model, rows, dtype))
        judged = [row.is_desirable for row in rows if isinstance(row, Judged)]
        is_desirable = None if _are_pairs(rows) else torch.tensor(judged)
        if self._is_orpo:
            losses = self._odds_losses(model, rows, policy, dtype)
        else:
            losses = self._formula(ratios, is_desirable, torch.zeros(()))
        numbers = [
            {**ranking, **reward}
            for ranking, reward in zip(
                _rankings(policy) if is_desirable is None else [{}] * len(rows),
                self._rewards(ratios, is_desirable),
                strict=True,
            )
        ]
        said = super().answers(model, rows, dtype, is_tuned=True) if with_texts else [Answer("")] * len(rows)
        scored = [replace(answer, numbers=found) for answer, found in zip(said, numbers, strict=True)]
        return [RowLoss(loss, 1) for loss in losses.tolist()], scored

    def _rewards(self, ratios: Pairs, is_desirable: torch.Tensor | None) -> list[dict[str, float]]:
        """The implicit reward of an answer is beta times its log-ratio (Rafailov et al. 2023, 4). A single answer is
        compared with the reference's 0: a desirable one should be above it, another one below.
        """
        if is_desirable is None:
            margins = self._spec.beta * ratios.delta
        else:
            margins = self._spec.beta * torch.where(is_desirable, ratios.chosen, -ratios.chosen)
        return [{"reward_accuracy": float(margin > 0), "reward_margin": margin} for margin in margins.tolist()]

    def _likelihoods(self, model: Any, rows: list[Encoded], dtype: torch.dtype) -> _Likelihoods:
        totals, counts = token_losses(model, self._encoder.batch(_sequences(rows)), dtype)
        return _Likelihoods.of(-totals, counts, len(rows))

    def _reference_likelihoods(self, model: Any, rows: list[Encoded], dtype: torch.dtype) -> _Likelihoods:
        """Computed once per run: the reference does not learn."""
        keys = [_key(row) for row in rows]
        if any(key not in self._references for key in keys):
            with _reference(model):
                found = self._likelihoods(model, rows, dtype)
            parts = torch.stack(
                [found.one, found.num_one, *([found.other, found.num_other] if len(found.other) else [])]
            )
            self._references |= zip(keys, map(tuple, parts.T.tolist()), strict=True)
        one, num_one, *others = torch.tensor([self._references[key] for key in keys], dtype=torch.float64).T
        other, num_other = others or (torch.zeros(0), torch.zeros(0))
        return _Likelihoods(one, num_one, other, num_other)

    def _odds_losses(self, model: Any, rows: list[Encoded], policy: _Likelihoods, dtype: torch.dtype) -> torch.Tensor:
        batch = self._encoder.batch(rows)
        totals, counts = token_losses(model, batch | {"labels": self._whole_labels(batch, len(rows))}, dtype)
        odds = odds_loss(policy.one / policy.num_one, policy.other / policy.num_other, self._spec)
        return totals / counts + odds


def _sequences(rows: list[Encoded]) -> list[Encoded]:
    return [*rows, *(row.rejected for row in rows if isinstance(row, Judged) and row.rejected)]


def _are_pairs(rows: list[Encoded]) -> bool:
    return all(isinstance(row, Judged) and row.rejected for row in rows)


def _key(row: Encoded) -> tuple[Any, ...]:
    """Identifies a row by its id and its text: with another system prompt it is another one."""
    assert isinstance(row, Judged)
    return row.name, *(sequence.tokens["input_ids"].numpy().tobytes() for sequence in _sequences([row]))


def _log_probs(model: Any, batch: Batch) -> torch.Tensor:
    """(sequences, tokens - 1), 0 where the next token is not learned."""
    ours = (_DESIRABLE, _KL, _WHOLE, _NUM_TOKENS)
    given = on_device({name: value for name, value in batch.items() if name not in ours}, model.device)
    labels = batch["labels"].to(model.device)
    found: torch.Tensor = model(**given, labels=labels, use_cache=False, fused_lm_head=True).log_probs
    return found


def _reference(model: Any) -> Any:
    """Within this `model` is the reference."""
    return use_adapter(model, REFERENCE if REFERENCE in model.peft_config else None)


def _rankings(found: _Likelihoods) -> list[dict[str, float]]:
    """Whether the chosen answer has the higher likelihood: Chen et al. 2024, https://arxiv.org/abs/2405.19534."""
    return [{"ranking_accuracy": float(better)} for better in (found.one > found.other).tolist()]
