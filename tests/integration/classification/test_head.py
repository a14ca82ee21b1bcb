"""The classification head: what it sees, how classes weigh, and what the models say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from hpsearch.jobs import EvaluationConfig, Variant
from hpsearch.spec.model import HeadSpec
from hpsearch.train.adapters import attach
from hpsearch.train.bases import Base
from hpsearch.train.encoding import IGNORED, Encoded, Encoder
from hpsearch.train.evaluation import _answer_batch
from hpsearch.train.steps import MicroBatch
from hpsearch.train.tasks.classification import Classification, class_weights, logits_of
from hpsearch.train.tiny.architectures import ARCHITECTURES
from hpsearch.train.validation import Validation
from hpsearch.trial import AnswersConfig
from tests.integration.class_fixtures import CLASSES, FLOAT32, HEAD, ROWS, Rows, collate, config_of, skill_of, tuned


class TestPooling:
    @pytest.mark.parametrize("name", ["tiny:gemma3", "tiny:qwen2-vl", "tiny:qwen2.5-vl", "tiny:qwen2"])
    def test_a_row_s_logits_do_not_depend_on_its_neighbours(
        self, rows: Rows, validation_rows: list[dict[str, Any]], name: str
    ) -> None:
        torch.manual_seed(0)
        model, processor = ARCHITECTURES[name]()
        method = skill_of(processor, has_images=name != "tiny:qwen2")
        adapted = attach(model, config_of(rows).lora)
        method.extend(adapted)
        adapted.eval()
        batch = collate(method, validation_rows)
        assert not batch["attention_mask"].bool().all(), "no row is padded"
        with torch.no_grad():
            together = logits_of(adapted, batch)
            alone = torch.cat([logits_of(adapted, collate(method, [row])) for row in validation_rows])
        assert together.shape == (9, 3)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        assert (alone.max(dim=0).values - alone.min(dim=0).values).min() > 1e-3, "all rows look the same to it"

    def test_it_is_the_mean_over_the_row_s_own_tokens(self, base: Base, rows: Rows) -> None:
        model, method = tuned(base, rows)
        row = Dataset.load_from_disk(str(rows[1]))[0]
        batch = collate(method, [row])
        with torch.no_grad():
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            hidden = model(**inputs, output_hidden_states=True).hidden_states[-1]
            expected = model.classification_head(hidden[0].float().mean(dim=0))
            torch.testing.assert_close(logits_of(model, batch)[0], expected, rtol=1e-4, atol=1e-5)

    def test_the_head_never_sees_the_label(self, base: Base, rows: Rows) -> None:
        _, method = tuned(base, rows)
        row = Dataset.load_from_disk(str(rows[1]))[0]
        other = {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": "something else"}]}
        assert torch.equal(collate(method, [row])["input_ids"], collate(method, [other])["input_ids"])


class TestClassWeights:
    def test_they_are_those_of_cui_et_al(self) -> None:
        labels = ["red"] * 12 + ["green"] * 8 + ["dark blue"] * 4
        weights = class_weights(labels, CLASSES, HeadSpec(balance_beta=0.9))
        # (1 - beta) / (1 - beta^n) for n = 4, 8, 12
        raw = [0.1 / (1 - 0.6561), 0.1 / (1 - 0.43046721), 0.1 / (1 - 0.282429536481)]
        expected = [weight * 3 / sum(raw) for weight in raw]
        assert weights is not None
        assert weights.tolist() == pytest.approx(expected)
        assert float(weights.mean()) == pytest.approx(1.0)

    @pytest.mark.parametrize(("beta", "expected"), [(0.0, [1.0, 1.0, 1.0]), (0.999999, [1.5, 0.9, 0.6])])
    def test_from_none_to_the_inverse_of_the_frequency(self, beta: float, expected: list[float]) -> None:
        labels = ["dark blue"] * 2 * 3 + ["green"] * 2 * 5 + ["red"] * 5 * 3
        weights = class_weights(labels, CLASSES, HeadSpec(balance_beta=beta))
        assert weights is not None
        assert weights.tolist() == pytest.approx(expected, rel=1e-4)  # 1/6, 1/10 and 1/15 over their mean, 1/9

    def test_none_is_no_weights(self) -> None:
        assert class_weights(["red"], CLASSES, HeadSpec(balance_beta=None)) is None

    def test_a_class_without_training_rows_takes_no_weight_from_the_others(self) -> None:
        weights = class_weights(["red", "green"], CLASSES, HeadSpec(balance_beta=0.9))
        assert weights is not None
        assert weights.tolist() == pytest.approx([0.0, 1.0, 1.0])

    def test_they_count_in_a_batch_of_one_row_too(self, base: Base, rows: Rows) -> None:
        train = Dataset.load_from_disk(str(rows[0]))
        model, method = tuned(base, rows)
        weights = class_weights(train["label"], CLASSES, HEAD)
        assert weights is not None
        for row in (train[0], train[1], train[5]):
            batch = collate(method, [row])
            with torch.no_grad():
                plain = cross_entropy(logits_of(model, batch), batch["labels"])
                weighted = method.training_loss(model, batch, 1)
            assert float(weighted) == pytest.approx(float(plain * weights[CLASSES.index(row["label"])]), rel=1e-5)

    def test_validation_is_unweighted(self, base: Base, rows: Rows, validation_rows: list[dict[str, Any]]) -> None:
        by_head = []
        for head in (HEAD, HEAD.model_copy(update={"balance_beta": None})):
            model, method = tuned(base, rows, head)
            by_head.append([loss.total for loss in method.losses(model, encoded(method, validation_rows), FLOAT32)])
        assert by_head[0] == by_head[1]


class TestJudging:
    def test_the_validation_loss_does_not_depend_on_the_batch_size(self, base: Base, rows: Rows) -> None:
        model, method = tuned(base, rows)
        data = Dataset.load_from_disk(str(rows[1]))
        found = [
            Validation(data, MicroBatch(size), method, FLOAT32, ["accuracy", "macro_f1"]).of(model)
            for size in (1, 4, 9)
        ]
        assert set(found[0]) == {"loss", "accuracy", "macro_f1"}
        batch = collate(method, list(data))
        with torch.no_grad():
            assert found[0]["loss"] == pytest.approx(float(cross_entropy(logits_of(model, batch), batch["labels"])))
        for other in found[1:]:
            assert other == pytest.approx(found[0], rel=1e-5)

    def test_loss_and_answer_come_out_of_one_forward(
        self, base: Base, rows: Rows, validation_rows: list[dict[str, Any]]
    ) -> None:
        model, method = tuned(base, rows)
        alone = method.losses(model, encoded(method, validation_rows), FLOAT32)
        said = method.answers(model, encoded(method, validation_rows), FLOAT32, is_tuned=True)
        forwards: list[int] = []
        model.get_base_model().model.register_forward_hook(lambda *_: forwards.append(1))
        assert method.measure(model, encoded(method, validation_rows), FLOAT32) == (alone, said), "bit for bit"
        assert len(forwards) == 1
        Validation(Dataset.load_from_disk(str(rows[1])), MicroBatch(3), method, FLOAT32, ["accuracy"]).of(model)
        assert len(forwards) == 1 + 3, "one for each batch of a validation"
        cell = Variant(model="tuned")
        config = EvaluationConfig.model_construct(has_references=True, rows=ROWS)
        asked = encoded(method, validation_rows)
        answered = list(_answer_batch(cell, model, method, validation_rows, asked, config, FLOAT32))
        assert len(forwards) == 1 + 3 + 1, "and of an evaluation"
        assert [row.prediction for row in answered] == [answer.text for answer in said]
        assert [row.loss for row in answered] == [loss.total for loss in alone]

    def test_the_tuned_model_says_the_class_of_the_highest_logit(
        self, base: Base, rows: Rows, validation_rows: list[dict[str, Any]]
    ) -> None:
        model, method = tuned(base, rows)
        with torch.no_grad():
            wanted = logits_of(model, collate(method, validation_rows)).argmax(dim=1).tolist()
        said = method.answers(model, encoded(method, validation_rows), FLOAT32, is_tuned=True)
        assert [answer.text for answer in said] == [CLASSES[position] for position in wanted]

    def test_the_base_says_the_likeliest_name(self, base: Base, validation_rows: list[dict[str, Any]]) -> None:
        processor = base.fresh_processor()
        method, encoder = skill_of(processor), Encoder(processor, ROWS, has_images=True)
        model = base.fresh_model().eval()
        wanted = [min(CLASSES, key=lambda name: mean_loss_of(model, encoder, row, name)) for row in validation_rows]
        said = method.answers(model, encoded(method, validation_rows), FLOAT32, is_tuned=False)
        assert [answer.text for answer in said] == wanted

    def test_a_long_name_is_not_at_a_disadvantage(self, base: Base, validation_rows: list[dict[str, Any]]) -> None:
        """By the sum over its tokens it could never be chosen."""
        processor = base.fresh_processor()
        encoder = Encoder(processor, ROWS, has_images=True)
        model, row = base.fresh_model().eval(), validation_rows[0]
        names = ["red", "red" + " and dark blue" * 4]
        answers = AnswersConfig(head=HEAD, classes=names)
        method = Classification(encoder, answers, None)
        said = method.answers(model, encoded(method, [{**row, "label": None}]), FLOAT32, is_tuned=False)
        assert said[0].text == min(names, key=lambda name: mean_loss_of(model, encoder, row, name))


def encoded(method: Classification, rows: list[dict[str, Any]]) -> list[Encoded]:
    return [method.encode(row) for row in rows]


def mean_loss_of(model: Any, encoder: Encoder, row: dict[str, Any], name: str) -> float:
    """Nats per token of `name` as the answer to the row, computed one token after the other."""
    named = {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": name}]}
    batch = encoder.batch([encoder.encode(named)])
    labels = batch.pop("labels")[0]
    with torch.no_grad():
        logits = model(**batch).logits[0].float().log_softmax(dim=-1)
    learned = (labels != IGNORED).nonzero().flatten().tolist()
    return -sum(float(logits[position - 1, labels[position]]) for position in learned) / len(learned)
